"""Plans which cases and targets a viewer shows, before anything is read or predicted."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from duplus_nnunet.model_report.case_files import ORIGINS, ModelCases, ShownCase, mean_dice

# How cases are chosen, for captions.
RULE = (
    "Of each context, a held-out case is shown where there is one, else a test image: the one that contains most "
    "targets, and of several such cases the one with the median Dice, or the first one where there are no scores."
)
_MOST_TARGETS = 30


@dataclass(frozen=True)
class Panel:
    """One image of a planned viewer.

    Attributes:
        case: The case.
        targets: Names of the targets that are shown.
    """

    case: ShownCase
    targets: tuple[str, ...]


@dataclass(frozen=True)
class PlannedViewer:
    """A section with a viewer whose images have not been read.

    Attributes:
        anchor: Its place in links.
        title: Its heading.
        text: What is seen in it.
        caption: How its cases were chosen.
        panels: Its images; empty: it cannot be shown.
        reason: Why it cannot be shown, a sentence.
    """

    anchor: str
    title: str
    text: str
    caption: str = RULE
    panels: Sequence[Panel] = ()
    reason: str = ""


def choose_case(model: ModelCases, cases: Iterable[ShownCase], target: str | None = None) -> ShownCase | None:
    """Choose one case by the rule in `RULE`; None if there is none.

    Args:
        model: The model.
        cases: The cases to choose from.
        target: Only cases are chosen that contain this target, as far as that is known.
    """
    possible = [case for case in cases if target is None or case.case is None or target in case.case.present]
    if not possible:
        return None
    origin = min((case.origin for case in possible), key=ORIGINS.index)
    possible = [case for case in possible if case.origin == origin]
    annotated = [case for case in possible if case.truth is not None]
    possible = annotated or possible
    most = max(_count_present(case) for case in possible)
    fullest = [case for case in possible if _count_present(case) == most]
    scored = {case.name: value for case in fullest if (value := _find_dice(model, case, target)) is not None}
    if not scored:
        return min(fullest, key=lambda case: case.name)
    names = sorted(scored, key=lambda name: (scored[name], name))
    return next(case for case in fullest if case.name == names[(len(names) - 1) // 2])


def list_targets(model: ModelCases, case: ShownCase) -> tuple[str, ...]:
    """List the targets that the model learned in the context of a case, those first that the case contains."""
    trained = model.form.contexts[case.context].trained
    names = [target.name for target in model.form.targets if target.name in trained]
    present = () if case.case is None else case.case.present
    return tuple(sorted(names, key=lambda name: name not in present)[:_MOST_TARGETS])


def _count_present(case: ShownCase) -> int:
    return 0 if case.case is None else len(case.case.present)


def _find_dice(model: ModelCases, case: ShownCase, target: str | None) -> float | None:
    """Find the Dice of a target in a case, or the mean over its targets; None if it has none."""
    score = model.scores.get(case.name)
    if score is None:
        return None
    value = mean_dice(score) if target is None else score.targets[target].dice if target in score.targets else math.nan
    return None if math.isnan(value) else value
