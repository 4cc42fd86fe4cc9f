"""Computes intervals of mean scores over trainings and patients, by a two-level bootstrap.

Trainings and patients are resampled independently of each other, and a score counts as often as its training was drawn
times its patient was drawn. The interval is the mean and the standard error of the draws times a quantile of Student's
t, since two or three trainings say little about how much trainings vary. The degrees of freedom come from the variance
that each stratum of trainings and the patients contribute. In simulations with two to five trainings
(`training_intervals.py`) they cover the true mean in 93 to 97 %, and percentiles of the draws in 82 to 95 %.

A single training says nothing about others: then patients alone are resampled, the interval is the percentiles 2.5 to
97.5, and the result says so.

Source: Satterthwaite 1946, Biometrics Bull. 2, 110-114 (doi 10.2307/3002019).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from duplus_nnunet.reporting.bootstrap import LEVEL, BootstrapDraws, average_columns, draw_patients, find_interval

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
        case: Name of the image, where a patient has several.
    """

    training: str
    patient: str
    target: str
    value: float
    source: str = ""
    stratum: str = ""
    case: str = ""

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What is scored: source, patient, image and target."""
        return self.source, self.patient, self.case, self.target


def draw_trainings(strata: Mapping[str, Iterable[str]], draws: int | None = None, seed: int = SEED) -> BootstrapDraws:
    """Draw bootstrap samples of trainings in each stratum.

    Of n trainings, n - 1 are drawn and weighted by n / (n - 1). Of few trainings, n draws would make the variance of
    the mean too small by the factor (n - 1) / n.

    Source: Rao and Wu 1988, J. Am. Stat. Assoc. 83, 231-241.
    """
    names = [(stratum, training) for stratum, trainings in sorted(strata.items()) for training in sorted(trainings)]
    if len({training for _, training in names}) < len(names):
        raise ValueError(f"A training belongs to one stratum; found {names}.")
    index = {training: column for column, (_, training) in enumerate(names)}
    counts, rng = np.zeros((draws or DRAWS, len(index))), np.random.default_rng(seed)
    for _, trainings in sorted(strata.items()):
        columns = [index[training] for training in sorted(trainings)]
        n, size = len(columns), max(len(columns) - 1, 1)
        counts[:, columns] = rng.multinomial(size, np.full(n, 1 / n), size=len(counts)) * (n / size)
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

    def __sub__(self, other: "_Sample") -> "_Sample":
        return _Sample(self.value - other.value, self.drawn - other.drawn)


def _hold(draws: BootstrapDraws, drawn: Iterable[str] = ()) -> BootstrapDraws:
    """Return draws in which all others than the named ones count once."""
    counts = np.ones_like(draws.counts)
    columns = [draws.index[name] for name in drawn]
    counts[:, columns] = draws.counts[:, columns]
    return BootstrapDraws(draws.index, counts)


@dataclass(frozen=True)
class _Kind:
    """Scores of one kind of training, and the draws of its trainings."""

    scores: Sequence[Score]
    trainings: BootstrapDraws

    @property
    def strata(self) -> list[set[str]]:
        """Trainings of each stratum."""
        return list(_group((score.stratum, score.training) for score in self.scores).values())

    def average(self, patients: BootstrapDraws) -> _Sample:
        """Average over trainings and patients."""
        return _average(self.scores, self.trainings, patients)

    def list_parts(self, patients: BootstrapDraws) -> list[tuple[float, int]]:
        """List the variance that each stratum of several trainings contributes, and its degrees of freedom."""
        held = _hold(patients)
        return [
            (_measure(_average(self.scores, _hold(self.trainings, names), held).drawn), len(names) - 1)
            for names in self.strata
            if len(names) > 1
        ]


def _measure(drawn: Values) -> float:
    """Return the variance of draws."""
    return float(np.nanvar(drawn))


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


def _make_kind(scores: Sequence[Score], seed: int = SEED) -> _Kind:
    return _Kind(scores, draw_trainings(_group((score.stratum, score.training) for score in scores), seed=seed))


def _draw_patients(scores: Sequence[Score]) -> BootstrapDraws:
    return draw_patients(_group((score.source, score.patient) for score in scores), DRAWS)


def _find_interval(kinds: Sequence[_Kind], sample: _Sample, patients: BootstrapDraws) -> tuple[float, float] | None:
    """Compute the 95 % interval of a mean, or of the difference of two."""
    number = len(patients.index)
    parts = [part for kind in kinds for part in kind.list_parts(patients)]
    if not parts or number < 2:
        return find_interval(sample.drawn, number)
    held = [_average(kind.scores, _hold(kind.trainings), patients) for kind in kinds]
    parts.append((_measure(held[0].drawn if len(held) == 1 else (held[0] - held[1]).drawn), number - 1))
    total, error = sum(variance for variance, _ in parts), _measure(sample.drawn) ** 0.5
    if not total > 0:
        return sample.value, sample.value
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    width = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return sample.value - width, sample.value + width


def _describe(kinds: Sequence[_Kind], patients: BootstrapDraws, lowest: float) -> dict[str, Any]:
    """Give a mean, or the difference of two, with its interval, and over what the interval is."""
    first, *others = [kind.average(patients) for kind in kinds]
    sample = first - others[0] if others else first
    single = [len(trainings) == 1 for kind in kinds for trainings in kind.strata]
    by = "trainings and patients"
    if all(single):
        by = "patients only: one training" if len(kinds) == 1 else "patients only: one training each"
    elif any(single):
        by = "patients, and trainings where there are several"
    interval = _find_interval(kinds, sample, patients)
    return {
        "mean": round(sample.value, 4),
        "interval_95": interval and [round(min(max(edge, lowest), 1.0), 4) for edge in interval],
        "interval_over": by,
        "trainings": [sum(map(len, kind.strata)) for kind in kinds],
        "patients": len(patients.index),
    }


def draw_means(scores: Sequence[Score]) -> Values:
    """Draw the mean score of the trainings of one kind, (B)."""
    return _make_kind(scores).average(_draw_patients(scores)).drawn


def estimate(scores: Sequence[Score], lowest: float = 0.0) -> dict[str, Any]:
    """Estimate the mean score of one or several trainings of the same kind; scores are from `lowest` to 1."""
    if not scores:
        return {"mean": None, "interval_95": None, "interval_over": "no scores", "trainings": [0], "patients": 0}
    return _describe([_make_kind(scores)], _draw_patients(scores), lowest)


def compare(first: Sequence[Score], second: Sequence[Score]) -> dict[str, Any]:
    """Estimate the difference, first - second, of two kinds of training on the same patients.

    Trainings are drawn for each kind by itself; the patients drawn are the same. Only images and targets that both
    kinds have a score of are compared. "left_out" is the number of others, of the first and of the second: mostly
    targets that an image does not show, and that one kind alone predicted (score 0), since a right empty answer has no
    Dice.
    """
    shared = _share(first, second), _share(second, first)
    left_out = [len(first) - len(shared[0]), len(second) - len(shared[1])]
    if not shared[0]:
        return {**estimate([]), "left_out": left_out}
    kinds = [_make_kind(shared[0]), _make_kind(shared[1], SEED + 1)]
    return {**_describe(kinds, _draw_patients(shared[0]), -1.0), "left_out": left_out}


def _share(scores: Sequence[Score], others: Sequence[Score]) -> list[Score]:
    """Return the scores of images and targets that others have too."""
    known = {score.place for score in others}
    return [score for score in scores if score.place in known]


def compare_pairs(first: Sequence[Score], second: Sequence[Score]) -> dict[str, Any]:
    """Estimate the difference, first - second, of trainings that are pairs: same seed, weights and batches.

    Differences are taken by training, image and target; those that one of the two lacks are left out, and counted as in
    `compare`.

    Raises:
        ValueError: A training has two scores of the same target in the same image.
    """
    own, others = _index(first), _index(second)
    pairs = [replace(score, value=score.value - others[key].value) for key, score in own.items() if key in others]
    return {**estimate(pairs, -1.0), "left_out": [len(own) - len(pairs), len(others) - len(pairs)]}


def _index(scores: Sequence[Score]) -> dict[tuple[str, ...], Score]:
    """Index scores by training and what is scored."""
    index: dict[tuple[str, ...], Score] = {(score.training, *score.place): score for score in scores}
    if len(index) < len(scores):
        raise ValueError("A training has two scores of the same target in the same image; name the images (case).")
    return index


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
