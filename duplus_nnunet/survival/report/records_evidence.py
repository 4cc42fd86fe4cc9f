"""Measures a records model when it is fitted: hazard ratios, apparent and cross-validated scores."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.cross_validation import AUC, BRIER, name_at
from duplus_nnunet.survival.evaluation.hazard_ratios import estimate_hazard_ratios
from duplus_nnunet.survival.evaluation.implausible import note_implausible
from duplus_nnunet.survival.evaluation.intervals import METHOD, Value
from duplus_nnunet.survival.evaluation.study import Design, Study, run_study
from duplus_nnunet.survival.evaluation.validation import (
    EXCESS,
    SLOPE,
    Predictions,
    Validation,
    choose_validation_times,
    name_groups,
    validate,
)
from duplus_nnunet.survival.models.methods import NULL
from duplus_nnunet.survival.models.records_model import RecordsModel
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.schema import DAYS, ClinicalSchema
from duplus_nnunet.survival.records.table import COMPETING, Record

APPARENT, CROSS_VALIDATED = "apparent", "cross-validated"


def predict_outcomes(
    model: RecordsModel, records: Sequence[Record], horizons: Sequence[float]
) -> tuple[Predictions, tuple[float, ...]]:
    """Predict patients with outcomes by a model.

    Returns:
        Predictions at those horizons that lie within the follow-up of model and patients, and the other horizons.

    Raises:
        DataError: There are too few events, or no horizon is left.
    """
    outcome = read_outcome(records)
    kept, grid, left_out = choose_validation_times(outcome, horizons, model.development.follow_up)
    forecast = model.forecast(records, np.concatenate([kept, grid]))
    at_horizons, on_grid = np.split(forecast.survival, [len(kept)], axis=1)
    patients = tuple(record.patient for record in records)
    groups = name_groups(forecast.risk, model.cut)
    return Predictions(outcome, patients, forecast.risk, kept, at_horizons, grid, on_grid, groups), left_out


def gather_evidence(
    model: RecordsModel, records: Sequence[Record], folds: int, seeds: int, chosen_by: str = ""
) -> dict[str, Any]:
    """Measure a fitted model in its own patients, and the method by cross-validation.

    Args:
        model: Fitted to all records.
        records: Its training patients.
        folds: Number of folds.
        seeds: Number of repetitions; 0: no cross-validation.
        chosen_by: Name of the method that chose the model's among others, and is cross-validated instead of it.
    """
    method = chosen_by or model.method
    predictions, _ = predict_outcomes(model, records, model.horizons)
    performance = {APPARENT: list_validation(validate(model.method, predictions, 0))}
    how = {APPARENT: "The patients that the model was fitted to: too good, and without intervals."}
    notes: list[str] = []
    if seeds:
        methods = tuple(dict.fromkeys((method, NULL)))
        design = Design(folds, tuple(range(seeds)), (), methods)
        unit = 1.0 if model.schema.time.column is None else DAYS[model.schema.time.unit]
        schema = model.schema.model_copy(update={"horizons": [horizon / unit for horizon in model.horizons]})
        try:
            study = run_study(records, schema, design)
        except DataError as error:
            notes.append(f"Not cross-validated: {error}")
        else:
            performance[CROSS_VALIDATED] = list_study(study, method, model.horizons)
            how[CROSS_VALIDATED] = (
                f"Held-out patients of {folds} folds, {seeds} seed(s), by models that were fitted to the other folds; "
                f"intervals by the {METHOD}."
            )
            if chosen_by:
                counts = Counter(name for names in study.chosen[method] for name in names).most_common()
                listed = ", ".join(f"{name} {count}" for name, count in counts)
                how[CROSS_VALIDATED] += f" In each fold the method was chosen again ({listed})."
            said = (*note_implausible(study, records, model.schema), *study.notes)
            explained = any(COMPETING in note for note in model.notes)
            notes += [note for note in said if note not in model.notes and not (explained and COMPETING in note)]
    else:
        notes.append(
            "Not cross-validated, as it was not asked for: how well the model predicts new patients is unknown."
        )
    return {
        "hazard_ratios": list_ratios(records, model.schema),
        "performance": performance,
        "measured_in": how,
        "notes": notes,
    }


def list_validation(validation: Validation) -> dict[str, Any]:
    """Return all scores of a validation as plain data, by name."""
    listed = dict(validation.scores)
    for horizon, values in zip(validation.predictions.horizons, validation.at_horizons, strict=True):
        listed |= {name_at(score, horizon): value for score, value in values.items()}
    return {name: convert_value(value) for name, value in listed.items()}


def list_study(study: Study, method: str, horizons: Sequence[float]) -> dict[str, Any]:
    """Return the scores of a method as plain data, by the names of `list_validation`."""
    listed: dict[str, Value] = dict(study.scores[method])
    rows = zip(horizons, study.at_horizons[method], study.calibration[method], strict=True)
    for horizon, scores, calibration in rows:
        listed |= {name_at(AUC, horizon): scores.auc, name_at(BRIER, horizon): scores.brier}
        listed |= {name_at(EXCESS, horizon): calibration.excess, name_at(SLOPE, horizon): calibration.slope}
    return {name: convert_value(value) for name, value in listed.items()}


def convert_value(value: Value) -> dict[str, Any]:
    """Return a value and its interval; None instead of NaN, which JSON lacks."""
    return {"value": None if math.isnan(value.value) else value.value, "interval": value.interval}


def read_value(plain: Mapping[str, Any]) -> Value:
    """Restore a value from the result of `convert_value`."""
    value, interval = plain["value"], plain["interval"]
    return Value(math.nan if value is None else float(value), None if interval is None else (interval[0], interval[1]))


def list_ratios(records: Sequence[Record], schema: ClinicalSchema) -> dict[str, Any]:
    """Return hazard ratios of a Cox model without a penalty, or the reason why they are not estimated."""
    try:
        ratios = estimate_hazard_ratios(records, schema)
    except DataError as error:
        return {"ratios": [], "reason": str(error)}
    rows = [[ratio.name, ratio.per, *(None if math.isnan(value) else value for value in
             (ratio.ratio, ratio.low, ratio.high))] for ratio in ratios]  # fmt: skip
    return {"ratios": rows, "reason": ""}
