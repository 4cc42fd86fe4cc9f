"""Ranks the cases of each target by a score, the worst first."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from duplus_nnunet.reporting.aggregate import list_source_targets
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.metrics import Metric
from duplus_nnunet.text_table import format_table


@dataclass(frozen=True)
class RankedCase:
    """A score of one target in one case.

    Attributes:
        source: Name of the source.
        target: Name of the target.
        case: Identifier of the case.
        value: The score.
    """

    source: str
    target: str
    case: str
    value: float


def rank_cases(cases: Mapping[str, CaseScore], metric: Metric) -> dict[tuple[str, str], list[RankedCase]]:
    """Rank the cases of each source and target, the worst first; cases of equal scores by name.

    Args:
        cases: Scores of the cases by identifier.
        metric: The score; a difference of volumes is the worse, the further it is from 0.

    Returns:
        Ranked cases by source and target; cases without the score are left out.
    """

    def judge(ranked: RankedCase) -> tuple[float, str]:
        badness = {"higher": -ranked.value, "lower": ranked.value, "zero": abs(ranked.value)}[metric.better]
        return -badness, ranked.case

    found: dict[tuple[str, str], list[RankedCase]] = {}
    for source, target in list_source_targets(cases.values()):
        scored = [
            RankedCase(source, target, name, float(getattr(case.targets[target], metric.name)))
            for name, case in cases.items()
            if case.source == source and target in case.targets
        ]
        known = sorted((each for each in scored if not math.isnan(each.value)), key=judge)
        if known:
            found[source, target] = known
    return found


def format_worst(cases: Mapping[str, CaseScore], metric: Metric, number: int) -> Iterator[str]:
    """Yield the worst cases of each source and target, a line each.

    Args:
        cases: Scores of the cases by identifier.
        metric: The score by which they are ranked.
        number: Number of cases for each target.
    """
    rows = [("worst cases", "case", metric.title)]
    for (source, target), ranked in rank_cases(cases, metric).items():
        for row, each in enumerate(ranked[:number]):
            about = "" if row else f"{source}, {target}"
            rows.append((about, each.case, f"{each.value:.{metric.digits}f}"))
    yield ""
    yield from format_table(rows, align="<<>")
