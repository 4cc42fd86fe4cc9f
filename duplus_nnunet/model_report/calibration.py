"""Shows the calibration of probabilities and of presence, from a file of `duplus evaluate --calibration`."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import (
    GREY,
    MOST_LINES,
    choose_look,
    describe_cut,
    draw_legend,
    escape,
    make_figure,
    shorten,
    style_axes,
)
from duplus_nnunet.model_report.result_files import format_estimate
from duplus_nnunet.reporting.calibration import NEIGHBOURHOOD_MM, Estimate, Reliability, TargetCalibration
from duplus_nnunet.reporting.calibration_files import read_calibration_report

ANCHOR = "calibration"
_TITLE = "Calibration of probabilities"
_DESCRIPTION = (
    "The expected calibration error (ECE) is the mean difference, over bins of probability and weighted by their "
    "voxels, between the mean probability and the observed share of the target; the maximum calibration error (MCE) is "
    f"the largest of these differences. Voxels at most {NEIGHBOURHOOD_MM:g} mm along each axis from the reference or "
    "from where the probability is above 0.5 are shown apart from all voxels: most voxels are background far away, "
    "which is easy and makes the numbers small."
)


def make_calibration(file: Path | None) -> Section:
    """Show the calibration of a model's probabilities.

    Args:
        file: calibration.json that `duplus evaluate --calibration` wrote; None: there is none.

    Raises:
        DataError: The file cannot be read.
    """
    if file is None:
        text = (
            "Calibration was not measured. Predict with duplus predict --probabilities (and --statistics, for the "
            "presence of targets), score the folder with duplus evaluate --calibration, and give the calibration.json "
            "with --calibration."
        )
        return Section(ANCHOR, _TITLE, [Paragraph(text, "absent")])
    found = read_calibration_report(file)
    blocks: list[Block] = [Paragraph(_DESCRIPTION), *(Paragraph(note) for note in found.notes)]
    presence = list(_show_presence(found.rows))
    if not presence and not found.notes:
        presence.append(Paragraph("The presence of targets was not predicted, so it is not scored.", "absent"))
    return Section(ANCHOR, _TITLE, [*blocks, *_show_voxels(found.rows), *presence])


def _show_voxels(rows: Sequence[TargetCalibration]) -> Iterator[Block]:
    known = [row for row in rows if row.near is not None]
    if not known:
        yield Paragraph("No target has voxels near it, so there is no reliability curve.", "absent")
        return
    ordered = sorted(known, key=lambda row: -_get_ece(row))
    yield Chart(
        "reliability",
        "Reliability near each target",
        "Ten bins of equal width: observed share of the target by mean probability. On the dashed line, both are "
        "equal; below it, probabilities are too high. The targets with the largest ECE come first."
        + describe_cut(len(ordered), MOST_LINES, "targets"),
        "Largest ECE: " + ", ".join(f"{_name(row)} {_get_ece(row):.3f}" for row in ordered[:3]) + ".",
        _draw(ordered[:MOST_LINES]),
        [
            {
                "source": row.source, "target": row.target, "voxels of": kind, "low": part.low, "high": part.high,
                "voxels": part.count,
                "mean probability": _to_cell(part.mean_probability),
                "observed share": _to_cell(part.observed_share),
            }
            for row in rows
            for kind, found in (("near", row.near), ("all", row.all))
            if found is not None
            for part in found.equal_width.bins
        ],
    )  # fmt: skip
    table: list[tuple[Cell, ...]] = [
        (row.source, row.target, kind, found.cases, found.voxels, *_list_errors(found))
        for row in ordered
        for kind, found in (("near", row.near), ("all", row.all))
        if found is not None
    ]
    headings = ("source", "target", "voxels of", "cases", "voxels", "ECE", "MCE", "Brier score")
    yield Table("calibration", "Calibration by source and target, with 95 % intervals", headings, table)


def _name(row: TargetCalibration) -> str:
    return f"{row.target} ({row.source})"


def _get_ece(row: TargetCalibration) -> float:
    return 0.0 if row.near is None or math.isnan(row.near.equal_width.ece.value) else row.near.equal_width.ece.value


def _list_errors(found: Reliability) -> tuple[Cell, ...]:
    return (
        _format(found.equal_width.ece),
        None if math.isnan(found.equal_width.mce) else round(found.equal_width.mce, 3),
        _format(found.brier, 4),
    )


def _to_cell(value: float) -> float | None:
    return None if math.isnan(value) else value


def _format(estimate: Estimate, digits: int = 3) -> str | None:
    return format_estimate(_to_cell(estimate.value), estimate.interval, digits)


def _draw(rows: Sequence[TargetCalibration]) -> Figure:
    figure = make_figure(4.6 + 0.2 * len(rows))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    for number, row in enumerate(rows):
        look = choose_look(number)
        bins = [] if row.near is None else [part for part in row.near.equal_width.bins if part.count]
        axes.plot(
            [part.mean_probability for part in bins], [part.observed_share for part in bins],
            color=look.colour, linestyle=look.line, marker=look.marker, markersize=5, linewidth=1.5,
            label=escape(shorten(_name(row), 40)),
        )  # fmt: skip
    axes.set(xlabel="mean probability", ylabel="observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_aspect("equal")
    style_axes(axes)
    draw_legend(figure, axes)
    return figure


def _show_presence(rows: Sequence[TargetCalibration]) -> Iterator[Block]:
    table: list[tuple[Cell, ...]] = [
        (
            row.source, row.target, row.presence.cases, row.presence.present, _format(row.presence.brier),
            _format(row.presence.sensitivity), _format(row.presence.specificity), _format(row.presence.auc),
        )
        for row in rows
        if row.presence is not None
    ]  # fmt: skip
    if not table:
        return
    headings = ("source", "target", "cases", "hold it", "Brier score", "sensitivity", "specificity", "AUC")
    yield Table("presence", "Presence of targets in images, with 95 % intervals", headings, table)
