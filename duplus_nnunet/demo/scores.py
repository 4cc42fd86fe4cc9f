"""Scores of the demonstration: Dice and left/right confusion, their table, and the criteria they have to meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.text_table import format_table

LEAST_DICE = 0.80
MOST_CONFUSION = 0.05
MOST_CONTROL_DICE = 0.20

LabelMap = NDArray[np.uint8]
# By target, the Dice (0 to 1) of each case; and these by contrast.
TargetScores = Mapping[str, Sequence[float]]
Scores = Mapping[str, TargetScores]


@dataclass(frozen=True)
class Results:
    """Results of the demonstration on unseen bodies.

    Attributes:
        dice: By contrast, Dice of the targets that are annotated in its training cases.
        transfer: By contrast, Dice of the targets that are annotated in other contrasts only.
        target_prompts_exchanged: As `dice`, with the target prompt of each target replaced by that of another
            annotated one.
        context_prompts_exchanged: As `dice`, with the context prompt of each context replaced by that of another one.
        confusion: By description, share of the prediction of one side that lies in the true structure of the other.
    """

    dice: Scores
    transfer: Scores
    target_prompts_exchanged: Scores
    context_prompts_exchanged: Scores
    confusion: Mapping[str, float]


@dataclass(frozen=True)
class Criterion:
    """A criterion that the demonstration has to meet.

    Attributes:
        name: Description of the value.
        value: The measured value, 0 to 1.
        limit: The limit that it is compared with.
        at_least: Whether the value must be at least the limit; otherwise it must be below it.
    """

    name: str
    value: float
    limit: float
    at_least: bool

    @property
    def is_met(self) -> bool:
        """Whether the criterion is met; never for NaN."""
        return self.value >= self.limit if self.at_least else self.value < self.limit

    def describe(self) -> str:
        """Describe the value and the limit in one line."""
        limit = f"{self.limit:.2f} or more" if self.at_least else f"below {self.limit:.2f}"
        return f"{'ok  ' if self.is_met else 'FAIL'} {self.name}: {self.value:.3f} (required: {limit})"


def measure_dice(prediction: LabelMap, truth: LabelMap, value: int) -> float:
    """Compute the Dice of one label, 0 to 1, higher is better; 1 if neither map contains it."""
    predicted, true = prediction == value, truth == value
    total = int(predicted.sum() + true.sum())
    return 2.0 * int((predicted & true).sum()) / total if total else 1.0


def measure_confusion(prediction: LabelMap, truth: LabelMap, value: int, other: int) -> float:
    """Compute the share of voxels predicted as `value` whose truth is `other`, 0 to 1, lower is better."""
    predicted = prediction == value
    return float((truth[predicted] == other).mean()) if predicted.any() else 0.0


def score_cases(pairs: Sequence[tuple[LabelMap, LabelMap]], labels: Mapping[str, int]) -> dict[str, list[float]]:
    """Compute the Dice of every target in every case, given as pairs of prediction and truth."""
    return {
        name: [measure_dice(prediction, truth, value) for prediction, truth in pairs] for name, value in labels.items()
    }


def mean_dice(scores: TargetScores) -> float:
    """Average over targets of the average over cases, 0 to 1."""
    return float(np.mean([np.mean(values) for values in scores.values()]))


def describe_results(results: Results) -> str:
    """Build the table of Dice by contrast and target: mean, standard deviation, minimum, maximum and controls."""
    rows: list[tuple[str, ...]] = [
        ("", "mean", "std", "min", "max", "target prompts exchanged", "context prompts exchanged")
    ]
    for contrast, scores in results.dice.items():
        controls = (results.target_prompts_exchanged[contrast], results.context_prompts_exchanged[contrast])
        for name, values in scores.items():
            means = (f"{np.mean(control[name]):.3f}" for control in controls)
            rows.append((f"{contrast} {name}", *_format_spread(values), *means))
        means = (f"{mean_dice(control):.3f}" for control in controls)
        rows.append((f"{contrast} mean", f"{mean_dice(scores):.3f}", "", "", "", *means))
    rows.append(("never annotated in that contrast (only reported):",))
    for contrast, scores in results.transfer.items():
        rows += [(f"{contrast} {name}", *_format_spread(values)) for name, values in scores.items()]
    return "\n".join(format_table(rows, align="<>>>>>>"))


def evaluate_criteria(results: Results) -> list[Criterion]:
    """Compare the results with the criteria."""
    return [
        *(
            Criterion(f"mean Dice on unseen cases, {contrast}", mean_dice(scores), LEAST_DICE, at_least=True)
            for contrast, scores in results.dice.items()
        ),
        *(Criterion(name, value, MOST_CONFUSION, at_least=False) for name, value in results.confusion.items()),
        *(
            Criterion(
                f"mean Dice with target prompts exchanged, {contrast}",
                mean_dice(scores),
                MOST_CONTROL_DICE,
                at_least=False,
            )
            for contrast, scores in results.target_prompts_exchanged.items()
        ),
    ]


def _format_spread(values: Sequence[float]) -> tuple[str, ...]:
    return tuple(f"{statistic(values):.3f}" for statistic in (np.mean, np.std, np.min, np.max))
