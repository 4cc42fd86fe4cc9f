"""What is foretold of new patients: in come averages and what is known of each, out come rows for tables.

Whatever a reader must know of a patient stands in the patient's own row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from duplus_nnunet.survival.evaluation.attribution import Effect
from duplus_nnunet.survival.evaluation.cross_validation import HIGH, LOW, find_median
from duplus_nnunet.survival.models.averaging import Average
from duplus_nnunet.survival.models.image_inputs import LESION_FOUND
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.new_patients import NewPatients
from duplus_nnunet.survival.records.out_of_range import count_missing, find_out_of_range_values
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.table import Record


@dataclass(frozen=True)
class PatientPrediction:
    """What is foretold of one patient.

    Attributes:
        patient: Who it is.
        risk: Higher is worse; standard deviations above the mean of the training patients.
        survival: Probability to be free of the event at each horizon.
        curve: The same at each day of the curves.
        median: Days by which it has fallen to one half; None if it has not by the end of follow-up.
        group: HIGH or LOW, as the risk lies above the training patients' cut or not; empty without a cut.
        images: Cases that were used.
        missing: Number of covariates that are not known.
        warnings: What a reader has to know, a sentence each.
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


@dataclass(frozen=True)
class ImageSummary:
    """What is known of the images.

    Attributes:
        tables: Features as each fold's network sees them; None: there are none.
        cases: Cases that were read, by patient.
        warnings: Of images and of those that failed, by patient.
    """

    tables: Sequence[FeatureTable | None]
    cases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class CohortPrediction:
    """What is foretold of all.

    Attributes:
        patients: One each.
        horizons: In days.
        days: Of the curves.
        notes: What a reader has to know of all.
        failures: Why images could not be used, by case.
        effects: What each input did to each risk; None: it was not asked for.
    """

    patients: tuple[PatientPrediction, ...]
    horizons: tuple[float, ...]
    days: tuple[float, ...]
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    effects: tuple[Effect, ...] | None = None


def list_patient_predictions(
    models: Sequence[SurvivalModel],
    patients: NewPatients,
    seen: ImageSummary,
    found: Average,
    times: tuple[Numbers, Numbers],
) -> tuple[PatientPrediction, ...]:
    """Make a row of each patient.

    Args:
        models: One a fold.
        patients: Whose records.
        seen: Whose images.
        found: What was foretold, at horizons and then at the days of curves.
        times: Those.
    """
    horizons, days = times
    rows = []
    for row, record in enumerate(patients.records):
        survival, curve = np.split(found.survival[row], [len(horizons)])
        risk = float(found.risk[row])
        rows.append(
            PatientPrediction(
                record.patient, risk, tuple(map(float, survival)), tuple(map(float, curve)), find_median(days, curve),
                "" if found.cut is None else HIGH if risk > found.cut else LOW,
                seen.cases.get(record.patient, ()), count_missing(record, models[0].schema),
                _list_warnings(models, record, patients, seen),
            )
        )  # fmt: skip
    return tuple(rows)


def _list_warnings(
    models: Sequence[SurvivalModel], record: Record, patients: NewPatients, seen: ImageSummary
) -> tuple[str, ...]:
    found = list(patients.warnings.get(record.patient, ()))
    if record.patient in patients.listed:
        found += find_out_of_range_values(record, [model.encoder for model in models])
    elif models[0].encoder.names:
        found.append("no record: images alone")
    found += _judge_images(models[0], record.patient, seen.tables[0])
    found += seen.warnings.get(record.patient, ())
    folds = sum(record.patient in model.patients for model in models)
    if folds:
        found.append(f"trained on in {folds} of {len(models)} folds: this is no prediction of a new patient")
    return tuple(dict.fromkeys(found))


def _judge_images(model: SurvivalModel, patient: str, table: FeatureTable | None) -> list[str]:
    """Say which contexts are missing of a patient, and in which no lesion was found."""
    contexts = () if model.code is None else model.code.modalities
    if table is None or patient not in table.rows:
        return ["no image: the record alone"] if contexts else []
    row, found = table.rows[patient], []
    for context in contexts:
        own = [place for place, name in enumerate(table.contexts) if name == context]
        if not own or np.isnan(row[own]).all():
            found.append(f"no image of {context!r}")
        elif any(row[place] == 0 for place in own if table.names[place].endswith(LESION_FOUND)):
            found.append(f"no lesion was found in {context!r}")
    return found
