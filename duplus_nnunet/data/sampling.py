"""How often each case is drawn: in come sources with weights, out comes a list of cases to draw from evenly."""

from collections.abc import Mapping
from math import sqrt

from duplus_nnunet.data.case_table import Case

# A case with a target that few others of its source contain is drawn up to this much more often.
_LARGEST_BONUS = 3.0
# Repetitions are whole numbers; this many for the least likely case keep the others' shares within a few percent.
_LEAST_REPEATS = 4


def default_weight(cases: int) -> float:
    """Return a source's weight: the square root of its number of cases, so that 200 cases do not drown 10."""
    return sqrt(cases)


def measure_shares(cases: Mapping[str, Case], weights: Mapping[str, float]) -> dict[str, float]:
    """Return how likely each case is to be drawn; the sum is 1.

    A source is drawn by its weight. Inside a source, a case counts by the rarest target that it contains: by
    sqrt(cases of the source / cases with that target), 3 at most.

    Args:
        cases: Cases by identifier.
        weights: Weights by source, 0 or more; those of sources without a case do not count.
    """
    bonuses = _measure_bonuses(cases)
    totals: dict[str, float] = {}
    for identifier, case in cases.items():
        totals[case.source] = totals.get(case.source, 0) + bonuses[identifier]
    total = sum(weights[source] for source in totals)
    return {
        identifier: weights[case.source] / total * bonuses[identifier] / totals[case.source]
        for identifier, case in cases.items()
    }


def _measure_bonuses(cases: Mapping[str, Case]) -> dict[str, float]:
    of_source: dict[str, int] = {}
    with_target: dict[tuple[str, str], int] = {}
    for case in cases.values():
        of_source[case.source] = of_source.get(case.source, 0) + 1
        for name in case.present:
            with_target[case.source, name] = with_target.get((case.source, name), 0) + 1

    def measure(case: Case) -> float:
        rarest = min((with_target[case.source, name] for name in case.present), default=of_source[case.source])
        return min(_LARGEST_BONUS, sqrt(of_source[case.source] / rarest))

    return {identifier: measure(case) for identifier, case in cases.items()}


def repeat_cases(shares: Mapping[str, float]) -> list[str]:
    """Return each case as often as its share asks for, so that even draws from the list have these shares.

    Where all shares are equal, each case stands there once. Cases with a share of 0 are left out.
    """
    drawn = {identifier: share for identifier, share in shares.items() if share > 0}
    least = min(drawn.values())
    if max(drawn.values()) - least < 1e-9:
        return list(drawn)
    return [name for name, share in drawn.items() for _ in range(round(_LEAST_REPEATS * share / least))]
