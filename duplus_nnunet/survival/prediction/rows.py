"""Assembles the predictions for new patients as rows of a table, each with the warnings of the patient."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from duplus_nnunet.survival.evaluation.attribution import Effect
from duplus_nnunet.survival.evaluation.cross_validation import find_median
from duplus_nnunet.survival.evaluation.validation import NOT_FINITE, name_groups
from duplus_nnunet.survival.models.averaging import Average
from duplus_nnunet.survival.models.image_inputs import LESION_FOUND
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.models.patient_hashes import list_spellings
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.new_patients import NewPatients
from duplus_nnunet.survival.records.out_of_range import count_missing, find_out_of_range_values
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.table import Record


@dataclass(frozen=True)
class PatientPrediction:
    """Prediction for one patient.

    Attributes:
        patient: Patient ID.
        risk: Higher is worse; standard deviations above the mean of the training patients.
        survival: Event-free probability at each horizon.
        curve: Event-free probability at each day of the curve.
        median: Median survival in days; None if it is not reached by the end of follow-up.
        group: "high" or "low": risk above the cut-off from the training patients or not; empty without a cut-off, or
            for a risk that is no number.
        images: Cases that were used.
        missing: Number of missing covariates.
        warnings: Warnings for the reader, one sentence each.
        time: Observed time in days; NaN if the table does not give it.
        event: Observed event, as in a record; empty if it is not given.
        entry: Delayed entry in days; 0 if there is none.
    """

    patient: str
    risk: float
    survival: tuple[float, ...]
    curve: tuple[float, ...]
    median: float | None
    group: str
    images: tuple[str, ...]
    missing: int
    warnings: tuple[str, ...]
    time: float = math.nan
    event: str = ""
    entry: float = 0.0


@dataclass(frozen=True)
class ImageSummary:
    """Images of all patients.

    Attributes:
        tables: Features computed by the network of each fold; None: no images.
        cases: Cases that were read, by patient.
        warnings: Warnings of read and failed images, by patient.
    """

    tables: Sequence[FeatureTable | None]
    cases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class CohortPrediction:
    """Predictions for all patients.

    Attributes:
        patients: One for each patient.
        horizons: Days at which survival is reported.
        days: Days of the curves.
        notes: Remarks for the reader that concern all patients.
        failures: Reasons why images could not be used, by case.
        effects: Effect of each input on each risk; None: not requested.
        meanings: Meanings of numbers that differ from those of models with images, by column.
    """

    patients: tuple[PatientPrediction, ...]
    horizons: tuple[float, ...]
    days: tuple[float, ...]
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    effects: tuple[Effect, ...] | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)


def list_patient_predictions(
    models: Sequence[SurvivalModel],
    patients: NewPatients,
    images: ImageSummary,
    averages: Average,
    times: tuple[Numbers, Numbers],
) -> tuple[PatientPrediction, ...]:
    """Assemble a row for each patient.

    Args:
        models: One for each fold.
        patients: Records of the patients.
        images: Images of the patients.
        averages: Predictions averaged over folds, at the horizons followed by the days of the curves.
        times: Horizons, and days of the curves.
    """
    horizons, days = times
    rows = []
    for row, record in enumerate(patients.records):
        survival, curve = np.split(averages.survival[row], [len(horizons)])
        risk = float(averages.risk[row])
        odd = () if np.isfinite([risk, *survival]).all() else (NOT_FINITE,)
        rows.append(
            PatientPrediction(
                record.patient, risk, tuple(map(float, survival)), tuple(map(float, curve)), find_median(days, curve),
                name_groups(np.array([risk]), averages.cut)[0],
                images.cases.get(record.patient, ()), count_missing(record, models[0].schema),
                (*odd, *_list_warnings(models, record, patients, images)), record.time, record.event,
                record.entry,
            )
        )  # fmt: skip
    return tuple(rows)


def _list_warnings(
    models: Sequence[SurvivalModel], record: Record, patients: NewPatients, images: ImageSummary
) -> tuple[str, ...]:
    warnings = list(patients.warnings.get(record.patient, ()))
    if record.patient in patients.listed:
        warnings += find_out_of_range_values(record, [model.encoder for model in models])
    elif models[0].encoder.names:
        warnings.append("no record: predicted from images alone")
    warnings += _check_images(models[0], record.patient, images.tables[0])
    warnings += images.warnings.get(record.patient, ())
    spellings = {*list_spellings(record.patient)}
    folds = sum(not spellings.isdisjoint(model.patients) for model in models)
    if folds:
        warnings.append(f"trained on in {folds} of {len(models)} folds: not a prediction for a new patient")
    return tuple(dict.fromkeys(warnings))


def _check_images(model: SurvivalModel, patient: str, table: FeatureTable | None) -> list[str]:
    """Return warnings about contexts without an image or without a detected lesion."""
    contexts = () if model.code is None else model.code.modalities
    if table is None or patient not in table.rows:
        return ["no image: predicted from the record alone"] if contexts else []
    row, warnings = table.rows[patient], []
    for context in contexts:
        columns = [column for column, name in enumerate(table.contexts) if name == context]
        if not columns or np.isnan(row[columns]).all():
            warnings.append(f"no image of {context!r}")
        elif any(row[column] == 0 for column in columns if table.names[column].endswith(LESION_FOUND)):
            warnings.append(f"no lesion was found in {context!r}")
    return warnings
