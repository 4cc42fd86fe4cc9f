"""Shows a training: loss, learning rate, and online Dice by source and target, over the epochs."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.sampling import measure_shares
from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import (
    FONT,
    MOST_LINES,
    MOST_ROWS,
    Line,
    describe_cut,
    draw_legend,
    draw_lines,
    draw_stacked_bars,
    label_rows,
    make_figure,
    style_axes,
)
from duplus_nnunet.model_report.fold_files import FoldSource, TrainingLog
from duplus_nnunet.model_report.gathering import ReportSource

ANCHOR = "training"
_HEIGHT = 3.0
# Online Dice varies between epochs, since few patches are validated in each.
_LAST = 5


def make_training_curves(source: ReportSource) -> Section:
    """Show the training of each fold, and the shares in which training cases are drawn."""
    blocks: list[Block] = []
    for fold in source.folds:
        several = f", fold {fold.name}" if len(source.folds) > 1 else ""
        blocks += [Paragraph(fold.missing[key], "absent") for key in ("log", "final", "dice") if key in fold.missing]
        if fold.log is not None and fold.log.epochs:
            blocks += _show_fold(fold, fold.log, several)
    if not source.folds:
        blocks.append(Paragraph(source.missing.get("folds", "Nothing was trained."), "absent"))
    return Section(ANCHOR, "Training", [*blocks, *_show_shares(source)])


def _show_fold(fold: FoldSource, log: TrainingLog, several: str) -> Iterator[Block]:
    losses = [Line("training", log.training_loss), Line("validation", log.validation_loss)]
    end = f"{_format(log.training_loss[-1])} in training, {_format(log.validation_loss[-1])} in validation"
    yield Chart(
        f"loss_fold_{fold.name}",
        f"Loss{several}",
        "Loss of each epoch, Dice loss plus cross-entropy; lower is better. Both are means over random patches, and "
        "the training patches are augmented.",
        f"Two curves over {log.epochs} epochs. In the last epoch the loss is {end}.",
        _draw("loss", losses),
        [
            {"epoch": epoch, "training": _plain(training), "validation": _plain(validation)}
            for epoch, (training, validation) in enumerate(
                zip(log.training_loss, log.validation_loss, strict=True), start=1
            )
        ],
    )
    yield from _show_dice(fold, log, several)
    yield from _show_drawn(fold, several)
    yield Chart(
        f"learning_rate_fold_{fold.name}",
        f"Learning rate{several}",
        "Learning rate at the start of each epoch.",
        f"One curve, from {_format(log.learning_rate[0])} to {_format(log.learning_rate[-1])}.",
        _draw("learning rate", [Line("learning rate", log.learning_rate)]),
        [{"epoch": epoch, "learning rate": _plain(rate)} for epoch, rate in enumerate(log.learning_rate, start=1)],
    )


def _show_drawn(fold: FoldSource, several: str) -> Iterator[Block]:
    """Show the shares of sources in the images that were drawn, where the training logged them."""
    if len(fold.drawn) < 2:
        return
    lines = [
        Line(name, [share for _, share in rows], [epoch for epoch, _ in rows]) for name, rows in fold.drawn.items()
    ]
    ends = ", ".join(f"{line.name} {sum(line.y) / len(line.y):.0%}" for line in lines)
    yield Chart(
        f"drawn_shares_fold_{fold.name}",
        f"Shares of the sources in the training images{several}",
        "Share of the training images of each epoch that came from each source, as logged for TensorBoard."
        + describe_cut(len(lines), MOST_LINES, "sources"),
        f"Mean over the epochs: {ends}.",
        _draw("share", lines[:MOST_LINES], (0, 1)),
        [
            {"source": name, "epoch": epoch, "share": share}
            for name, rows in fold.drawn.items()
            for epoch, share in rows
        ],
    )


def _show_dice(fold: FoldSource, log: TrainingLog, several: str) -> Iterator[Block]:
    if not log.dice:
        return
    sources = list(dict.fromkeys(source for source, _ in log.dice))
    means = [
        Line(name, average([values for (other, _), values in log.dice.items() if other == name])) for name in sources
    ]
    note = "It is computed on patches of the validation cases; the validation of whole images is in the next section."
    if len(sources) > 1:
        yield Chart(
            f"online_dice_by_source_fold_{fold.name}",
            f"Online Dice by source{several}",
            f"Mean of the targets of each source; higher is better. {note}"
            + describe_cut(len(means), MOST_LINES, "sources"),
            _describe_ends(means),
            _draw("online Dice", means[:MOST_LINES], (0, 1)),
            _to_rows(means),
        )
    lines = [Line(f"{target} ({source})", values) for (source, target), values in log.dice.items()]
    lines.sort(key=lambda line: _mean_of_end(line.y))
    yield Chart(
        f"online_dice_fold_{fold.name}",
        f"Online Dice by target{several}",
        f"The targets with the lowest Dice at the end come first; higher is better. {note} Bright is high; "
        f"white is an epoch in which no patch held the target. The number at the right is the mean of the last "
        f"{min(_LAST, log.epochs)} epochs.{describe_cut(len(lines), MOST_ROWS, 'targets')}",
        _describe_ends(lines),
        _draw_heat_map(lines[:MOST_ROWS]),
        _to_rows(lines),
    )
    rows = [(source, target, _round(_mean_of_end(values))) for (source, target), values in log.dice.items()]
    yield Table(
        f"online_dice_end_fold_{fold.name}",
        f"Online Dice at the end{several}: mean of the last {min(_LAST, log.epochs)} epochs",
        ("source", "target", "online Dice"),
        sorted(rows, key=lambda row: -1.0 if row[2] is None else row[2]),
    )


def average(columns: Sequence[Sequence[float]]) -> list[float]:
    """Average several curves epoch by epoch, ignoring NaN; NaN where all are NaN."""
    means = []
    for values in zip(*columns, strict=True):
        known = [value for value in values if not math.isnan(value)]
        means.append(sum(known) / len(known) if known else math.nan)
    return means


def _mean_of_end(values: Sequence[float]) -> float:
    known = [value for value in values[-_LAST:] if not math.isnan(value)]
    return sum(known) / len(known) if known else -1.0


def _describe_ends(lines: Sequence[Line]) -> str:
    ends = [f"{line.name} {_format(_mean_of_end(line.y))}" for line in lines[:5] if _mean_of_end(line.y) >= 0]
    more = f", and {len(lines) - 5} more" if len(lines) > 5 else ""
    last = min([_LAST, *(len(line.y) for line in lines)])
    return f"Curves over the epochs. Mean of the last {last} epochs: {', '.join(ends) or 'not defined'}{more}."


def _to_rows(lines: Sequence[Line]) -> list[dict[str, Cell]]:
    epochs = len(lines[0].y) if lines else 0
    return [{"epoch": epoch + 1, **{line.name: _plain(line.y[epoch]) for line in lines}} for epoch in range(epochs)]


def _draw(label: str, lines: Sequence[Line], bounds: tuple[float, float] | None = None) -> Figure:
    figure = make_figure(_HEIGHT + 0.2 * (len(lines) if len(lines) > 1 else 0))
    axes = figure.subplots()
    draw_lines(axes, lines, marked=any(math.isnan(value) for line in lines for value in line.y))
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if max(len(line.y) for line in lines) == 1:
        axes.set_xlim(0, 2)
    if bounds is not None:
        axes.set_ylim(bounds[0] - 0.02, bounds[1] + 0.02)
    style_axes(axes)
    draw_legend(figure, axes)
    return figure


def _draw_heat_map(lines: Sequence[Line]) -> Figure:
    """Draw the Dice of a target in each epoch as a row of tiles, with its value at the end as a number."""
    figure = make_figure(1.2 + 0.29 * max(3, len(lines)))
    axes = figure.subplots()
    table = np.array([line.y for line in lines])
    extent = (0.5, table.shape[1] + 0.5, len(lines) - 0.5, -0.5)
    image = axes.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto", extent=extent, interpolation="nearest")
    for row, line in enumerate(lines):
        end = _mean_of_end(line.y)
        text = "none" if end < 0 else f"{end:.2f}"
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=FONT - 1)
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    style_axes(axes)
    label_rows(axes, [line.name for line in lines])
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=40, pad=0.03)
    bar.ax.tick_params(labelsize=FONT - 1.5)
    bar.set_label("online Dice", fontsize=FONT - 0.5)
    return figure


def _show_shares(source: ReportSource) -> Iterator[Block]:
    """Show how often the cases of each source and target are drawn, by the weights in the plans."""
    planned = {} if source.bank is None else source.bank.form.sources
    if not planned:
        return
    total = sum(each.weight for each in planned.values())
    shares = {name: each.weight / total for name, each in planned.items()}
    if len(shares) < 2:
        return
    cases = {name: each.cases for name, each in planned.items()}
    rows = {name: {"share of the drawn cases": round(share, 3)} for name, share in shares.items()}
    yield Chart(
        "sampling_shares",
        "How often the cases of each source are drawn",
        "Planned share of the training cases that are drawn, by the weights of the sources. The numbers also have the "
        "share of each source among the cases themselves, and the share of drawn cases in which a target is annotated.",
        ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:8]) + ".",
        draw_stacked_bars("share of the drawn cases", rows, ["share of the drawn cases"]),
        [
            *(
                {"source": name, "target": None, "share of drawn": share, "share of cases": _share(cases, name)}
                for name, share in shares.items()
            ),
            *_list_target_shares(source),
        ],
    )


def _share(cases: dict[str, int], name: str) -> float | None:
    return cases[name] / sum(cases.values()) if any(cases.values()) else None


def _list_target_shares(source: ReportSource) -> Iterator[dict[str, Cell]]:
    """List the share of drawn cases in which each target is annotated, of all training cases of the table."""
    if source.table is None or source.bank is None:
        return
    weights = {name: each.weight for name, each in source.bank.form.sources.items()}
    known = {name: case for name, case in source.table.cases.items() if case.source in weights}
    for pair, share in _sum_shares(known, weights).items():
        yield {"source": pair[0], "target": pair[1], "share of drawn": share, "share of cases": None}


def _sum_shares(known: Mapping[str, Case], weights: Mapping[str, float]) -> dict[tuple[str, str], float]:
    drawn: dict[tuple[str, str], float] = {}
    for name, share in measure_shares(known, weights).items():
        case = known[name]
        for target in case.annotated:
            pair = (case.source, target)
            drawn[pair] = drawn.get(pair, 0.0) + share
    return drawn


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _round(value: float) -> float | None:
    return None if value < 0 else round(value, 3)


def _format(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.3g}"
