"""Formats scores and their differences as text tables for a terminal."""

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from duplus_nnunet.reporting.aggregate import Aggregate, Mean
from duplus_nnunet.reporting.comparison import Comparison, Difference
from duplus_nnunet.reporting.metrics import SHOWN, SHOWN_OF_LESIONS, Metric, find_metrics
from duplus_nnunet.reporting.score_files import ALL_SOURCES, OVER_SOURCES, OVER_TARGETS
from duplus_nnunet.text_table import format_table


def format_scores(scores: Aggregate, metrics: Sequence[Metric] | None = None) -> Iterator[str]:
    """Yield one line per target, grouped by source, and the means; then a table of lesions, if there are any.

    Args:
        scores: The scores.
        metrics: Columns of a single table; None: Dice, NSD and HD95, and the scores of lesions in a second table.
    """
    yield from _format_table(scores, find_metrics(SHOWN) if metrics is None else metrics)
    lesions = {row.target for row in scores.rows if not math.isnan(row.means["false_lesions"].value)}
    if metrics is None and lesions:
        yield ""
        yield from _format_table(scores, find_metrics(SHOWN_OF_LESIONS), lesions)
    if scores.tolerances:
        single = ", ".join(f"{target} {value:g} mm" for target, value in scores.tolerances.items())
        yield f"NSD at {scores.tolerance:g} mm, but: {single}."
    coarse = [case for case in scores.cases.values() if max(case.spacing) > scores.tolerance]
    if coarse:
        widest = max(max(case.spacing) for case in coarse)
        yield (
            f"{len(coarse)} of {len(scores.cases)} cases have voxels above the tolerance (up to {widest:.2f} mm); "
            "in these, surfaces one voxel apart count as different."
        )


def format_comparison(comparison: Comparison, other: Path, metrics: Sequence[Metric] | None = None) -> Iterator[str]:
    """Yield one line per target, grouped by source, and the means: the differences to another scores.json.

    Args:
        comparison: The differences.
        other: That file.
        metrics: Columns, each with the corrected p-value of its test; None: Dice, NSD and HD95.
    """
    shown = [
        metric
        for metric in (find_metrics(SHOWN) if metrics is None else metrics)
        if any(each.metric == metric.name for each in comparison.differences)
    ]
    yield ""
    yield (
        f"Difference to {other}, over {comparison.pairs} pairs of a case and a target. {_say_direction(shown)} "
        "p: Wilcoxon signed-rank test over patients, corrected for the number of targets by Holm's method."
    )
    if comparison.left_out:
        yield f"{comparison.left_out} pairs are left out because only one of the two files has them."
    texts: dict[str, dict[str, tuple[str, str]]] = {}
    for difference in comparison.differences:
        name = f"{difference.source}, {difference.target}"
        texts.setdefault(name, {})[difference.metric] = _format_difference(difference)
    head = [word for metric in shown for word in (metric.title, "p")]
    rows = [
        (name, *(word for metric in shown for word in found.get(metric.name, ("-", ""))))
        for name, found in texts.items()
    ]
    yield from format_table([("", *head), *rows])


def _format_table(scores: Aggregate, metrics: Sequence[Metric], targets: Container[str] | None = None) -> Iterator[str]:
    """Yield a table of some metrics, of all targets or of some; means are over all targets that have the metric."""

    def cells(means: Mapping[str, Mean]) -> list[str]:
        return [_format_mean(means[metric.name], metric.digits) for metric in metrics]

    titles = [f"NSD at {scores.tolerance:g} mm" if metric.name == "nsd" else metric.title for metric in metrics]
    rows: list[tuple[str, ...]] = [("", "cases", "present", "missed", "false pos.", *titles)]
    blank = [""] * 4
    for source, means in scores.sources.items():
        found = [row for row in scores.rows if row.source == source and (targets is None or row.target in targets)]
        if not found:
            continue
        rows.append((source,))
        for row in found:
            counts = map(str, (row.annotated, row.present, row.missed, row.false_positives))
            rows.append((f"  {row.target}", *counts, *cells(row.means)))
        rows.append((f"  {OVER_TARGETS}", *blank, *cells(means)))
    rows.append((OVER_SOURCES, *blank, *cells(scores.mean)))
    if len(scores.sources) > 1:
        rows.append((f"{ALL_SOURCES} {OVER_TARGETS}", *blank, *cells(scores.over_targets)))
    yield from format_table(rows, align="<>>>>")


def _say_direction(metrics: Sequence[Metric]) -> str:
    """Say which sign is better, by metric."""
    groups = {
        "above": [metric.title for metric in metrics if metric.better == "higher"],
        "below": [metric.title for metric in metrics if metric.better == "lower"],
    }
    said = [f"{word} 0 for {', '.join(titles)}" for word, titles in groups.items() if titles]
    return f"The scores shown above are better where it is {' and '.join(said)}." if said else ""


def _format_difference(difference: Difference) -> tuple[str, str]:
    [metric] = find_metrics([difference.metric])
    text = _format_mean(difference.mean, metric.digits, signed=True)
    test = difference.test
    return text, "" if test is None or math.isnan(test.p_holm) else f"{test.p_holm:.2g}"


def _format_mean(mean: Mean, digits: int, signed: bool = False) -> str:
    form = f"{'+' if signed else ''}.{digits}f"
    if math.isnan(mean.value):
        return "-"
    if mean.interval is None:
        return f"{mean.value:{form}}"
    low, high = mean.interval
    return f"{mean.value:{form}} [{low:{form}}, {high:{form}}]"
