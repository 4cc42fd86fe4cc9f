"""Predicts new patients by a saved model of clinical records, from a table alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import require_writable
from duplus_nnunet.locks import hold
from duplus_nnunet.outputs.manifest import hash_file, list_versions
from duplus_nnunet.survival.evaluation.cross_validation import find_median
from duplus_nnunet.survival.evaluation.validation import NOT_FINITE, name_groups
from duplus_nnunet.survival.models.forecasts import merge_notes
from duplus_nnunet.survival.models.records_model import RecordsModel
from duplus_nnunet.survival.models.records_model_files import MODEL_NAME, read_records_model
from duplus_nnunet.survival.prediction.files import write_prediction
from duplus_nnunet.survival.prediction.rows import CohortPrediction, PatientPrediction
from duplus_nnunet.survival.records.new_patients import NewPatients, read_new_patients
from duplus_nnunet.survival.records.other_tables import read_other_table
from duplus_nnunet.survival.records.out_of_range import count_missing
from duplus_nnunet.survival.records.schema import ROW_NUMBER
from duplus_nnunet.survival.records.unlike_values import find_unlike_values, require_same_units

_RISKS = {
    "proportional hazards": "the linear predictor of a Cox model, a log relative hazard",
    "random survival forest": "the cumulative hazard, summed over the event times of training, mean over trees",
    "average": "the cumulative hazard at the end of follow-up, mean over networks",
    "competing": "the mean cumulative incidence of the event over the follow-up of training",
    "curve": "0 for all patients",
}


@dataclass(frozen=True)
class RecordsAnswer:
    """Result of a prediction.

    Attributes:
        prediction: Predictions for all patients.
        files: Files written.
    """

    prediction: CohortPrediction
    files: tuple[Path, ...]


def predict_records(folder: Path, table: Path, output: Path, horizons: Sequence[float] = ()) -> RecordsAnswer:
    """Predict the patients of a table and write the predictions.

    Args:
        folder: Folder of a saved records model.
        table: Clinical table; outcomes are not needed, and are copied into the predictions where they are given.
        output: Output folder.
        horizons: Days at which survival is reported; empty: those of the model.

    Raises:
        DataError: The table does not fit the model, a column has another unit, a horizon is not within the follow-up,
            or the output cannot be written.
        ModelError: The model cannot be read.
    """
    if output.exists() and not output.is_dir():
        raise DataError(f"The output {output} is a file; expected a folder (-o).")
    require_writable(output)
    model = read_records_model(folder)
    chosen = choose_horizons_within(model, horizons)
    other = read_other_table(table, model.schema)
    patients = read_new_patients(other.rows, other.schema, (), other.notes)
    require_same_units(patients.records, model.encoder, model.development.ranges)
    prediction = _predict(model, patients, chosen)
    with hold(output, "predicting into", "Wait until it ends, or choose another folder with -o."):
        files = write_prediction(prediction, _describe(model, folder), output)
    return RecordsAnswer(prediction, tuple(files))


def choose_horizons_within(model: RecordsModel, requested: Sequence[float]) -> tuple[float, ...]:
    """Return the requested horizons in days, ascending, or else those of the model.

    Raises:
        DataError: One is not above 0, or lies beyond the follow-up of the development.
    """
    last = model.development.follow_up
    if not requested:
        return model.horizons
    wrong = [horizon for horizon in requested if not 0 < horizon <= last]
    if wrong:
        raise DataError(
            f"The horizon of {wrong[0]:g} days is not within the follow-up of the patients that the model was fitted "
            f"to, above 0 and up to {last:g} days. Choose other horizons (--horizons)."
        )
    return tuple(sorted(set(map(float, requested))))


def _predict(model: RecordsModel, patients: NewPatients, horizons: tuple[float, ...]) -> CohortPrediction:
    days = model.choose_curve()
    forecast = model.forecast(patients.records, np.concatenate([horizons, days]))
    groups = name_groups(forecast.risk, model.cut)
    numbered = ROW_NUMBER in (model.schema.patient, patients.column)  # row numbers are no patient IDs
    names = [] if numbered else [record.patient for record in patients.records]
    known, recalibrated = model.development.find_known(names), model.find_recalibrated(names)
    rows = []
    for row, record in enumerate(patients.records):
        survival, curve = np.split(forecast.survival[row], [len(horizons)])
        warnings = [*patients.warnings.get(record.patient, ())]
        warnings += find_unlike_values(record, model.encoder, model.development.ranges)
        if record.patient in known:
            warnings.append("the model was fitted to a patient of this ID: not a prediction for a new patient")
        if record.patient in recalibrated:
            warnings.append("the model was recalibrated in a patient of this ID: not a prediction for a new patient")
        if not np.isfinite([forecast.risk[row], *forecast.survival[row]]).all():
            warnings.append(NOT_FINITE)
        rows.append(
            PatientPrediction(
                record.patient, float(forecast.risk[row]), tuple(map(float, survival)), tuple(map(float, curve)),
                find_median(days, curve), groups[row], (), count_missing(record, model.schema),
                tuple(dict.fromkeys(warnings)), record.time, record.event,
                record.entry,
            )
        )  # fmt: skip
    endpoint = [f"The endpoint is {model.schema.endpoint!r}."] if model.schema.endpoint else []
    notes = merge_notes((*endpoint, *patients.notes, *forecast.notes, *describe_recalibrations(model)))
    meanings = {
        "risk": f"higher is worse: {_RISKS.get(model.predictor.kind, 'of the method')}; a recalibration does not "
        "change it",
        "survival": "event-free probability, 0 to 1; lower is worse",
        "risk group": "high: above the median risk of the patients that the model was fitted to",
    }
    return CohortPrediction(tuple(rows), horizons, tuple(map(float, days)), notes, meanings=meanings)


def describe_recalibrations(model: RecordsModel) -> tuple[str, ...]:
    """Return a sentence for each recalibration of a model."""
    return tuple(
        f"The model was recalibrated ({one.kind}) on {one.name}: {one.patients} patients, {one.events} with the event "
        f"within {one.horizon:g} days."
        for one in model.recalibrations
    )


def _describe(model: RecordsModel, folder: Path) -> dict[str, Any]:
    return {
        "model": folder.resolve().name,
        "method": model.method,
        "endpoint": model.schema.endpoint,
        "sha256": hash_file(folder / MODEL_NAME),
        "fitted_to": model.development.patients,
        "versions": list_versions(),
        "follow_up_days": model.development.follow_up,
        "notes_of_the_training": list(model.notes),
    }
