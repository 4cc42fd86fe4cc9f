"""Computes how often each training case is drawn, from the weights of the sources."""

from collections.abc import Iterable, Mapping
from math import sqrt

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.errors import PlansError

# A case with a target that is rare in its source is drawn more often, by at most this factor.
_LARGEST_BONUS = 3.0
# Repetitions are integers; with this many of the least likely case, the shares of the others are exact to an eighth.
_LEAST_REPEATS = 4


def default_weight(cases: Iterable[Case]) -> float:
    """Return the default weight of a source: the square root of its number of annotations.

    A case has as many annotations as annotated targets, and at least one: a source with more cases or more targets is
    drawn more often, but does not drown the others. Where a source with seven targets had the weight of its cases
    alone, its targets were found late (docs/measured.md).

    Example:
        >>> liver = Case("CT", "a", annotated=("liver", "spleen"), present=("liver",))
        >>> default_weight([liver, liver])
        2.0
    """
    return sqrt(sum(max(1, len(case.annotated)) for case in cases))


def measure_shares(cases: Mapping[str, Case], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the probability with which each case is drawn; their sum is 1.

    A source is drawn by its weight. Within a source, the weight of a case depends on its rarest target:
    sqrt(cases of the source / cases with that target), at most 3.

    Args:
        cases: Cases by identifier.
        weights: Weights by source, 0 or more; sources without a case are ignored.

    Raises:
        PlansError: The sources of all cases have the weight 0.

    Example:
        >>> liver = Case("CT", "a", annotated=("liver",), present=("liver",))
        >>> cases = {"a": liver, "b": liver, "c": Case("MR", "c", annotated=("liver",), present=("liver",))}
        >>> measure_shares(cases, {"CT": 1, "MR": 1})
        {'a': 0.25, 'b': 0.25, 'c': 0.5}
    """
    bonuses = _measure_bonuses(cases)
    totals: dict[str, float] = {}
    for identifier, case in cases.items():
        totals[case.source] = totals.get(case.source, 0) + bonuses[identifier]
    total = sum(weights[source] for source in totals)
    if totals and not total:
        raise PlansError(
            f"All training cases are of {', '.join(map(repr, totals))}, whose weight is 0 in the plans, so that none "
            "would ever be drawn. Raise duplus.sources.NAME.weight, or train a fold with cases of other sources."
        )
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
    """Repeat each case in proportion to its share, so that uniform draws from the list have these shares.

    If all shares are equal, each case occurs once. Cases with a share of 0 are left out.

    Example:
        >>> repeat_cases({"a": 0.4, "b": 0.6})
        ['a', 'a', 'a', 'a', 'b', 'b', 'b', 'b', 'b', 'b']
    """
    drawn = {identifier: share for identifier, share in shares.items() if share > 0}
    least = min(drawn.values())
    if max(drawn.values()) - least < 1e-9:
        return list(drawn)
    return [name for name, share in drawn.items() for _ in range(round(_LEAST_REPEATS * share / least))]
