"""Runs a study: repeated cross-validation of several survival methods on the same folds.

Folds are drawn once for each seed, or predefined. For confidence intervals and paired differences see `intervals`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.progress import track
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.calibration import Group, HeldOutSurvival, SurvivalCalibration, calibrate, group
from duplus_nnunet.survival.evaluation.centres import Centres, choose_centres, leave_centres_out
from duplus_nnunet.survival.evaluation.choosing import BEST, predict_by_best
from duplus_nnunet.survival.evaluation.claims import Claims, describe_claims, find_claims
from duplus_nnunet.survival.evaluation.cross_validation import (
    CrossValidation,
    HeldOut,
    Method,
    MethodResult,
    choose_times,
    cross_validate,
    find_last,
)
from duplus_nnunet.survival.evaluation.decision import DecisionCurve, measure_decision_curves
from duplus_nnunet.survival.evaluation.horizon_scores import HorizonScores, keep_overall_scores, list_horizon_scores
from duplus_nnunet.survival.evaluation.intervals import Values, average_seeds, conclude
from duplus_nnunet.survival.evaluation.record_importance import RecordImportance, measure_record_importance
from duplus_nnunet.survival.evaluation.risk_groups import RiskGroups, split_by_risk
from duplus_nnunet.survival.models.competing import count_competing, has_comprisk
from duplus_nnunet.survival.models.forecasts import merge_notes
from duplus_nnunet.survival.models.methods import (
    BOTH,
    COMPETING_METHODS,
    FORMER_NAMES,
    IMAGE_METHODS,
    METHODS,
    NULL,
    forecast,
)
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import Fold, check_folds, make_folds
from duplus_nnunet.survival.records.horizons import RULE, choose_horizons
from duplus_nnunet.survival.records.imputation import IMPUTED, has_missing
from duplus_nnunet.survival.records.outcome import Outcome, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import COMPETING, LATE_ENTRY, SEEN, Record

_LEAST_EVENTS, _LEAST_CENTRES = 2, 2

# Returns image features from seed, number of the fold and fold, whose indices are those of the records of the study.
FindFeatures = Callable[[int, int, Fold], FeatureTable | None]


@dataclass(frozen=True)
class Design:
    """Design of a study.

    Attributes:
        folds: Number of folds to draw.
        seeds: Seeds of the folds; each is one cross-validation.
        horizons: Days at which survival is reported, ascending; empty: those of the schema, or else chosen by
            `choose_horizons`.
        methods: Names from METHODS and `forecasts`, or BEST, which chooses within each fold; differences are to the
            first. Empty: all methods for which there is data, first the DuPLUS model that uses all of it.
        given: Predefined folds for each seed, as indices of the records of the study; empty: folds are drawn.
        forecasts: Methods trained elsewhere. Each is called with a task whose test records are the held-out patients of
            a fold, and must return predictions of a model that was not trained on them.
        find_centre_features: Returns image features for a left-out centre, from its name and fold; None: methods that
            need images are not evaluated on left-out centres, as their network may have been trained on them.
        settings: Settings of the DuPLUS model.
        importance: Number of shuffles of each column in the permutation importance of the first method for records, in
            the cross-validation of the first seed; 0: it is not measured.
    """

    folds: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    horizons: tuple[float, ...] = ()
    methods: tuple[str, ...] = ()
    given: tuple[tuple[Fold, ...], ...] = ()
    forecasts: Mapping[str, Method] = field(default_factory=dict)
    find_centre_features: Callable[[str, Fold], FeatureTable | None] | None = None
    settings: SurvivalSettings = field(default_factory=SurvivalSettings)
    importance: int = 0

    def __post_init__(self) -> None:
        """Check the horizons.

        Raises:
            DataError: A horizon is not a finite number above 0, or they are not ascending.
        """
        steps = (0.0, *self.horizons, math.inf)
        if not all(earlier < later for earlier, later in pairwise(steps)):
            raise DataError(
                f"The horizons (--horizons) are {', '.join(f'{horizon:g}' for horizon in self.horizons)}; expected "
                "distinct days above 0 in ascending order."
            )


@dataclass(frozen=True)
class Study:
    """Results of a study.

    Attributes:
        scores: By method and score.
        differences: The first method minus each other method, by method and score.
        predictions: Predictions of every method for every held-out patient.
        horizons: Days at which survival is reported.
        notes: Remarks for the reader.
        methods: Names of the methods; the others are compared with the first.
        calibration: By method, one for each horizon.
        calibration_groups: Calibration groups of the first method and the first seed, by horizon.
        risk_groups: Risk groups of the first method, one for each seed.
        centres: Leave-one-centre-out validation; None with fewer than two eligible centres.
        curve_days: Times of the survival curves, in days.
        patients: Number of held-out patients, on whom all scores are computed.
        events: Number of those with the event.
        at_horizons: AUC and Brier score at each horizon, by method.
        brier_days: First and last day over which Brier scores are integrated.
        claims: What the data are enough to claim.
        decision_curves: One for each method and horizon.
        chosen: By method that chooses among others: the name of the chosen one in each fold, seed by seed.
        importance: Permutation importance of the columns; None: not measured.
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
    patients: int = 0
    events: int = 0
    at_horizons: Mapping[str, tuple[HorizonScores, ...]] = field(default_factory=dict)
    brier_days: tuple[float, float] = (math.nan, math.nan)
    claims: Claims = field(default_factory=Claims)
    decision_curves: tuple[DecisionCurve, ...] = ()
    chosen: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    importance: RecordImportance | None = None


