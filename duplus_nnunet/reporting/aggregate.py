"""Means over cases, targets and sources: in come the scores of single cases, out comes what a paper's table holds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.reporting.bootstrap import (
    Draws,
    Interval,
    Values,
    average_columns,
    draw_patients,
    find_interval,
)
from duplus_nnunet.reporting.case_scores import CaseScore, TargetScore

METRICS = ("dice", "nsd")


@dataclass(frozen=True)
class Mean:
    """A mean score.

    Attributes:
        value: The mean, 0 to 1, higher is better; NaN if nothing was scored.
        interval: Its 95 % interval by patient bootstrap; None if there is none.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Row:
    """One target in one source.

    Attributes:
        source: The source's name.
        target: The target's name.
        annotated: Number of cases in which it was annotated.
        present: Number of those that contain it.
        false_positives: Number of those that do not but in which it was predicted; each counts as a score of 0.
        correct_rejections: Number of those that do not and in which it was not predicted; they have no score.
        dice: Mean Dice over the cases that have a score.
        nsd: Mean normalised surface distance over the same cases.
    """

    source: str
    target: str
    annotated: int
    present: int
    false_positives: int
    correct_rejections: int
    dice: Mean
    nsd: Mean


@dataclass(frozen=True)
class Aggregate:
    """Everything that was scored.

    Attributes:
        tolerance: Of the normalised surface distance, in mm.
        cases: Scores of single cases by identifier.
        rows: A row a source and target.
        sources: Mean over a source's targets, by source and metric (`dice`, `nsd`).
        mean: Mean over sources, by metric.
        over_targets: Mean over the targets of all sources, each of a source counting as one, by metric.
    """

    tolerance: float
    cases: Mapping[str, CaseScore]
    rows: Sequence[Row]
    sources: Mapping[str, Mapping[str, Mean]]
    mean: Mapping[str, Mean]
    over_targets: Mapping[str, Mean]


def aggregate(cases: Mapping[str, CaseScore], tolerance: float) -> Aggregate:
    """Average scores of cases; a target is weighed as any other, a source as any other, however many cases it has."""
    means = {metric: average(cases, metric) for metric in METRICS}
    rows = []
    for source, target in list_pairs(cases.values()):
        scores = [score for _, score in select(cases.values(), source, target)]
        absent = [score for score in scores if not score.present]
        rows.append(
            Row(
                source=source,
                target=target,
                annotated=len(scores),
                present=len(scores) - len(absent),
                false_positives=sum(score.predicted for score in absent),
                correct_rejections=sum(not score.predicted for score in absent),
                dice=means["dice"].pairs[source, target].mean,
                nsd=means["nsd"].pairs[source, target].mean,
            )
        )
    sources = {
        source: {metric: means[metric].sources[source].mean for metric in METRICS} for source in means["dice"].sources
    }
    over_sources = {metric: means[metric].all.mean for metric in METRICS}
    over_targets = {metric: means[metric].over_targets.mean for metric in METRICS}
    return Aggregate(tolerance, cases, rows, sources, over_sources, over_targets)


@dataclass(frozen=True)
class Drawn:
    """A mean, and the same mean in every draw of patients, (B)."""

    value: float
    draws: Values
    patients: int

    @property
    def mean(self) -> Mean:
        """The mean with its interval."""
        return Mean(self.value, find_interval(self.draws, self.patients))


@dataclass(frozen=True)
class Averages:
    """Means of one metric: by source and target, over each source's targets, over sources, and over all targets."""

    pairs: Mapping[tuple[str, str], Drawn]
    sources: Mapping[str, Drawn]
    all: Drawn
    over_targets: Drawn


def average(cases: Mapping[str, CaseScore], metric: str) -> Averages:
    """Average one metric, and do so again in every draw of patients.

    Args:
        cases: Scores of cases.
        metric: `dice` or `nsd`.
    """
    patients: dict[str, set[str]] = {}
    for case in cases.values():
        patients.setdefault(case.source, set()).add(case.patient)
    draws = draw_patients(patients)
    pairs = {
        (source, target): _average_pair(draws, select(cases.values(), source, target), metric)
        for source, target in list_pairs(cases.values())
    }
    sources = {
        source: average_drawn([drawn for (name, _), drawn in pairs.items() if name == source], len(patients[source]))
        for source in dict.fromkeys(source for source, _ in pairs)
    }
    everybody = len(draws.index)
    over_sources, over_targets = (average_drawn(list(some.values()), everybody) for some in (sources, pairs))
    return Averages(pairs, sources, over_sources, over_targets)


def average_drawn(several: Sequence[Drawn], patients: int) -> Drawn:
    """Average means that have a value, each with the same weight, and so in every draw.

    Args:
        several: Means over the same draws.
        patients: Number of patients behind them.
    """
    known = [drawn for drawn in several if not math.isnan(drawn.value)]
    if not known:
        return Drawn(math.nan, np.full(1, np.nan), 0)
    mean = float(np.mean([drawn.value for drawn in known]))
    return Drawn(mean, average_columns([drawn.draws for drawn in known]), patients)


def list_pairs(cases: Iterable[CaseScore]) -> list[tuple[str, str]]:
    """List the pairs of a source and a target that is annotated in one of its cases, sorted."""
    return sorted({(case.source, target) for case in cases for target in case.targets})


def select(cases: Iterable[CaseScore], source: str, target: str) -> list[tuple[str, TargetScore]]:
    """List patient and score of a target in every case of a source that has it annotated."""
    return [(case.patient, case.targets[target]) for case in cases if case.source == source and target in case.targets]


def _average_pair(draws: Draws, scores: Sequence[tuple[str, TargetScore]], metric: str) -> Drawn:
    values = [(patient, float(getattr(score, metric))) for patient, score in scores]
    known = [(patient, value) for patient, value in values if not math.isnan(value)]
    mean = float(np.mean([value for _, value in known])) if known else math.nan
    return Drawn(mean, draws.average(known), len({patient for patient, _ in known}))
