"""Shows the calibration of probabilities and of presence, from a file of `duplus evaluate --calibration`."""

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
from duplus_nnunet.model_report.result_files import EstimateForm, ResultForm, format_estimate, read_result

ANCHOR = "calibration"
_TITLE = "Calibration of probabilities"
_COMMAND = "duplus evaluate --calibration"


class BinForm(ResultForm):
    """Voxels (or images) of similar probability; means are None where there are none."""

    low: float
    high: float
    count: int
    mean_probability: float | None
    observed_share: float | None


class BinningForm(ResultForm):
    """Bins, expected and maximum calibration error (0 to 1, lower is better)."""

    bins: Sequence[BinForm]
    ece: EstimateForm
    mce: float | None


class ReliabilityForm(ResultForm):
    """Calibration of voxels."""

    cases: int
    patients: int
    voxels: int
    observed_share: float | None
    equal_width: BinningForm
    equal_mass: BinningForm | None = None
    brier: EstimateForm


class PresenceForm(ResultForm):
    """Quality of the predicted probability that an image contains a target."""

    cases: int
    present: int
    brier: EstimateForm
    sensitivity: EstimateForm
    specificity: EstimateForm
    auc: EstimateForm


class TargetForm(ResultForm):
    """Calibration of one target in one source: near the target, in the whole image, and of its presence."""

    source: str
    target: str
    near: ReliabilityForm | None = None
    all: ReliabilityForm | None = None
    presence: PresenceForm | None = None

    @property
    def name(self) -> str:
        """Its name in charts."""
        return f"{self.target} ({self.source})"


class CalibrationForm(ResultForm):
    """Content of calibration.json."""

    version: int
    rows: Sequence[TargetForm]
    neighbourhood_mm: float | None = None
    notes: Sequence[str] = ()


def make_calibration(file: Path | None) -> Section:
    """Show the calibration of a model's probabilities.

    Args:
        file: calibration.json that `duplus evaluate --calibration` wrote; None: there is none.

    Raises:
        DataError: The file cannot be read.
    """
    if file is None:
        text = (
            "Calibration was not measured. Predict with duplus predict --save_probabilities, score the folder with "
            "duplus evaluate --calibration, and give the calibration.json with --calibration."
        )
        return Section(ANCHOR, _TITLE, [Paragraph(text, "absent")])
    found = read_result(file, CalibrationForm, _COMMAND)
    blocks: list[Block] = [Paragraph(_describe(found)), *(Paragraph(note) for note in found.notes)]
    return Section(ANCHOR, _TITLE, [*blocks, *_show_voxels(found.rows), *_show_presence(found.rows)])


def _describe(found: CalibrationForm) -> str:
    near = "" if found.neighbourhood_mm is None else f" (within {found.neighbourhood_mm:g} mm)"
    return (
        "The expected calibration error (ECE) is the mean difference, over bins of probability and weighted by their "
        "voxels, between the mean probability and the observed share of the target; the maximum calibration error "
        f"(MCE) is the largest of these differences. Voxels near the reference or the prediction{near} are shown apart "
        "from all voxels: most voxels are background far away, which is easy and makes the numbers small."
    )


def _show_voxels(rows: Sequence[TargetForm]) -> Iterator[Block]:
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
        "Largest ECE: " + ", ".join(f"{row.name} {_get_ece(row):.3f}" for row in ordered[:3]) + ".",
        _draw(ordered[:MOST_LINES]),
        [
            {
                "source": row.source, "target": row.target, "voxels of": kind, "low": part.low, "high": part.high,
                "voxels": part.count, "mean probability": part.mean_probability, "observed share": part.observed_share,
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


def _get_ece(row: TargetForm) -> float:
    return 0.0 if row.near is None or row.near.equal_width.ece.value is None else row.near.equal_width.ece.value


def _list_errors(found: ReliabilityForm) -> tuple[Cell, ...]:
    mce = found.equal_width.mce
    return _format(found.equal_width.ece), None if mce is None else round(mce, 3), _format(found.brier, 4)


def _format(value: EstimateForm, digits: int = 3) -> str | None:
    return format_estimate(value.value, value.interval, digits)


def _draw(rows: Sequence[TargetForm]) -> Figure:
    figure = make_figure(4.6 + 0.2 * len(rows))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    for number, row in enumerate(rows):
        look = choose_look(number)
        bins = [] if row.near is None else [part for part in row.near.equal_width.bins if part.count]
        axes.plot(
            [part.mean_probability or 0.0 for part in bins], [part.observed_share or 0.0 for part in bins],
            color=look.colour, linestyle=look.line, marker=look.marker, markersize=5, linewidth=1.5,
            label=escape(shorten(row.name, 40)),
        )  # fmt: skip
    axes.set(xlabel="mean probability", ylabel="observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_aspect("equal")
    style_axes(axes)
    draw_legend(figure, axes)
    return figure


def _show_presence(rows: Sequence[TargetForm]) -> Iterator[Block]:
    table: list[tuple[Cell, ...]] = [
        (
            row.source, row.target, row.presence.cases, row.presence.present, _format(row.presence.brier),
            _format(row.presence.sensitivity), _format(row.presence.specificity), _format(row.presence.auc),
        )
        for row in rows
        if row.presence is not None
    ]  # fmt: skip
    if not table:
        yield Paragraph("The presence of targets was not predicted, so it is not scored.", "absent")
        return
    headings = ("source", "target", "cases", "hold it", "Brier score", "sensitivity", "specificity", "AUC")
    yield Table("presence", "Presence of targets in images, with 95 % intervals", headings, table)
