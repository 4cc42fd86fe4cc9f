"""Scores as text for a terminal: in come means and differences, out come lines."""

import math
from collections.abc import Iterator
from pathlib import Path

from duplus_nnunet.reporting.aggregate import Aggregate, Mean
from duplus_nnunet.reporting.comparison import Comparison
from duplus_nnunet.reporting.score_files import ALL_SOURCES, OVER_SOURCES, OVER_TARGETS
from duplus_nnunet.text_table import format_table


def write_table(scores: Aggregate) -> Iterator[str]:
    """Yield a line a target, by source, and the means."""
    whole = {OVER_SOURCES: scores.mean}
    if len(scores.sources) > 1:
        whole[f"{ALL_SOURCES} {OVER_TARGETS}"] = scores.over_targets
    rows: list[tuple[str, ...]] = [("", "cases", "present", "false pos.", "Dice", f"NSD at {scores.tolerance:g} mm")]
    for source, means in scores.sources.items():
        rows.append((source,))
        for row in scores.rows:
            if row.source == source:
                counts = (str(row.annotated), str(row.present), str(row.false_positives))
                rows.append((f"  {row.target}", *counts, _say(row.dice), _say(row.nsd)))
        rows.append((f"  {OVER_TARGETS}", "", "", "", _say(means["dice"]), _say(means["nsd"])))
    rows += [(name, "", "", "", _say(means["dice"]), _say(means["nsd"])) for name, means in whole.items()]
    yield from format_table(rows, align="<>>>")
    coarse = [case for case in scores.cases.values() if max(case.spacing) > scores.tolerance]
    if coarse:
        widest = max(max(case.spacing) for case in coarse)
        yield (
            f"{len(coarse)} of {len(scores.cases)} cases have voxels above the tolerance (up to {widest:.2f} mm); "
            "there, surfaces one voxel apart count as different."
        )


def write_comparison(compared: Comparison, other: Path) -> Iterator[str]:
    """Yield a line a target, by source, and the means: these scores less the others."""
    yield ""
    yield f"These scores less those of {other}, over {compared.pairs} pairs of a case and a target; above 0 is better."
    if compared.left_out:
        yield f"{compared.left_out} pairs are left out, which only one of the two has."
    texts: dict[str, dict[str, str]] = {}
    for difference in compared.differences:
        name = f"{difference.source}, {difference.target}"
        texts.setdefault(name, {})[difference.metric] = _say(difference.mean, signed=True)
    rows = [(name, metrics["dice"], metrics["nsd"]) for name, metrics in texts.items()]
    yield from format_table([("", "Dice", "NSD"), *rows])


def _say(mean: Mean, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if math.isnan(mean.value):
        return "-"
    if mean.interval is None:
        return f"{mean.value:{form}}"
    low, high = mean.interval
    return f"{mean.value:{form}} [{low:{form}}, {high:{form}}]"