def run_study(
    records: Sequence[Record],
    schema: ClinicalSchema,
    design: Design,
    features: FindFeatures | None = None,
) -> Study:
    """Cross-validate all methods of a design.

    Args:
        records: One for each patient.
        schema: Types of covariates.
        design: Folds, seeds, horizons and methods.
        features: Returns the image features for a fold, from a network that was not trained on its held-out patients.

    Raises:
        DataError: There are too few events, a horizon lies beyond the follow-up of a fold, predefined folds overlap, or
            a method is unknown or needs images that are not given.
    """
    methods = _choose_methods(design, features is not None, count_competing(records) > 0)
    _check_given(records, design)
    # Results do not depend on the order of the table.
    order = sorted(range(len(records)), key=lambda row: records[row].patient)
    ordered = [records[row] for row in order]
    outcome = read_outcome(ordered)
    _check_events(outcome)
    repeats = _plan_repeats(ordered, order, schema, design, features)
    results: dict[str, list[MethodResult]] = {name: [] for name in methods}
    steps = [(cv, name) for cv in repeats for name in methods]
    for cv, name in track(steps, len(steps), "cross-validation", "method and seed"):
        result = cross_validate(name, methods[name], cv)
        # Curves of the first method alone are reported; all of them would take most of the memory.
        results[name].append(result if name == next(iter(methods)) else result.drop_curves())
    study = _conclude(repeats, results)
    centres, notes = _leave_out(repeats[0], methods, design, order)
    claims = find_claims(ordered, schema, study.methods, study.events)
    first = (*describe_claims(claims), *_list_notes(repeats[0], design))
    study = replace(study, centres=centres, claims=claims, notes=(*first, *study.notes, *notes))
    return replace(study, importance=_measure_importance(repeats[0], methods, design))


def _measure_importance(
    base: CrossValidation, methods: Mapping[str, Method], design: Design
) -> RecordImportance | None:
    """Measure the importance of columns for the first method that predicts from records alone."""
    names = [name for name in methods if name not in (*design.forecasts, *IMAGE_METHODS, NULL)]
    if not design.importance or not names or not base.schema.covariates:
        return None
    return measure_record_importance(methods[names[0]], base, design.importance, name=names[0])


def list_methods(has_images: bool) -> tuple[str, ...]:
    """List the methods for which there is data, the DuPLUS model first."""
    usable = [name for name in METHODS if has_images or name not in IMAGE_METHODS]
    return tuple(sorted(usable, key=lambda name: name != BOTH))


