"""Computes intervals of mean scores over trainings and patients, by a two-level bootstrap.

Trainings and patients are resampled independently of each other, and a score counts as often as its training was drawn
times its patient was drawn. A single training says nothing about others: then patients alone are resampled, and the
result says so. Intervals are percentiles, 2.5 to 97.5. With three trainings they are still rough, since three numbers
say little about how much trainings vary.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.reporting.bootstrap import BootstrapDraws, average_columns, draw_patients, find_interval

DRAWS, SEED = 4000, 20251128
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Score of a target of one patient by one training.

    Attributes:
        training: Name of the training.
        patient: Name of the patient.
        target: Name of the target.
        value: The score, such as the Dice, 0 to 1.
        source: Dataset of the image; targets are averaged in each source, and sources are averaged.
        stratum: Trainings of different strata, such as folds, do not stand for one another.
    """

    training: str
    patient: str
    target: str
    value: float
    source: str = ""
    stratum: str = ""


def draw_trainings(strata: Mapping[str, Iterable[str]], draws: int = DRAWS, seed: int = SEED) -> BootstrapDraws:
    """Draw bootstrap samples of trainings in each stratum.

    Of n trainings, n - 1 are drawn and weighted by n / (n - 1). Of few trainings, n draws would make the variance of
    the mean too small by the factor (n - 1) / n.

    Source: Rao and Wu 1988, J. Am. Stat. Assoc. 83, 231-241.
    """
    names = [(stratum, training) for stratum, trainings in sorted(strata.items()) for training in sorted(trainings)]
    if len({training for _, training in names}) < len(names):
        raise ValueError(f"A training belongs to one stratum; found {names}.")
    index = {training: column for column, (_, training) in enumerate(names)}
    counts, rng = np.zeros((draws, len(index))), np.random.default_rng(seed)
    for _, trainings in sorted(strata.items()):
        columns = [index[training] for training in sorted(trainings)]
        n, size = len(columns), max(len(columns) - 1, 1)
        counts[:, columns] = rng.multinomial(size, np.full(n, 1 / n), size=draws) * (n / size)
    return BootstrapDraws(index, counts)


def _group(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Group the second of each pair by the first."""
    groups: dict[str, set[str]] = {}
    for key, member in pairs:
        groups.setdefault(key, set()).add(member)
    return groups


@dataclass(frozen=True)
class _Sample:
    """Draws of the mean score (B), and the mean itself."""

    value: float
    drawn: Values


def _average(scores: Sequence[Score], trainings: BootstrapDraws, patients: BootstrapDraws) -> _Sample:
    """Average the scores of each target over trainings and patients, then over targets and sources."""
    columns = _group(((score.source, score.target)) for score in scores)
    means, drawn = [], []
    for source, targets in sorted(columns.items()):
        parts = []
        for target in sorted(targets):
            own = [score for score in scores if (score.source, score.target) == (source, target)]
            parts.append(_average_target(own, trainings, patients))
        means.append(float(np.mean([part.value for part in parts])))
        drawn.append(average_columns([part.drawn for part in parts]))
    return _Sample(float(np.mean(means)), average_columns(drawn))


def _average_target(scores: Sequence[Score], trainings: BootstrapDraws, patients: BootstrapDraws) -> _Sample:
    """Average the scores of one target, each weighted by the draws of its training and of its patient."""
    sums = np.zeros((len(trainings.index), len(patients.index)))
    numbers = np.zeros_like(sums)
    for score in scores:
        place = trainings.index[score.training], patients.index[score.patient]
        sums[place] += score.value
        numbers[place] += 1
    above, below = (((trainings.counts @ table) * patients.counts).sum(1) for table in (sums, numbers))
    drawn = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return _Sample(float(sums.sum() / numbers.sum()), drawn)


def _draw(scores: Sequence[Score], seed: int = SEED) -> BootstrapDraws:
    return draw_trainings(_group((score.stratum, score.training) for score in scores), seed=seed)


def _draw_patients(scores: Sequence[Score]) -> BootstrapDraws:
    return draw_patients(_group((score.source, score.patient) for score in scores), DRAWS)


def _describe(sample: _Sample, patients: int, groups: Sequence[Sequence[Score]]) -> dict[str, Any]:
    """Give a mean with its interval, and over what the interval is."""
    strata = [_group((score.stratum, score.training) for score in scores).values() for scores in groups]
    single = [len(trainings) == 1 for group in strata for trainings in group]
    by = "trainings and patients"
    if all(single):
        by = "patients only: one training" if len(groups) == 1 else "patients only: one training each"
    elif any(single):
        by = "patients, and trainings where there are several"
    interval = find_interval(sample.drawn, patients)
    return {
        "mean": round(sample.value, 4),
        "interval_95": interval and [round(edge, 4) for edge in interval],
        "interval_over": by,
        "trainings": [sum(len(trainings) for trainings in group) for group in strata],
        "patients": patients,
    }


def estimate(scores: Sequence[Score]) -> dict[str, Any]:
    """Estimate the mean score of one or several trainings of the same kind."""
    if not scores:
        return {"mean": None, "interval_95": None, "interval_over": "no scores", "trainings": [0], "patients": 0}
    patients = _draw_patients(scores)
    return _describe(_average(scores, _draw(scores), patients), len(patients.index), [scores])


def compare(first: Sequence[Score], second: Sequence[Score]) -> dict[str, Any]:
    """Estimate the difference, first - second, of two kinds of training on the same patients.

    Trainings are drawn for each kind by itself; the patients drawn are the same. Only scores of patients and targets
    that both kinds have are compared.
    """
    first, second = _share(first, second), _share(second, first)
    if not first:
        return estimate([])
    patients = _draw_patients(first)
    one, other = _average(first, _draw(first), patients), _average(second, _draw(second, SEED + 1), patients)
    difference = _Sample(one.value - other.value, one.drawn - other.drawn)
    return _describe(difference, len(patients.index), [first, second])


def _share(scores: Sequence[Score], others: Sequence[Score]) -> list[Score]:
    """Return the scores of patients and targets that others have too."""
    known = {(score.source, score.patient, score.target) for score in others}
    return [score for score in scores if (score.source, score.patient, score.target) in known]


def compare_pairs(first: Sequence[Score], second: Sequence[Score]) -> dict[str, Any]:
    """Estimate the difference, first - second, of trainings that are pairs: same seed, weights and batches.

    Differences are taken by training, patient and target; those that one of the two lacks are left out.
    """
    known = {(score.training, score.source, score.patient, score.target): score.value for score in second}
    keys = {score: (score.training, score.source, score.patient, score.target) for score in first}
    pairs = [replace(score, value=score.value - known[key]) for score, key in keys.items() if key in known]
    return estimate(pairs)


def group_by_target(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Group scores by target, named with its source where there is one."""
    groups: dict[str, list[Score]] = {}
    for score in sorted(scores, key=lambda score: (score.source, score.target)):
        name = f"{score.source}: {score.target}" if score.source else score.target
        groups.setdefault(name, []).append(score)
    return groups


def estimate_each(scores: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """Estimate the mean score of each target."""
    return {name: estimate(own) for name, own in group_by_target(scores).items()}
