"""Cross-validation of prognosis: in come records and features of images, out come held-out predictions and scores.

All methods see the same folds. Folds are drawn several times, by one seed each, or given; patients are drawn for the
intervals, and a patient enters all methods and seeds at once, so that differences are paired.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.calibration import Group, HeldOutSurvival, SurvivalCalibration, calibrate, group
from duplus_nnunet.survival.evaluation.centres import Centres, choose_centres, leave_centres_out
from duplus_nnunet.survival.evaluation.cross_validation import (
    CrossValidation,
    HeldOut,
    Method,
    MethodResult,
    choose_times,
    cross_validate,
    find_last,
)
from duplus_nnunet.survival.evaluation.intervals import Values, average_seeds, conclude, draw_counts
from duplus_nnunet.survival.evaluation.risk_groups import RiskGroups, split_by_risk
from duplus_nnunet.survival.models.forecasts import merge_notes
from duplus_nnunet.survival.models.methods import IMAGE_METHODS, METHODS, forecast
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import Fold, check_folds, make_folds
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import LATE_ENTRY, SEEN, Record

_LEAST_EVENTS, _LEAST_CENTRES = 2, 2
_QUARTERS = (0.25, 0.5, 0.75)

# Of a seed, the number of a fold and the fold, whose places are those of the records that the study was given.
FindFeatures = Callable[[int, int, Fold], FeatureTable | None]


@dataclass(frozen=True)
class Design:
    """How a study is done.

    Attributes:
        folds: Number of folds that are drawn.
        seeds: Of the splits; each is a whole cross-validation.
        horizons: Days at which survival is reported, ascending; empty: chosen by `choose_horizons`.
        methods: Names among METHODS and `forecasts`; differences are to the first one. Empty: all for which there is
            data, first the network that sees all of it.
        given: Folds of each seed instead of drawn ones, by places of the records that the study is given.
        forecasts: Methods that were learned elsewhere. Each is called with a task whose test records are the held-out
            patients of a fold, and gives what a model that has not seen them says.
        find_centre_features: Gives the features for a centre that is left out, by its name and fold; None: methods that
            need images are not among those that leave centres out, as a network may have seen them.
        settings: Of our own model with images.
    """

    folds: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    horizons: tuple[float, ...] = ()
    methods: tuple[str, ...] = ()
    given: tuple[tuple[Fold, ...], ...] = ()
    forecasts: Mapping[str, Method] = field(default_factory=dict)
    find_centre_features: Callable[[str, Fold], FeatureTable | None] | None = None
    settings: SurvivalSettings = field(default_factory=SurvivalSettings)

    def __post_init__(self) -> None:
        """Check the horizons.

        Raises:
            DataError: One is not a number above 0, or they do not ascend.
        """
        steps = (0.0, *self.horizons, math.inf)
        if not all(one < other for one, other in pairwise(steps)):
            raise DataError(
                f"The horizons (--horizons) are {', '.join(f'{one:g}' for one in self.horizons)}; expected days above "
                "0, none of them twice, in ascending order."
            )


@dataclass(frozen=True)
class Study:
    """What came out.

    Attributes:
        scores: By method and score.
        differences: The first method less each other one, by method and score.
        predictions: Of every held-out patient.
        horizons: Days at which they tell the survival.
        notes: What a reader has to know.
        methods: Their names; the first is the one that others are compared with.
        calibration: By method, one a horizon.
        calibration_groups: Of the first method and the first seed, by horizon.
        risk_groups: Of the first method, one a seed.
        centres: What each centre is foretold by the others; None if there are not two of them.
        curve_days: Times of the predictions' curves.
    """

    scores: Values
    differences: Values
    predictions: tuple[HeldOut, ...]
    horizons: tuple[float, ...]
    notes: tuple[str, ...]
    methods: tuple[str, ...] = ()
    calibration: Mapping[str, tuple[SurvivalCalibration, ...]] = field(default_factory=dict)
    calibration_groups: Mapping[float, tuple[Group, ...]] = field(default_factory=dict)
    risk_groups: tuple[RiskGroups, ...] = ()
    centres: Centres | None = None
    curve_days: tuple[float, ...] = ()


def choose_horizons(outcome: Outcome, followed: float = math.inf) -> tuple[float, ...]:
    """Take the times by which a quarter, half and three quarters of all seen events had happened.

    Args:
        outcome: With one event or more.
        followed: Days up to which the training patients of every fold were followed. Of the times, those before it are
            kept; if none of them is after the first event, the events before it are those that are parted.

    Raises:
        DataError: No event came before the end of that follow-up, or all at one time.
    """
    times = outcome.time[outcome.event]
    first = float(times.min())
    for part in (times, times[times < followed]):
        found = np.unique(np.quantile(part, _QUARTERS)) if len(part) else part
        kept = tuple(float(time) for time in found[found < followed])
        if kept and (kept[-1] > first or followed == math.inf):
            return kept
    raise DataError(
        f"The first event is at {first:g} days, and the training patients of every fold were followed for "
        f"{followed:g}: no time between them parts the events, so that there is nothing to foretell. Use patients with "
        "longer follow-up, other folds, or a finer unit of time."
    )


def run_study(
    records: Sequence[Record],
    schema: ClinicalSchema,
    design: Design,
    show: Callable[[str], None] = lambda _: None,
    features: FindFeatures | None = None,
) -> Study:
    """Cross-validate.

    Args:
        records: One a patient.
        schema: Types of covariates.
        design: How.
        show: Takes a line for each method and seed that is done.
        features: Gives the features of images for a fold, made by a network that saw none of its held-out patients.

    Raises:
        DataError: There are too few events, a horizon lies beyond the follow-up of a fold, given folds overlap, or a
            method is not known or has no images.
    """
    methods = _choose_methods(design, features is not None)
    _check_given(records, design)
    order = sorted(range(len(records)), key=lambda place: records[place].patient)  # the table's order changes nothing
    ordered = [records[place] for place in order]
    outcome = read_outcome(ordered)
    _check_events(outcome)
    rounds = _plan_repeats(ordered, order, schema, design, features)
    counts = draw_counts(len(ordered))
    results: dict[str, list[MethodResult]] = {name: [] for name in methods}
    for place in rounds:
        for name, method in methods.items():
            results[name].append(cross_validate(name, method, place))
            show(f"{name}, seed {place.seed}")
    study = _conclude(rounds, results, counts)
    centres, notes = _leave_out(rounds[0], methods, design, (counts, order), show)
    return replace(study, centres=centres, notes=(*_list_notes(rounds[0], design), *study.notes, *notes))


def list_methods(has_images: bool) -> tuple[str, ...]:
    """List the methods for which there is data; ours stands first: with images, the network of both."""
    usable = [name for name in METHODS if has_images or name not in IMAGE_METHODS]
    return tuple(sorted(usable, key=lambda name: name != "image and EHR"))


def _choose_methods(design: Design, has_images: bool) -> dict[str, Method]:
    taken = sorted({*design.forecasts} & {*METHODS})
    if taken:
        raise DataError(f"The forecasts hold {taken[0]!r}, which is the name of another method. Choose another one.")
    known: dict[str, Method] = {name: partial(forecast, name) for name in METHODS}
    known |= design.forecasts
    chosen = design.methods or (*list_methods(has_images), *design.forecasts)
    for name in chosen:
        if name not in known:
            raise DataError(describe_unknown("method", name, known))
        if name in IMAGE_METHODS and not has_images:
            raise DataError(f"The method {name!r} needs images, and there are none. Leave it out, or give features.")
    return {name: known[name] for name in chosen}


def _check_given(records: Sequence[Record], design: Design) -> None:
    if design.given and len(design.given) != len(design.seeds):
        raise DataError(
            f"There are folds for {len(design.given)} seed(s), and {len(design.seeds)} seeds; give folds for each."
        )
    for folds in design.given:
        check_folds(records, folds)


def _check_events(outcome: Outcome) -> None:
    if not outcome.event.any():
        raise DataError(
            f"None of {len(outcome)} patients has the event, so that there is nothing to foretell. Check `event: seen` "
            "in the schema."
        )


def _plan_repeats(
    records: Sequence[Record],
    order: Sequence[int],
    schema: ClinicalSchema,
    design: Design,
    features: FindFeatures | None,
) -> list[CrossValidation]:
    outcome = read_outcome(records)
    splits = [_split(records, order, design, number) for number in range(len(design.seeds))]
    folds = [fold for split in splits for fold in split]
    horizons = design.horizons or choose_horizons(outcome, find_last(outcome, folds))
    times = choose_times(outcome, folds, horizons)
    rounds = []
    for seed, split in zip(design.seeds, splits, strict=True):
        images = [features(seed, n, _move(fold, order)) if features else None for n, fold in enumerate(split)]
        rounds.append(CrossValidation(records, outcome, schema, split, images, seed, times, design.settings))
    return rounds


def _split(records: Sequence[Record], order: Sequence[int], design: Design, number: int) -> list[Fold]:
    """Draw the folds of a seed, or take those that were given."""
    if design.given:
        rank = {place: new for new, place in enumerate(order)}
        folds = [_move(fold, rank) for fold in design.given[number]]
    else:
        folds = make_folds(records, design.folds, design.seeds[number])
    _check_training(records, folds)
    return folds


def _move(fold: Fold, places: Mapping[int, int] | Sequence[int]) -> Fold:
    return Fold(*(tuple(sorted(places[one] for one in part)) for part in (fold.train, fold.test)))


def _check_training(records: Sequence[Record], folds: Sequence[Fold]) -> None:
    """Check that each fold leaves events enough to learn from, and to choose by."""
    least = min(sum(records[place].event == SEEN for place in fold.train) for fold in folds)
    if least < _LEAST_EVENTS:
        events = sum(record.event == SEEN for record in records)
        raise DataError(
            f"With {len(folds)} folds of {events} patients with the event, only {least} are left to learn from in one "
            f"of them; expected {_LEAST_EVENTS} or more. There are too few events."
        )


def _conclude(
    rounds: Sequence[CrossValidation], results: Mapping[str, Sequence[MethodResult]], counts: Numbers
) -> Study:
    rows = {
        name: [result.pool(place.folds, counts) for place, result in zip(rounds, found, strict=True)]
        for name, found in results.items()
    }
    means = average_seeds({name: {s: [one[s] for one in found] for s in found[0]} for name, found in rows.items()})
    methods, horizons = tuple(results), rounds[0].times.horizons
    scores, differences = conclude(means, methods[0], len(rounds[0].held))
    drawn = [counts[:, place.held] for place in rounds]
    foretold = {
        name: [_gather(place, result) for place, result in zip(rounds, found, strict=True)]
        for name, found in results.items()
    }
    first = foretold[methods[0]][0]
    return Study(
        scores,
        differences,
        tuple(one for number in range(len(rounds)) for name in methods for one in results[name][number].held),
        tuple(map(float, horizons)),
        merge_notes(note for found in results.values() for result in found for note in result.notes),
        methods,
        {name: calibrate(found, horizons, drawn) for name, found in foretold.items()},
        {float(horizon): group(first, number, horizon) for number, horizon in enumerate(horizons)},
        tuple(
            split_by_risk(place.seed, result.held, place.outcome.take(place.held), tuple(map(float, horizons)))
            for place, result in zip(rounds, results[methods[0]], strict=True)
        ),
        curve_days=tuple(map(float, rounds[0].times.curve)),
    )


def _gather(place: CrossValidation, result: MethodResult) -> HeldOutSurvival:
    return HeldOutSurvival(
        place.outcome.take(place.held),
        np.array([one.survival for one in result.held]),
        np.array([one.fold for one in result.held]),
    )


def _leave_out(
    base: CrossValidation,
    methods: Mapping[str, Method],
    design: Design,
    drawn: tuple[Numbers, Sequence[int]],
    show: Callable[[str], None],
) -> tuple[Centres | None, tuple[str, ...]]:
    """Leave centres out, if there are two that can be; returns what has to be said of the others too."""
    counts, order = drawn
    folds, notes = choose_centres(base.records, float(base.times.horizons[-1]))
    find = design.find_centre_features
    own = {
        name: method
        for name, method in methods.items()
        if name not in design.forecasts and (find is not None or name not in IMAGE_METHODS)
    }
    if len(folds) < _LEAST_CENTRES or not own:
        return None, notes
    images = [find(name, _move(fold, order)) if find else None for name, fold in folds.items()]
    return leave_centres_out(replace(base, folds=list(folds.values()), images=images), own, counts, show), notes


def _list_notes(place: CrossValidation, design: Design) -> list[str]:
    late = sum(record.entry > 0 for record in place.records)
    notes = [f"{late} patient(s) entered late. {LATE_ENTRY}"] if late else []
    never = len(place.records) - len(place.held)
    if never:
        notes.append(f"{never} patient(s) are held out in no fold, and are not foretold.")
    horizons = tuple(map(float, place.times.horizons))
    if not design.horizons and horizons != choose_horizons(place.outcome):
        notes.append(
            "Not all times by which a quarter, half and three quarters of the events had happened lie within the "
            f"follow-up of every fold; the horizons are {', '.join(f'{one:g}' for one in horizons)} days instead."
        )
    return notes
