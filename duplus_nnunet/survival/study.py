"""Cross-validation of prognosis: in come records, out come held-out predictions and scores with intervals.

All methods see the same folds. Folds are drawn several times, by one seed each; patients are drawn for the intervals,
and a patient enters all methods and seeds at once, so that differences are paired.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.bootstrap import DRAWS, SEED, find_interval
from duplus_nnunet.survival.folds import Fold, make_folds
from duplus_nnunet.survival.methods import METHODS, Forecast, Task, forecast, read_outcome
from duplus_nnunet.survival.schema import ClinicalSchema
from duplus_nnunet.survival.scores import (
    Numbers,
    Outcome,
    Sums,
    compare_at,
    compare_pairs,
    pool,
    sum_brier,
    weigh_events,
)
from duplus_nnunet.survival.table import SEEN, Record

# Direction of each score: whether higher is better.
SCORES = {"Harrell's C": True, "Uno's C": True, "AUC": True, "integrated Brier": False}
_GRID = 20
_LEAST_EVENTS = 2
_LATE = "No method here uses entry times: who had the event before entering is missed, so survival looks too good."


@dataclass(frozen=True)
class Design:
    """How a study is done.

    Attributes:
        folds: Number of folds.
        seeds: Of the splits; each is a whole cross-validation.
        horizons: Days at which survival is reported, ascending.
        methods: Names among METHODS; differences are to the first one.
    """

    folds: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    horizons: tuple[float, ...] = ()
    methods: tuple[str, ...] = tuple(METHODS)


@dataclass(frozen=True)
class HeldOut:
    """What a method predicted of one held-out patient.

    Attributes:
        method: Its name.
        seed: Of the split.
        fold: Number of the fold.
        patient: Who it is.
        risk: Higher is worse; comparable within a fold only.
        survival: Probability to be free of the event at each horizon.
    """

    method: str
    seed: int
    fold: int
    patient: str
    risk: float
    survival: tuple[float, ...]


@dataclass(frozen=True)
class Value:
    """A score, or a difference of scores.

    Attributes:
        value: Mean over seeds.
        interval: 95 % interval by patient bootstrap, or None.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Study:
    """What came out.

    Attributes:
        scores: By method and score.
        differences: The first method less each other one, by method and score.
        predictions: Of every held-out patient.
        horizons: Days at which they tell the survival.
        notes: What a reader has to know.
    """

    scores: dict[str, dict[str, Value]]
    differences: dict[str, dict[str, Value]]
    predictions: tuple[HeldOut, ...]
    horizons: tuple[float, ...]
    notes: tuple[str, ...]


def choose_horizons(outcome: Outcome) -> tuple[float, ...]:
    """Take the times by which a quarter, half and three quarters of all seen events had happened."""
    return tuple(float(time) for time in np.unique(np.quantile(outcome.time[outcome.event], [0.25, 0.5, 0.75])))


def run_study(
    records: Sequence[Record], schema: ClinicalSchema, design: Design, show: Callable[[str], None] = lambda _: None
) -> Study:
    """Cross-validate.

    Args:
        records: One a patient.
        schema: Types of covariates.
        design: How.
        show: Takes a line for each method and seed that is done.

    Raises:
        DataError: There are too few events, or a horizon lies beyond the follow-up of a fold.
    """
    records = sorted(records, key=lambda record: record.patient)  # their order in the table shall change nothing
    everybody = read_outcome(records)
    horizons = design.horizons or choose_horizons(everybody)
    counts = _draw(len(records))
    rows: dict[str, dict[str, list[Numbers]]] = {name: {} for name in design.methods}
    predictions: list[HeldOut] = []
    late = sum(record.entry > 0 for record in records)
    notes = dict.fromkeys([f"{late} patient(s) entered late. {_LATE}"] if late else [])
    for seed in design.seeds:
        folds = _make_folds(records, design.folds, seed)
        grid = _choose_grid(everybody, folds, horizons)
        for name in design.methods:
            sums: dict[str, list[tuple[Fold, Sums]]] = {score: [] for score in SCORES}
            for number, fold in enumerate(folds):
                found = forecast(name, _make_task(records, fold, schema, np.array([*grid, *horizons]), seed))
                notes |= dict.fromkeys(found.notes)
                predictions += _list_held_out((name, seed, number), records, fold, found, len(horizons))
                for score, one in _sum_up(everybody, fold, found, grid, horizons).items():
                    sums[score].append((fold, one))
            for score, parts in sums.items():
                drawn = [counts[:, list(fold.test)] for fold, _ in parts]
                rows[name].setdefault(score, []).append(pool([one for _, one in parts], drawn))
            show(f"{name}, seed {seed}")
    scores, differences = _conclude(rows, design, len(records))
    return Study(scores, differences, tuple(predictions), tuple(horizons), tuple(notes))


