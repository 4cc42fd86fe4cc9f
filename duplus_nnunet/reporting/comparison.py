"""Two sets of scores side by side: in come scores of the same cases, out come differences with paired intervals.

Both are averaged over the same draws of patients, so that what patients differ in does not hide what models differ in.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.aggregate import METRICS, Averages, Drawn, Mean, average, average_drawn
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.score_files import ALL_SOURCES, OVER_SOURCES, OVER_TARGETS

Cases = Mapping[str, CaseScore]


@dataclass(frozen=True)
class Difference:
    """These scores less the others.

    Attributes:
        source: A source, or what stands for the mean over all.
        target: A target, or what stands for the mean over all of the source's.
        metric: `dice` or `nsd`.
        mean: Difference of the two means, -1 to 1, with its paired interval; above 0, these scores are the better ones.
    """

    source: str
    target: str
    metric: str
    mean: Mean


@dataclass(frozen=True)
class Comparison:
    """All differences.

    Attributes:
        differences: A source and target, the mean of each source, the mean over sources, and that over the targets of
            all sources, for both metrics.
        pairs: Number of pairs of a case and a target that both have; the differences are taken over those.
        left_out: Number of pairs that only one of them has.
    """

    differences: tuple[Difference, ...]
    pairs: int
    left_out: int


def compare(these: Cases, others: Cases) -> Comparison:
    """Compare scores of the same cases, over what both have scored.

    Raises:
        DataError: They have no case and target in common, or do not agree on what a case contains.
    """
    ours, theirs = _restrict(these, others), _restrict(others, these)
    pairs = _count(ours)
    if not pairs:
        raise DataError(
            "The two sets of scores have no case and target in common. Compare scores of the same cases and targets: "
            f"here {_say_first(these)}, there {_say_first(others)}."
        )
    _check_same_truth(ours, theirs)
    differences: list[Difference] = []
    for metric in METRICS:
        differences += _subtract(average(ours, metric), average(theirs, metric), metric)
    return Comparison(tuple(differences), pairs, _count(these) + _count(others) - 2 * pairs)


def to_plain(comparison: Comparison) -> dict[str, Any]:
    """Give a comparison as plain data; null stands for what has no value."""

    def plain(difference: Difference) -> dict[str, Any]:
        mean = difference.mean
        value = None if math.isnan(mean.value) else round(mean.value, 6)
        interval = mean.interval and [round(bound, 6) for bound in mean.interval]
        names = {"source": difference.source, "target": difference.target, "metric": difference.metric}
        return {**names, "difference": value, "interval": interval}

    differences = [plain(difference) for difference in comparison.differences]
    return {"pairs": comparison.pairs, "left_out": comparison.left_out, "differences": differences}


def _subtract(ours: Averages, theirs: Averages, metric: str) -> Iterator[Difference]:
    """Subtract means; where one of the two has no value there is no difference, and none enters the means."""
    pairs = {key: _differ(ours.pairs[key], theirs.pairs[key]) for key in ours.pairs}
    sources = {
        source: average_drawn([pairs[key] for key in pairs if key[0] == source], drawn.patients)
        for source, drawn in ours.sources.items()
    }
    everything = average_drawn(list(sources.values()), ours.all.patients)
    for (source, target), drawn in pairs.items():
        yield Difference(source, target, metric, drawn.mean)
    for source, drawn in sources.items():
        yield Difference(source, OVER_TARGETS, metric, drawn.mean)
    yield Difference(OVER_SOURCES, OVER_TARGETS, metric, everything.mean)
    over_targets = average_drawn(list(pairs.values()), ours.all.patients)
    yield Difference(ALL_SOURCES, OVER_TARGETS, metric, over_targets.mean)


def _differ(ours: Drawn, theirs: Drawn) -> Drawn:
    return Drawn(ours.value - theirs.value, ours.draws - theirs.draws, max(ours.patients, theirs.patients))


def _restrict(cases: Cases, others: Cases) -> dict[str, CaseScore]:
    """Keep the cases and targets that the others have too."""
    kept = {}
    for name, case in cases.items():
        other = others.get(name)
        if other is None or other.source != case.source:
            continue
        targets = {target: score for target, score in case.targets.items() if target in other.targets}
        kept[name] = replace(case, targets=targets)
    return kept


def _check_same_truth(ours: Cases, theirs: Cases) -> None:
    for name, case in ours.items():
        if case.patient != theirs[name].patient:
            raise DataError(
                f"Case {name!r} is of patient {case.patient!r} here and of {theirs[name].patient!r} there. Score both "
                "by the same case table."
            )
        for target, score in case.targets.items():
            if score.present != theirs[name].targets[target].present:
                raise DataError(
                    f"Case {name!r}: {target!r} is in the references of one set of scores and not in the other's. "
                    "Score both against the same references."
                )


def _count(cases: Cases) -> int:
    return sum(len(case.targets) for case in cases.values())


def _say_first(cases: Cases) -> str:
    for name, case in cases.items():
        return f"{name!r} of {case.source!r} with {', '.join(case.targets) or 'no target'}"
    return "no case"
