"""The demonstration's scores, its table, and the bars it has to clear.

In: predicted and true label maps. Out: Dice a contrast, target and case, left/right confusion, and a verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.text_table import format_table

LEAST_DICE = 0.80
MOST_CONFUSION = 0.05
MOST_CONTROL_DICE = 0.20

LabelMap = NDArray[np.uint8]
# Dice, 0 to 1, of each case by target; and that by contrast.
TargetScores = Mapping[str, Sequence[float]]
Scores = Mapping[str, TargetScores]


@dataclass(frozen=True)
class Results:
    """What the demonstration measured on unseen bodies.

    Attributes:
        dice: By contrast and target, of what is annotated in that contrast's training cases.
        transfer: The same of what is annotated in other contrasts only.
        targets_exchanged: As `dice`, with each target's prompt (T2) exchanged for another annotated target's.
        contexts_exchanged: As `dice`, with each context's prompt (T1) exchanged for another context's.
        confusion: Share of each side's prediction that lies in the other side, by description.
    """

    dice: Scores
    transfer: Scores
    targets_exchanged: Scores
    contexts_exchanged: Scores
    confusion: Mapping[str, float]


@dataclass(frozen=True)
class Bar:
    """One thing the demonstration must show.

    Attributes:
        name: What was measured.
        value: What was found, 0 to 1.
        limit: What it is held against.
        at_least: Whether the value must reach the limit; otherwise it must stay below it.
    """

    name: str
    value: float
    limit: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """Whether the bar is cleared; never so for a value that is not a number."""
        return self.value >= self.limit if self.at_least else self.value < self.limit

    def describe(self) -> str:
        """Say in one line what was found and what was wanted."""
        wanted = f"{self.limit:.2f} or more" if self.at_least else f"below {self.limit:.2f}"
        return f"{'ok  ' if self.holds else 'FAIL'} {self.name}: {self.value:.3f} (wanted: {wanted})"


def measure_dice(prediction: LabelMap, truth: LabelMap, value: int) -> float:
    """Dice of one label, 0 to 1, higher is better; 1 if it is in neither map."""
    found, real = prediction == value, truth == value
    total = int(found.sum() + real.sum())
    return 2.0 * int((found & real).sum()) / total if total else 1.0


def measure_confusion(prediction: LabelMap, truth: LabelMap, value: int, other: int) -> float:
    """Share of the voxels predicted as `value` that are truly `other`, 0 to 1, lower is better; 0 if there are none."""
    found = prediction == value
    return float((truth[found] == other).mean()) if found.any() else 0.0


def score_cases(pairs: Sequence[tuple[LabelMap, LabelMap]], labels: Mapping[str, int]) -> dict[str, list[float]]:
    """Measure the Dice of every target in every case, given as pairs of prediction and truth."""
    return {
        name: [measure_dice(prediction, truth, value) for prediction, truth in pairs] for name, value in labels.items()
    }


def mean_dice(scores: TargetScores) -> float:
    """Average over targets of the average over cases, 0 to 1."""
    return float(np.mean([np.mean(values) for values in scores.values()]))


def describe_results(results: Results) -> str:
    """Lay out Dice a contrast and target: mean, spread, worst and best case, and the means of the two controls."""
    rows: list[tuple[str, ...]] = [("", "mean", "std", "min", "max", "T2 exchanged", "T1 exchanged")]
    for contrast, scores in results.dice.items():
        controls = (results.targets_exchanged[contrast], results.contexts_exchanged[contrast])
        for name, values in scores.items():
            means = (f"{np.mean(control[name]):.3f}" for control in controls)
            rows.append((f"{contrast} {name}", *_format_spread(values), *means))
        means = (f"{mean_dice(control):.3f}" for control in controls)
        rows.append((f"{contrast} mean", f"{mean_dice(scores):.3f}", "", "", "", *means))
    rows.append(("never annotated in that contrast (only reported):",))
    for contrast, scores in results.transfer.items():
        rows += [(f"{contrast} {name}", *_format_spread(values)) for name, values in scores.items()]
    return "\n".join(format_table(rows, align="<>>>>>>"))


def judge(results: Results) -> list[Bar]:
    """Hold the results against the bars."""
    return [
        *(
            Bar(f"mean Dice on unseen cases, {contrast}", mean_dice(scores), LEAST_DICE, at_least=True)
            for contrast, scores in results.dice.items()
        ),
        *(Bar(name, value, MOST_CONFUSION, at_least=False) for name, value in results.confusion.items()),
        *(
            Bar(f"mean Dice with T2 exchanged, {contrast}", mean_dice(scores), MOST_CONTROL_DICE, at_least=False)
            for contrast, scores in results.targets_exchanged.items()
        ),
    ]


def _format_spread(values: Sequence[float]) -> tuple[str, ...]:
    return tuple(f"{statistic(values):.3f}" for statistic in (np.mean, np.std, np.min, np.max))
