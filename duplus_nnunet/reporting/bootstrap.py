"""Computes percentile intervals of mean scores by bootstrapping patients.

Patients are resampled, not cases, since scans of the same patient are not independent. Resampling is stratified by
source; sources with patients in common are resampled jointly.
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
class BootstrapDraws:
    """Bootstrap draws of patients, with replacement.

    Attributes:
        index: Column of each patient in `counts`.
        counts: Number of times each patient was drawn, (B draws, P patients).
    """

    index: Mapping[str, int]
    counts: Values

    def average(self, scores: Iterable[tuple[str, float]]) -> Values:
        """Average scores in every draw, (B); NaN for draws without a score.

        Args:
            scores: Pairs of a patient and a score; NaN scores are ignored.
        """
        sums, numbers = np.zeros(len(self.index)), np.zeros(len(self.index))
        for patient, score in scores:
            if not np.isnan(score):
                sums[self.index[patient]] += score
                numbers[self.index[patient]] += 1
        return _divide(self.counts @ sums, self.counts @ numbers)


def draw_patients(sources: Mapping[str, Iterable[str]], draws: int = DRAWS, seed: int = SEED) -> BootstrapDraws:
    """Draw bootstrap samples of patients, stratified by source.

    Args:
        sources: Patients by source.
        draws: Number of draws.
        seed: Seed of the random numbers; the same seed and patients give the same draws.
    """
    groups = _merge_overlapping(set(patients) for _, patients in sorted(sources.items()))
    patients = sorted(set().union(*groups))
    index = {patient: column for column, patient in enumerate(patients)}
    counts = np.zeros((draws, len(patients)))
    rng = np.random.default_rng(seed)
    for group in groups:
        columns = [index[patient] for patient in sorted(group)]
        counts[:, columns] = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=draws)
    return BootstrapDraws(index, counts)


def find_interval(values: Values, patients: int) -> Interval | None:
    """Compute the 95 % percentile interval of the values of all draws; None for fewer than two patients."""
    known = values[~np.isnan(values)]
    if patients < 2 or not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def average_columns(columns: Sequence[Values]) -> Values:
    """Average several columns of draws, ignoring NaN; NaN where all are NaN."""
    stacked = np.stack(columns)
    known = ~np.isnan(stacked)
    numbers = known.sum(0, dtype=np.float64)
    sums = np.where(known, stacked, 0.0).sum(0)
    return _divide(sums, numbers)


def _divide(sums: Values, numbers: Values) -> Values:
    """Divide elementwise; NaN where the divisor is 0."""
    means: Values = np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0)
    return means


def _merge_overlapping(groups: Iterable[set[str]]) -> list[set[str]]:
    """Merge sets that have elements in common."""
    merged: list[set[str]] = []
    for group in groups:
        overlapping = [other for other in merged if other & group]
        merged = [other for other in merged if not other & group]
        merged.append(group.union(*overlapping))
    return [group for group in merged if group]
