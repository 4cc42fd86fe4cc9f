"""Shows how the wording of prompts changes the Dice, from a file of `duplus prompts sensitivity`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from matplotlib.figure import Figure
from pydantic import AfterValidator

from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import (
    MOST_ROWS,
    choose_look,
    describe_cut,
    draw_legend,
    escape,
    make_figure,
    shorten,
    style_axes,
)
from duplus_nnunet.model_report.result_files import ResultForm, join_some, read_result

ANCHOR = "wording"
_TITLE = "Wording of prompts"
_COMMAND = "duplus prompts sensitivity --json FILE"
# Kinds of wordings; earlier versions called the prompts T1 and T2.
_OWN = ("target prompt", "context prompt")
_FORMER = {"T1": "context prompt", "T2": "target prompt"}
# Small differences are not drawn as large ones: the axis spans at least so much Dice.
_LEAST_RANGE = 0.2


class WordingForm(ResultForm):
    """One wording: its text, its kind and its mean Dice (0 to 1, higher is better); None: no case holds the target."""

    text: str
    kind: Annotated[str, AfterValidator(lambda kind: _FORMER.get(kind, kind))]
    dice: float | None
    by_case: Mapping[str, float | None] = {}


class WordedTargetForm(ResultForm):
    """A target, with the Dice of the best wording less that of the worst, and all wordings."""

    name: str
    spread: float | None
    worst: str | None = None
    wordings: Sequence[WordingForm]


class SensitivityForm(ResultForm):
    """Content of the file."""

    context: str
    context_prompt: str
    cases: Sequence[str]
    targets: Sequence[WordedTargetForm]
    contexts: Sequence[WordedTargetForm] = ()


def make_wording(file: Path | None) -> Section:
    """Show the effect of wording.

    Args:
        file: File that `duplus prompts sensitivity --json FILE` wrote; None: there is none.

    Raises:
        DataError: The file cannot be read.
    """
    if file is None:
        text = (
            "The effect of wording was not measured. Measure it with duplus prompts sensitivity -m MODEL -i IMAGES -l "
            "LABELS --json wording.json, and give the file with --wording wording.json."
        )
        return Section(ANCHOR, _TITLE, [Paragraph(text, "absent")])
    found = read_result(file, SensitivityForm, _COMMAND)
    text = (
        f"Context {found.context} ({found.context_prompt!r}), {len(found.cases)} case(s): {join_some(found.cases)}. "
        "The Dice is that of each target's own mask, regardless of other targets."
    )
    blocks: list[Block] = [Paragraph(text)]
    blocks += _show("wording", "wordings of the target prompt", found.targets)
    blocks += _show("wording_context", "wordings of the context prompt", found.contexts)
    return Section(ANCHOR, _TITLE, blocks)


def _show(name: str, what: str, targets: Sequence[WordedTargetForm]) -> Iterator[Block]:
    known = [target for target in targets if target.spread is not None]
    absent = [target.name for target in targets if target.spread is None]
    if absent:
        yield Paragraph(f"In no label map, so without a Dice for {what}: {join_some(absent)}.", "absent")
    if not known:
        return
    ordered = sorted(known, key=lambda target: -(target.spread or 0.0))
    widest = ", ".join(f"{target.name} {target.spread:.3f}" for target in ordered[:3])
    mean = sum(target.spread or 0.0 for target in known) / len(known)
    yield Chart(
        name,
        f"Dice by {what}",
        "Each mark is a wording; higher is better. The targets that depend most on the wording come first. The spread, "
        f"the Dice of the best wording less that of the worst, is {mean:.3f} on average."
        + describe_cut(len(ordered), MOST_ROWS, "targets"),
        f"Largest spreads: {widest}.",
        _draw(ordered[:MOST_ROWS]),
        [
            {"target": target.name, "kind": wording.kind, "text": wording.text, "Dice": wording.dice}
            for target in ordered
            for wording in target.wordings
        ],
    )
    rows: list[tuple[Cell, ...]] = [
        (target.name, target.spread, _find_own(target), len(target.wordings), target.worst) for target in ordered
    ]
    headings = ("target", "spread of the Dice", "Dice of the model's own wording", "wordings", "worst wording")
    yield Table(f"{name}_spread", f"Spread over {what}", headings, rows)


def _find_own(target: WordedTargetForm) -> float | None:
    return next((wording.dice for wording in target.wordings if wording.kind in _OWN), None)


def _draw(targets: Sequence[WordedTargetForm]) -> Figure:
    kinds = list(dict.fromkeys(wording.kind for target in targets for wording in target.wordings))
    figure = make_figure(1.2 + 0.26 * max(3, len(targets)) + 0.18 * len(kinds))
    axes = figure.subplots()
    for number, kind in enumerate(kinds):
        look = choose_look(number)
        points = [
            (wording.dice, row)
            for row, target in enumerate(targets)
            for wording in target.wordings
            if wording.kind == kind and wording.dice is not None
        ]
        axes.plot(
            [dice for dice, _ in points], [row for _, row in points], look.marker, color=look.colour, markersize=6,
            fillstyle="full" if kind in _OWN else "none", linestyle="none", label=kind,
        )  # fmt: skip
    axes.set_yticks(range(len(targets)), [escape(shorten(target.name)) for target in targets])
    axes.set(ylim=(len(targets) - 0.5, -0.5), xlabel="Dice")
    low, high = axes.get_xlim()
    widening = max(0.0, _LEAST_RANGE - (high - low)) / 2
    axes.set_xlim(low - widening, high + widening)
    style_axes(axes)
    draw_legend(figure, axes)
    return figure