def _choose_methods(design: Design, has_images: bool, competing: bool) -> dict[str, Method]:
    taken = sorted({*design.forecasts} & {*METHODS, *COMPETING_METHODS, BEST})
    if taken:
        raise DataError(f"`forecasts` has a method {taken[0]!r}, the name of a built-in method. Choose another name.")
    known: dict[str, Method] = {name: partial(forecast, name) for name in (*METHODS, *COMPETING_METHODS)}
    known |= {BEST: predict_by_best, **design.forecasts}
    named = [FORMER_NAMES.get(name, name) for name in design.methods]
    chosen = named or (
        *list_methods(has_images),
        *(COMPETING_METHODS if competing and has_comprisk() else ()),
        *design.forecasts,
    )
    for name in chosen:
        if name not in known:
            raise DataError(describe_unknown("method", name, known))
        if name in IMAGE_METHODS and not has_images:
            raise DataError(f"The method {name!r} needs images, and there are none. Leave it out, or give `features`.")
    return {name: known[name] for name in chosen}


def _check_given(records: Sequence[Record], design: Design) -> None:
    if design.given and len(design.given) != len(design.seeds):
        raise DataError(
            f"Folds are given for {len(design.given)} seed(s), and there are {len(design.seeds)} seeds; give folds for "
            "each seed."
        )
    for folds in design.given:
        check_folds(records, folds)


