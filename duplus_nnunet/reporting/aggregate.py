"""Averages the scores of cases over targets and sources, with bootstrap intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from duplus_nnunet.reporting.bootstrap import (
    BootstrapDraws,
    Interval,
    Values,
    average_columns,
    draw_patients,
    find_interval,
)
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.metrics import NAMES
from duplus_nnunet.reporting.target_scores import TargetScore


@dataclass(frozen=True)
class Mean:
    """A mean score.

    Attributes:
        value: The mean, in the unit of its metric; NaN if nothing was scored.
        interval: 95 % interval by patient bootstrap; None if undefined.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one target in one source.

    Attributes:
        source: Name of the source.
        target: Name of the target.
        annotated: Number of cases in which the target is annotated.
        present: Number of annotated cases that contain the target.
        missed: Number of cases that contain the target but in which it is not predicted; each scores 0.
        false_positives: Number of annotated cases that do not contain the target but in which it is predicted; each
            scores 0.
        correct_rejections: Number of annotated cases that do not contain the target and in which it is not predicted;
            they have no score.
        means: Mean of each metric over the cases that have it, by name of the metric.
    """

    source: str
    target: str
    annotated: int
    present: int
    missed: int
    false_positives: int
    correct_rejections: int
    means: Mapping[str, Mean]

    @property
    def dice(self) -> Mean:
        """Mean Dice."""
        return self.means["dice"]

    @property
    def nsd(self) -> Mean:
        """Mean normalised surface distance."""
        return self.means["nsd"]


@dataclass(frozen=True)
class Aggregate:
    """Scores of cases and their means.

    Attributes:
        tolerance: Tolerance of the normalised surface distance, in mm.
        cases: Scores of the cases by identifier.
        rows: One row per source and target.
        sources: Mean over the targets of each source, by source and metric.
        mean: Mean over sources, by metric.
        over_targets: Mean over all pairs of a source and a target, by metric.
        tolerances: That of single targets, in mm, where it differs.
    """

    tolerance: float
    cases: Mapping[str, CaseScore]
    rows: Sequence[ScoreRow]
    sources: Mapping[str, Mapping[str, Mean]]
    mean: Mapping[str, Mean]
    over_targets: Mapping[str, Mean]
    tolerances: Mapping[str, float] = field(default_factory=dict)


def aggregate(
    cases: Mapping[str, CaseScore], tolerance: float, tolerances: Mapping[str, float] | None = None
) -> Aggregate:
    """Average scores of cases; all targets of a source, and all sources, have the same weight.

    Args:
        cases: Scores of the cases by identifier.
        tolerance: Tolerance of the normalised surface distance, in mm.
        tolerances: That of single targets, in mm, where it differs.
    """
    means = average_metrics(cases)
    rows = []
    for source, target in list_source_targets(cases.values()):
        scores = [score for _, score in list_target_scores(cases.values(), source, target)]
        absent = [score for score in scores if not score.present]
        rows.append(
            ScoreRow(
                source=source,
                target=target,
                annotated=len(scores),
                present=len(scores) - len(absent),
                missed=sum(score.present and not score.predicted for score in scores),
                false_positives=sum(score.predicted for score in absent),
                correct_rejections=sum(not score.predicted for score in absent),
                means={metric: means[metric].pairs[source, target].mean for metric in NAMES},
            )
        )
    sources = {
        source: {metric: means[metric].sources[source].mean for metric in NAMES} for source in means["dice"].sources
    }
    over_sources = {metric: means[metric].all.mean for metric in NAMES}
    over_targets = {metric: means[metric].over_targets.mean for metric in NAMES}
    return Aggregate(tolerance, cases, rows, sources, over_sources, over_targets, dict(tolerances or {}))


@dataclass(frozen=True)
class BootstrapMean:
    """A mean, the same mean in every bootstrap draw, (B), and the number of patients behind it."""

    value: float
    draws: Values
    patients: int

    @property
    def mean(self) -> Mean:
        """The mean with its bootstrap interval."""
        return Mean(self.value, find_interval(self.draws, self.patients))


@dataclass(frozen=True)
class MetricMeans:
    """Means of one metric: by source and target, over the targets of each source, over sources, and over all pairs."""

    pairs: Mapping[tuple[str, str], BootstrapMean]
    sources: Mapping[str, BootstrapMean]
    all: BootstrapMean
    over_targets: BootstrapMean


def average_metrics(cases: Mapping[str, CaseScore]) -> dict[str, MetricMeans]:
    """Average each metric over all cases and in every bootstrap draw of patients; all are averaged over the same draws.

    Args:
        cases: Scores of the cases by identifier.
    """
    patients: dict[str, set[str]] = {}
    for case in cases.values():
        patients.setdefault(case.source, set()).add(case.patient)
    draws = draw_patients(patients)
    scores = {pair: list_target_scores(cases.values(), *pair) for pair in list_source_targets(cases.values())}
    return {metric: _average_metric(draws, patients, scores, metric) for metric in NAMES}


def _average_metric(
    draws: BootstrapDraws,
    patients: Mapping[str, set[str]],
    scores: Mapping[tuple[str, str], Sequence[tuple[str, TargetScore]]],
    metric: str,
) -> MetricMeans:
    pairs = {pair: _average_pair(draws, found, metric) for pair, found in scores.items()}
    sources = {
        source: average_means([mean for (name, _), mean in pairs.items() if name == source], len(patients[source]))
        for source in dict.fromkeys(source for source, _ in pairs)
    }
    all_patients = len(draws.index)
    over_sources, over_targets = (average_means(list(means.values()), all_patients) for means in (sources, pairs))
    return MetricMeans(pairs, sources, over_sources, over_targets)


def average_means(means: Sequence[BootstrapMean], patients: int) -> BootstrapMean:
    """Average means with the same weight, ignoring NaN, overall and in every bootstrap draw.

    Args:
        means: Means over the same draws.
        patients: Number of patients behind them.
    """
    known = [mean for mean in means if not math.isnan(mean.value)]
    if not known:
        return BootstrapMean(math.nan, np.full(1, np.nan), 0)
    value = float(np.mean([mean.value for mean in known]))
    return BootstrapMean(value, average_columns([mean.draws for mean in known]), patients)


def list_source_targets(cases: Iterable[CaseScore]) -> list[tuple[str, str]]:
    """List all pairs of a source and a target that is annotated in at least one of its cases, sorted."""
    return sorted({(case.source, target) for case in cases for target in case.targets})


def list_target_scores(cases: Iterable[CaseScore], source: str, target: str) -> list[tuple[str, TargetScore]]:
    """List patient and score of a target in every case of a source in which it is annotated."""
    return [(case.patient, case.targets[target]) for case in cases if case.source == source and target in case.targets]


def _average_pair(draws: BootstrapDraws, scores: Sequence[tuple[str, TargetScore]], metric: str) -> BootstrapMean:
    values = [(patient, float(getattr(score, metric))) for patient, score in scores]
    known = [(patient, value) for patient, value in values if not math.isnan(value)]
    mean = float(np.mean([value for _, value in known])) if known else math.nan
    return BootstrapMean(mean, draws.average(known), len({patient for patient, _ in known}))
