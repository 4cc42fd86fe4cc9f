"""Scores as text for a terminal: in come means and differences, out come lines."""

import math
from collections.abc import Iterator
from pathlib import Path

from duplus_nnunet.reporting.aggregate import Aggregate, Mean
from duplus_nnunet.reporting.comparison import Comparison
from duplus_nnunet.reporting.score_files import ALL_SOURCES, OVER_SOURCES, OVER_TARGETS


def write_table(scores: Aggregate) -> Iterator[str]:
    """Yield a line a target, by source, and the means."""
    whole = {OVER_SOURCES: scores.mean}
    if len(scores.sources) > 1:
        whole[f"{ALL_SOURCES} {OVER_TARGETS}"] = scores.over_targets
    width = max(map(len, [*whole, *(f"  {row.target}" for row in scores.rows), *scores.sources, f"  {OVER_TARGETS}"]))
    nsd = f"NSD at {scores.tolerance:g} mm"
    yield f"{'':<{width}}  cases  present  false pos.  {'Dice':<22} {nsd}"
    for source, means in scores.sources.items():
        yield source
        for row in scores.rows:
            if row.source == source:
                counts = f"{row.annotated:5}  {row.present:7}  {row.false_positives:10}"
                yield f"{f'  {row.target}':<{width}}  {counts}  {_say(row.dice):<22} {_say(row.nsd)}"
        yield f"{f'  {OVER_TARGETS}':<{width}}  {'':26}  {_say(means['dice']):<22} {_say(means['nsd'])}".rstrip()
    for name, means in whole.items():
        yield f"{name:<{width}}  {'':26}  {_say(means['dice']):<22} {_say(means['nsd'])}"
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
    width = max(map(len, texts))
    yield f"{'':<{width}}  {'Dice':<25} NSD"
    for name, metrics in texts.items():
        yield f"{name:<{width}}  {metrics['dice']:<25} {metrics['nsd']}"


def _say(mean: Mean, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if math.isnan(mean.value):
        return "-"
    if mean.interval is None:
        return f"{mean.value:{form}}"
    low, high = mean.interval
    return f"{mean.value:{form}} [{low:{form}}, {high:{form}}]"