def _check_events(outcome: Outcome) -> None:
    if not outcome.event.any():
        raise DataError(
            f"None of the {len(outcome)} patients has the event: there is nothing to predict. Check `event: seen` in "
            "clinical.yaml."
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
    horizons = design.horizons or schema.horizons_in_days or choose_horizons(outcome, find_last(outcome, folds))
    times = choose_times(outcome, folds, horizons)
    repeats = []
    for seed, split in zip(design.seeds, splits, strict=True):
        images = [features(seed, n, _reindex(fold, order)) if features else None for n, fold in enumerate(split)]
        repeats.append(CrossValidation(records, outcome, schema, split, images, seed, times, design.settings))
    return repeats


def _split(records: Sequence[Record], order: Sequence[int], design: Design, number: int) -> list[Fold]:
    """Draw the folds of a seed, or take the predefined ones; returns indices of the ordered records."""
    if design.given:
        rank = {row: new for new, row in enumerate(order)}
        folds = [_reindex(fold, rank) for fold in design.given[number]]
    else:
        folds = make_folds(records, design.folds, design.seeds[number])
    _check_training(records, folds)
    return folds


def _reindex(fold: Fold, rows: Mapping[int, int] | Sequence[int]) -> Fold:
    return Fold(*(tuple(sorted(rows[row] for row in side)) for side in (fold.train, fold.test)))


def _check_training(records: Sequence[Record], folds: Sequence[Fold]) -> None:
    """Check that the training patients of each fold have enough events."""
    least = min(sum(records[row].event == SEEN for row in fold.train) for fold in folds)
    if least < _LEAST_EVENTS:
        events = sum(record.event == SEEN for record in records)
        raise DataError(
            f"With {len(folds)} folds and {events} patients with the event, the training patients of a fold have only "
            f"{least} event(s); expected {_LEAST_EVENTS} or more. There are too few events for cross-validation."
        )


def _conclude(repeats: Sequence[CrossValidation], results: Mapping[str, Sequence[MethodResult]]) -> Study:
    ratio = float(np.mean([cv.ratio for cv in repeats]))
    patients = len(repeats[0].records)
    pooled = {
        name: [result.estimate(cv.folds, patients, ratio) for cv, result in zip(repeats, of_seeds, strict=True)]
        for name, of_seeds in results.items()
    }
    means = average_seeds({name: {s: [seed[s] for seed in seeds] for s in seeds[0]} for name, seeds in pooled.items()})
    methods, horizons = tuple(results), tuple(map(float, repeats[0].times.horizons))
    scores, differences = conclude(keep_overall_scores(means), methods[0])
    held_out = {
        name: [_gather(cv, result) for cv, result in zip(repeats, of_seeds, strict=True)]
        for name, of_seeds in results.items()
    }
    first = held_out[methods[0]][0]
    return Study(
        scores,
        differences,
        tuple(held for number in range(len(repeats)) for name in methods for held in results[name][number].held),
        horizons,
        merge_notes(note for of_seeds in results.values() for result in of_seeds for note in result.notes),
        methods,
        {name: calibrate(of_seeds, horizons, ratio) for name, of_seeds in held_out.items()},
        {horizon: group(first, index, horizon) for index, horizon in enumerate(horizons)},
        tuple(
            split_by_risk(cv.seed, result.held, cv.outcome.take(cv.held), horizons)
            for cv, result in zip(repeats, results[methods[0]], strict=True)
        ),
        curve_days=tuple(map(float, repeats[0].times.curve)),
        patients=len(repeats[0].held),
        events=int(repeats[0].outcome.take(repeats[0].held).event.sum()),
        at_horizons={name: list_horizon_scores(estimates, horizons) for name, estimates in means.items()},
        brier_days=(float(repeats[0].times.grid[0]), float(repeats[0].times.grid[-1])),
        decision_curves=measure_decision_curves(held_out, [float(horizon) for horizon in horizons]),
        chosen={name: tuple(seed.chosen for seed in seeds) for name, seeds in results.items() if seeds[0].chosen},
    )


def _gather(cv: CrossValidation, result: MethodResult) -> HeldOutSurvival:
    return HeldOutSurvival(
        cv.outcome.take(cv.held),
        np.array([held.survival for held in result.held]),
        np.array([held.fold for held in result.held]),
        np.argsort(np.argsort(cv.held)),
    )


def _leave_out(
    base: CrossValidation,
    methods: Mapping[str, Method],
    design: Design,
    order: Sequence[int],
) -> tuple[Centres | None, tuple[str, ...]]:
    """Leave each eligible centre out, if there are two or more; also returns notes on the other centres."""
    folds, notes = choose_centres(base.records, float(base.times.horizons[-1]))
    find_features = design.find_centre_features
    eligible = {
        name: method
        for name, method in methods.items()
        if name not in design.forecasts and (find_features is not None or name not in IMAGE_METHODS)
    }
    if len(folds) < _LEAST_CENTRES or not eligible:
        return None, notes
    images = [find_features(name, _reindex(fold, order)) if find_features else None for name, fold in folds.items()]
    return leave_centres_out(replace(base, folds=list(folds.values()), images=images), eligible), notes


def _list_notes(cv: CrossValidation, design: Design) -> list[str]:
    late = sum(record.entry > 0 for record in cv.records)
    notes = [f"{late} patient(s) with delayed entry. {LATE_ENTRY}"] if late else []
    competing = count_competing(cv.records)
    notes += [f"{competing} patient(s) with a competing event. {COMPETING}"] if competing else []
    if cv.schema.imputations and has_missing(cv.records, cv.schema):
        notes.append(f"Missing covariates are imputed {cv.schema.imputations} times in each training part. {IMPUTED}")
    not_held_out = len(cv.records) - len(cv.held)
    if not_held_out:
        notes.append(f"{not_held_out} patient(s) are not held out in any fold and have no prediction.")
    listed = ", ".join(f"{horizon:g}" for horizon in cv.times.horizons)
    if design.horizons and design.horizons != cv.schema.horizons_in_days:
        notes.append(
            f"The horizons are {listed} days (--horizons). Write them into clinical.yaml (`horizons:`, in the unit of "
            "`time`), so that survival is predicted at the horizons that were evaluated."
        )
    elif not cv.schema.horizons_in_days and tuple(cv.times.horizons) != choose_horizons(cv.outcome):
        notes.append(
            f"Not all horizons by the rule ({RULE}) lie within the follow-up of every fold; the horizons are {listed} "
            "days instead."
        )
    return notes
