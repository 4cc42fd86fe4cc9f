"""Compares two sets of scores of the same cases by paired differences with bootstrap intervals.

Both sets are averaged over the same bootstrap draws, so that variation between patients cancels out.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.aggregate import BootstrapMean, Mean, MetricMeans, average_means, average_metrics
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.metrics import NAMES
from duplus_nnunet.reporting.score_files import ALL_SOURCES, OVER_SOURCES, OVER_TARGETS
from duplus_nnunet.reporting.significance import compute_p_value, correct_holm

Cases = Mapping[str, CaseScore]
# Metrics that every pair has in the result, also without a value; the others are left out where undefined.
_ALWAYS = ("dice", "nsd")


@dataclass(frozen=True)
class Difference:
    """A paired difference, first scores minus second scores.

    Attributes:
        source: Name of the source, or the label of a mean over sources.
        target: Name of the target, or the label of a mean over targets.
        metric: Name of a metric.
        mean: Mean difference, in the unit of the metric, with its paired interval. Above 0, the first scores are
            higher, which is better for some metrics and worse for others.
        test: Test of the difference; None for means over targets or sources.
    """

    source: str
    target: str
    metric: str
    mean: Mean
    test: "PairedTest | None" = None


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon signed-rank test of the differences of patients, each the mean over that patient's cases.

    Attributes:
        patients: Number of patients with a score in both sets.
        p: Two-sided p-value, 0 to 1; NaN without a patient.
        p_holm: The same, corrected by Holm's method for the number of targets tested with this metric.
    """

    patients: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """The paired differences of two sets of scores.

    Attributes:
        differences: For each metric: of each source and target, of the mean of each source, of the mean over sources,
            and of the mean over all pairs of a source and a target.
        pairs: Number of pairs of a case and a target scored in both sets; the differences are based on them.
        left_out: Number of pairs scored in only one set.
    """

    differences: tuple[Difference, ...]
    pairs: int
    left_out: int


def compare(first: Cases, second: Cases) -> Comparison:
    """Compare two sets of scores over the cases and targets scored in both.

    Args:
        first: Scores of cases; a positive difference means that these are better.
        second: Scores of the same cases to compare with.

    Raises:
        DataError: There is no case and target in common, or the references of a case differ.
    """
    ours, theirs = _restrict(first, second), _restrict(second, first)
    pairs = _count(ours)
    if not pairs:
        raise DataError(
            "The two sets of scores have no case and target in common: the first set has "
            f"{_describe_first(first)}, the second {_describe_first(second)}. "
            "Compare scores of the same cases and targets."
        )
    _check_same_references(ours, theirs)
    means, others = average_metrics(ours), average_metrics(theirs)
    differences: list[Difference] = []
    for metric in NAMES:
        tests = _test_targets(ours, theirs, metric)
        differences += (
            replace(each, test=tests.get((each.source, each.target)))
            for each in _subtract(means[metric], others[metric], metric)
            if not math.isnan(each.mean.value) or metric in _ALWAYS
        )
    return Comparison(tuple(differences), pairs, _count(first) + _count(second) - 2 * pairs)


def compare_questions(first: Path, second: Path) -> list[str]:
    """Say in what two predictions were asked for differently, so that a difference may not be one of their models.

    Args:
        first: Folder of predictions, with dataset.json and manifest.json if they are there.
        second: Folder of the scores to compare with; likewise.

    Returns:
        Sentences; none if nothing differs, or nothing is known.
    """
    notes, folders = [], (first, second)
    asked = [_list_asked(folder) for folder in folders]
    first_asked, second_asked = asked
    differ = first_asked is not None and second_asked is not None and first_asked != second_asked
    if first_asked is not None and second_asked is not None and differ:
        pairs = ((first_asked, second_asked), (second_asked, first_asked))
        ours, theirs = (", ".join(sorted(one - other)) or "none" for one, other in pairs)
        notes.append(
            f"The predictions were asked for different targets: only in {first}: {ours}; only in {second}: {theirs}."
        )
    rivals = [_find_rivals(folder) for folder in folders]
    notes += [
        f"{folder} was predicted with --rivals asked, or by a version before that option: its masks depend on the "
        "targets that were asked for, and may contain voxels of others. Predict it again without --rivals."
        for folder, choice in zip(folders, rivals, strict=True)
        if choice == "asked" or (choice == "unknown" and differ)
    ]
    return notes


def _list_asked(folder: Path) -> set[str] | None:
    labels = _read_json(folder / "dataset.json").get("labels")
    return {str(name) for name in labels if name not in ("background", "ignore")} if labels else None