def _make_folds(records: Sequence[Record], count: int, seed: int) -> list[Fold]:
    """Make folds of which each leaves events enough to learn from, and to choose by."""
    folds = make_folds(records, count, seed)
    least = min(sum(records[place].event == SEEN for place in fold.train) for fold in folds)
    if least < _LEAST_EVENTS:
        events = sum(record.event == SEEN for record in records)
        raise DataError(
            f"With {count} folds of {events} patients with the event, only {least} are left to learn from in one of "
            f"them; expected {_LEAST_EVENTS} or more. There are too few events."
        )
    return folds


def _make_task(records: Sequence[Record], fold: Fold, schema: ClinicalSchema, times: Numbers, seed: int) -> Task:
    train, test = ([records[place] for place in places] for places in (fold.train, fold.test))
    return Task(train, test, schema, times, seed)


def _draw(patients: int) -> Numbers:
    """Count patients that are drawn with replacement, (1 + B, N); first everybody once."""
    drawn = np.random.default_rng(SEED).multinomial(patients, np.full(patients, 1 / patients), size=DRAWS)
    return np.concatenate([np.ones((1, patients)), drawn.astype(np.float64)])


def _choose_grid(outcome: Outcome, folds: Sequence[Fold], horizons: Sequence[float]) -> Numbers:
    """Choose the times over which Brier scores are integrated: from the first seen event to the last horizon."""
    last = min(float(outcome.time[list(fold.train)].max()) for fold in folds)
    first = float(outcome.time[outcome.event].min())
    if horizons[-1] <= first:
        raise DataError(
            f"The last horizon, {horizons[-1]:g} days, is not after the first event, {first:g} days, so that there is "
            "nothing to foretell until then. Choose a later one (--horizons); coarse times may need a finer unit."
        )
    if horizons[-1] >= last:
        raise DataError(
            f"The horizon of {horizons[-1]:g} days lies beyond the follow-up of a fold, {last:g} days. Choose an "
            "earlier one: nobody was observed there."
        )
    return np.linspace(first, horizons[-1], _GRID)


def _sum_up(
    everybody: Outcome, fold: Fold, found: Forecast, grid: Numbers, horizons: Sequence[float]
) -> dict[str, Sums]:
    train, test = everybody.take(fold.train), everybody.take(fold.test)
    after = float(np.nextafter(horizons[-1], np.inf))
    weights = weigh_events(train, test, after)
    parts = [compare_at(test, found.risk, weights, horizon) for horizon in horizons]
    return {
        "Harrell's C": compare_pairs(test, found.risk),
        "Uno's C": compare_pairs(test, found.risk, weights**2),
        "AUC": Sums(np.sum([part.top for part in parts], 0), np.sum([part.bottom for part in parts], 0)),
        "integrated Brier": sum_brier(train, test, found.survival[:, : len(grid)], grid),
    }


def _list_held_out(
    key: tuple[str, int, int], records: Sequence[Record], fold: Fold, found: Forecast, horizons: int
) -> list[HeldOut]:
    return [
        HeldOut(*key, records[place].patient, float(risk), tuple(float(value) for value in curve[-horizons:]))
        for place, risk, curve in zip(fold.test, found.risk, found.survival, strict=True)
    ]


def _conclude(
    rows: Mapping[str, Mapping[str, Sequence[Numbers]]], design: Design, patients: int
) -> tuple[dict[str, dict[str, Value]], dict[str, dict[str, Value]]]:
    """Average over seeds, and find intervals of scores and of differences to the first method."""
    means = {name: {score: np.mean(seeds, axis=0) for score, seeds in found.items()} for name, found in rows.items()}
    first = means[design.methods[0]]

    def describe(values: Numbers) -> Value:
        return Value(float(values[0]), find_interval(values[1:], patients))

    scores = {name: {score: describe(values) for score, values in found.items()} for name, found in means.items()}
    others = {name: found for name, found in means.items() if name != design.methods[0]}
    differences = {
        name: {score: describe(first[score] - values) for score, values in found.items()}
        for name, found in others.items()
    }
    return scores, differences


def to_plain(study: Study, design: Design) -> dict[str, Any]:
    """Return scores and differences as plain data."""

    def turn(values: Mapping[str, Mapping[str, Value]]) -> dict[str, Any]:
        return {
            name: {score: {"value": _to_json(one.value), "interval": one.interval} for score, one in found.items()}
            for name, found in values.items()
        }

    return {
        "version": 1,
        "folds": design.folds,
        "seeds": list(design.seeds),
        "interval": {"level": 0.95, "by": "patient bootstrap", "draws": DRAWS, "seed": SEED},
        "horizons_days": list(study.horizons),
        "higher_is_better": SCORES,
        "scores": turn(study.scores),
        "first_method": design.methods[0],
        "first_less_others": turn(study.differences),
        "notes": list(study.notes),
    }


def _to_json(value: float) -> float | None:
    """JSON has no NaN, which says that there was nothing to compare."""
    return None if math.isnan(value) else value
