"""The demonstration's scores, its table, and the bars it has to clear.

In: predicted and true label maps. Out: Dice a target and case, left/right confusion, and a verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_DICE = 0.80
MOST_CONFUSION = 0.05
MOST_CONTROL_DICE = 0.20

LabelMap = NDArray[np.uint8]


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


def mean_dice(scores: Mapping[str, Sequence[float]]) -> float:
    """Average over targets of the average over cases, 0 to 1."""
    return float(np.mean([np.mean(values) for values in scores.values()]))


def format_table(scores: Mapping[str, Sequence[float]], control: Mapping[str, Sequence[float]]) -> str:
    """Lay out Dice a target: mean, standard deviation, worst and best case, and the mean of the control."""
    width = max(len(name) for name in (*scores, "target"))
    lines = [f"{'target':<{width}}   mean    std    min    max   shuffled prompts"]
    for name, values in scores.items():
        spread = f"{np.mean(values):6.3f} {np.std(values):6.3f} {np.min(values):6.3f} {np.max(values):6.3f}"
        lines.append(f"{name:<{width}} {spread}   {np.mean(control[name]):6.3f}")
    lines.append(f"{'mean':<{width}} {mean_dice(scores):6.3f} {'':20}   {mean_dice(control):6.3f}")
    return "\n".join(lines)


def judge(
    scores: Mapping[str, Sequence[float]], confusion: Mapping[str, float], control: Mapping[str, Sequence[float]]
) -> list[Bar]:
    """Hold the results against the bars.

    Args:
        scores: Dice a target and unseen case.
        confusion: Share of each side's prediction that lies in the other side, by description.
        control: Dice a target and case with the embeddings shuffled.
    """
    return [
        Bar("mean Dice on unseen cases", mean_dice(scores), LEAST_DICE, at_least=True),
        *(Bar(name, value, MOST_CONFUSION, at_least=False) for name, value in confusion.items()),
        Bar("mean Dice with shuffled prompts (control)", mean_dice(control), MOST_CONTROL_DICE, at_least=False),
    ]