def _find_rivals(folder: Path) -> str | None:
    """Return `all` or `asked`, `unknown` for a version before that option, or None without a manifest."""
    run = _read_json(folder / "manifest.json").get("run")
    if not isinstance(run, dict) or not isinstance(run.get("options"), dict):
        return None
    return str(run["options"].get("rivals", "unknown"))


def _read_json(file: Path) -> dict[str, Any]:
    """Read a file of a prediction; nothing if it is not there or cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def to_plain(comparison: Comparison) -> dict[str, Any]:
    """Convert a comparison to plain data for JSON; NaN becomes None."""

    def plain(difference: Difference) -> dict[str, Any]:
        mean = difference.mean
        value = None if math.isnan(mean.value) else round(mean.value, 6)
        interval = mean.interval and [round(bound, 6) for bound in mean.interval]
        names = {"source": difference.source, "target": difference.target, "metric": difference.metric}
        return {**names, "difference": value, "interval": interval, **_plain_test(difference.test)}

    differences = [plain(difference) for difference in comparison.differences]
    return {"pairs": comparison.pairs, "left_out": comparison.left_out, "differences": differences}


def _plain_test(test: PairedTest | None) -> dict[str, Any]:
    if test is None or not test.patients:
        return {}
    return {"patients": test.patients, "p": test.p, "p_holm": test.p_holm}


def _test_targets(ours: Cases, theirs: Cases, metric: str) -> dict[tuple[str, str], PairedTest]:
    """Test the differences of each source and target over its patients."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for name, case in ours.items():
        for target, score in case.targets.items():
            difference = getattr(score, metric) - getattr(theirs[name].targets[target], metric)
            patients = found.setdefault((case.source, target), {})
            if not math.isnan(difference):
                patients.setdefault(case.patient, []).append(difference)
    means = {pair: [sum(each) / len(each) for each in patients.values()] for pair, patients in found.items()}
    values = {pair: compute_p_value(differences) for pair, differences in means.items()}
    corrected = correct_holm(values)
    return {pair: PairedTest(len(means[pair]), value, corrected[pair]) for pair, value in values.items()}


def _subtract(ours: MetricMeans, theirs: MetricMeans, metric: str) -> Iterator[Difference]:
    """Subtract means; pairs without a value in either set have no difference and are ignored in further means."""
    pairs = {key: _subtract_means(ours.pairs[key], theirs.pairs[key]) for key in ours.pairs}
    sources = {
        source: average_means([pairs[key] for key in pairs if key[0] == source], mean.patients)
        for source, mean in ours.sources.items()
    }
    over_sources = average_means(list(sources.values()), ours.all.patients)
    for (source, target), difference in pairs.items():
        yield Difference(source, target, metric, difference.mean)
    for source, difference in sources.items():
        yield Difference(source, OVER_TARGETS, metric, difference.mean)
    yield Difference(OVER_SOURCES, OVER_TARGETS, metric, over_sources.mean)
    over_targets = average_means(list(pairs.values()), ours.all.patients)
    yield Difference(ALL_SOURCES, OVER_TARGETS, metric, over_targets.mean)


def _subtract_means(ours: BootstrapMean, theirs: BootstrapMean) -> BootstrapMean:
    return BootstrapMean(ours.value - theirs.value, ours.draws - theirs.draws, max(ours.patients, theirs.patients))


def _restrict(cases: Cases, others: Cases) -> dict[str, CaseScore]:
    """Keep the cases and targets that are also scored in the other set."""
    kept = {}
    for name, case in cases.items():
        other = others.get(name)
        if other is None or other.source != case.source:
            continue
        targets = {target: score for target, score in case.targets.items() if target in other.targets}
        kept[name] = replace(case, targets=targets)
    return kept


def _check_same_references(ours: Cases, theirs: Cases) -> None:
    for name, case in ours.items():
        if case.patient != theirs[name].patient:
            raise DataError(
                f"Case {name!r} belongs to patient {case.patient!r} in the first set of scores and to "
                f"{theirs[name].patient!r} in the second. Score both with the same case table."
            )
        for target, score in case.targets.items():
            if score.present != theirs[name].targets[target].present:
                raise DataError(
                    f"Case {name!r}: the target {target!r} is in the reference of only one set of scores. Score both "
                    "against the same references."
                )


def _count(cases: Cases) -> int:
    return sum(len(case.targets) for case in cases.values())


def _describe_first(cases: Cases) -> str:
    for name, case in cases.items():
        return f"{name!r} of {case.source!r} with {', '.join(case.targets) or 'no target'}"
    return "no case"
