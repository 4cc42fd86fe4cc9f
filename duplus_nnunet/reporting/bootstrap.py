"""Intervals by patient bootstrap: in come scores of cases, out comes how far their means vary with who was examined.

Patients are drawn, never cases: two scans of a patient are not two observations. Sources are kept at their number of
patients, unless they share some; those are drawn together, so that a patient enters all of them at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
SEED = 20251003
LEVEL = 0.95

Values = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Draws:
    """Patients drawn with replacement.

    Attributes:
        index: Column of each patient.
        counts: How often each patient was drawn, (B draws, P patients).
    """

    index: Mapping[str, int]
    counts: Values

    def average(self, scores: Iterable[tuple[str, float]]) -> Values:
        """Average scores in every draw, (B); NaN where none was drawn.

        Args:
            scores: Pairs of a patient and a score; NaN scores are left out.
        """
        sums, numbers = np.zeros(len(self.index)), np.zeros(len(self.index))
        for patient, score in scores:
            if not np.isnan(score):
                sums[self.index[patient]] += score
                numbers[self.index[patient]] += 1
        drawn = self.counts @ numbers
        return _divide(self.counts @ sums, drawn)


def draw_patients(sources: Mapping[str, Iterable[str]], draws: int = DRAWS, seed: int = SEED) -> Draws:
    """Draw patients.

    Args:
        sources: Patients by source.
        draws: Number of draws.
        seed: The same seed and patients give the same draws.
    """
    groups = _join(set(patients) for _, patients in sorted(sources.items()))
    patients = sorted(set().union(*groups))
    index = {patient: column for column, patient in enumerate(patients)}
    counts = np.zeros((draws, len(patients)))
    rng = np.random.default_rng(seed)
    for group in groups:
        columns = [index[patient] for patient in sorted(group)]
        counts[:, columns] = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=draws)
    return Draws(index, counts)


def find_interval(values: Values, patients: int) -> Interval | None:
    """Give the central 95 % of the values of all draws; None for fewer than two patients, who vary with nothing."""
    known = values[~np.isnan(values)]
    if patients < 2 or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def average_columns(columns: Sequence[Values]) -> Values:
    """Average several values a draw, leaving NaN out; NaN where there is nothing else."""
    stacked = np.stack(columns)
    known = ~np.isnan(stacked)
    numbers = known.sum(0, dtype=np.float64)
    sums = np.where(known, stacked, 0.0).sum(0)
    return _divide(sums, numbers)


def _divide(sums: Values, numbers: Values) -> Values:
    """Divide; NaN where there is nothing to divide by."""
    means: Values = np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0)
    return means


def _join(groups: Iterable[set[str]]) -> list[set[str]]:
    """Join sets that have something in common."""
    joined: list[set[str]] = []
    for group in groups:
        touching = [other for other in joined if other & group]
        joined = [other for other in joined if not other & group]
        joined.append(group.union(*touching))
    return [group for group in joined if group]
