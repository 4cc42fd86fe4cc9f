"""Formats scores and their differences as text tables for a terminal."""

import math
from collections.abc import Iterator
from pathlib import Path

from duplus_nnunet.reporting.aggregate import Aggregate, Mean
from duplus_nnunet.reporting.comparison import Comparison
from duplus_nnunet.reporting.score_files import ALL_SOURCES, OVER_SOURCES, OVER_TARGETS
from duplus_nnunet.text_table import format_table


def format_scores(scores: Aggregate) -> Iterator[str]:
    """Yield one line per target, grouped by source, and the means."""
    overall = {OVER_SOURCES: scores.mean}
    if len(scores.sources) > 1:
        overall[f"{ALL_SOURCES} {OVER_TARGETS}"] = scores.over_targets
    rows: list[tuple[str, ...]] = [("", "cases", "present", "false pos.", "Dice", f"NSD at {scores.tolerance:g} mm")]
    for source, means in scores.sources.items():
        rows.append((source,))
        for row in scores.rows:
            if row.source == source:
                counts = (str(row.annotated), str(row.present), str(row.false_positives))
                rows.append((f"  {row.target}", *counts, _format_mean(row.dice), _format_mean(row.nsd)))
        rows.append((f"  {OVER_TARGETS}", "", "", "", _format_mean(means["dice"]), _format_mean(means["nsd"])))
    rows += [
        (name, "", "", "", _format_mean(means["dice"]), _format_mean(means["nsd"])) for name, means in overall.items()
    ]
    yield from format_table(rows, align="<>>>")
    coarse = [case for case in scores.cases.values() if max(case.spacing) > scores.tolerance]
    if coarse:
        widest = max(max(case.spacing) for case in coarse)
        yield (
            f"{len(coarse)} of {len(scores.cases)} cases have voxels above the tolerance (up to {widest:.2f} mm); "
            "in these, surfaces one voxel apart count as different."
        )


def format_comparison(comparison: Comparison, other: Path) -> Iterator[str]:
    """Yield one line per target, grouped by source, and the means: the differences to another scores.json."""
    yield ""
    yield (
        f"Difference to {other}, over {comparison.pairs} pairs of a case and a target; "
        "above 0, the scores shown above are better."
    )
    if comparison.left_out:
        yield f"{comparison.left_out} pairs are left out because only one of the two files has them."
    texts: dict[str, dict[str, str]] = {}
    for difference in comparison.differences:
        name = f"{difference.source}, {difference.target}"
        texts.setdefault(name, {})[difference.metric] = _format_mean(difference.mean, signed=True)
    rows = [(name, metrics["dice"], metrics["nsd"]) for name, metrics in texts.items()]
    yield from format_table([("", "Dice", "NSD"), *rows])


def _format_mean(mean: Mean, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if math.isnan(mean.value):
        return "-"
    if mean.interval is None:
        return f"{mean.value:{form}}"
    low, high = mean.interval
    return f"{mean.value:{form}} [{low:{form}}, {high:{form}}]"
