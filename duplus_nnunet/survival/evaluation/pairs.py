"""Compares pairs of patients with sums for each patient, in O(n log^2 n) time and O(n) memory.

Pairs are counted in sorted blocks of 1, 2, 4, ... patients, as Knight 1966 (doi 10.1080/01621459.1966.10480879) counts
those of rank correlation. A matrix of pairs is compared only where events compete.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.survival.records.outcome import Numbers

# Risks that differ by no more are tied, as in scikit-survival.
TIED = 1e-8


@dataclass(frozen=True)
class Pairs:
    """Sums over the pairs of each patient; each pair counts half to each of its two patients.

    Attributes:
        better: Weights of concordant pairs, and half of those of tied ones, (N).
        all: Weights of all pairs, (N).
    """

    better: Numbers
    all: Numbers

    def subtract(self, other: "Pairs") -> "Pairs":
        """Leave out the pairs of another set."""
        return Pairs(self.better - other.better, self.all - other.all)

    def add(self, other: "Pairs") -> "Pairs":
        """Add the pairs of another set."""
        return Pairs(self.better + other.better, self.all + other.all)


def compare_matrix(risk: Numbers, weights: Numbers) -> Pairs:
    """Compare the pairs of a matrix of weights, in O(n^2).

    Args:
        risk: Higher is worse, (N).
        weights: Weight of the pair of patients i and j, concordant if i has the higher risk, (N, N); 0: not compared.
    """
    difference = risk[:, None] - risk[None, :]
    better = weights * np.where(np.abs(difference) <= TIED, 0.5, difference > 0)
    return Pairs((better.sum(0) + better.sum(1)) / 2, (weights.sum(0) + weights.sum(1)) / 2)


def compare_pairs(risk: Numbers, weights: Numbers, start: Numbers, end: Numbers) -> Pairs:
    """Compare each patient i of a weight above 0 with every patient j whose `end` is above the `start` of i.

    A pair is concordant if i has the higher risk.

    Args:
        risk: Higher is worse, (N).
        weights: Weight of the pairs of each patient i, 0 or more, (N).
        start: Bound of each patient i, (N).
        end: Compared with it, (N).
    """
    cases = np.flatnonzero(weights > 0)
    better, total = np.zeros(len(risk)), np.zeros(len(risk))
    if not len(cases):
        return Pairs(better, total)
    own, ones = weights[cases], np.ones(len(risk))
    # Of each case: patients whose end is above its start, and those of them with a lower risk or a tied one.
    low, tied = (
        sum_below((-end, risk, ones), (-start[cases], risk[cases] + shift), inclusive)
        for shift, inclusive in ((-TIED, False), (TIED, True))
    )
    better[cases] = own * (low + tied) / 2
    total[cases] = own * (len(end) - np.searchsorted(np.sort(end), start[cases], side="right"))
    # Of each patient: the weights of cases whose start is below its end.
    high, tied = (
        sum_below((start[cases], -risk[cases], own), (end, -risk + shift), inclusive)
        for shift, inclusive in ((-TIED, False), (TIED, True))
    )
    order = np.argsort(start[cases], kind="stable")
    known = np.concatenate([[0.0], np.cumsum(own[order])])
    better += (high + tied) / 2
    total += known[np.searchsorted(start[cases][order], end, side="left")]
    return Pairs(better / 2, total / 2)


def sum_below(points: tuple[Numbers, Numbers, Numbers], queries: tuple[Numbers, Numbers], inclusive: bool) -> Numbers:
    """Return for each query (x, y) the weights of the points whose x is below its x, and whose y is below its y.

    Args:
        points: x, y and weight of M points, each (M).
        queries: x and y of Q queries, each (Q).
        inclusive: Whether points of the same y count; those of the same x never do.
    """
    order = np.argsort(points[0], kind="stable")
    values, weights = points[1][order], points[2][order]
    before = np.searchsorted(points[0][order], queries[0], side="left")
    distinct = np.unique(values)
    ranks = np.searchsorted(distinct, values)
    limits = np.searchsorted(distinct, queries[1], side="right" if inclusive else "left")
    sums = np.zeros(len(before))
    for level in range(len(values).bit_length()):
        # The first `before` points are blocks of 1, 2, 4, ... points: one for each bit of the number.
        chosen = np.flatnonzero((before >> level) & 1)
        if len(chosen):
            block = (before[chosen] >> level) - 1
            sums[chosen] += _sum_blocks((ranks, weights, len(distinct)), level, block, limits[chosen])
    return sums


def _sum_blocks(
    points: tuple[NDArray[np.int64], Numbers, int], level: int, block: NDArray[np.int64], limits: NDArray[np.int64]
) -> Numbers:
    """Return the weights of the points of a block of 2^level whose rank is below a limit, for each query."""
    ranks, weights, count = points
    keys = (np.arange(len(ranks)) >> level) * (count + 1) + ranks
    order = np.argsort(keys, kind="stable")
    known = np.concatenate([[0.0], np.cumsum(weights[order])])
    ends = np.searchsorted(keys[order], block * (count + 1) + limits, side="left")
    sums: Numbers = known[ends] - known[block << level]
    return sums
