"""A fitted model of clinical records that can be saved: it predicts new patients without the training records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duplus_nnunet.errors import DataError, ModelError, describe_unknown
from duplus_nnunet.survival.models.competing import count_competing
from duplus_nnunet.survival.models.forecasts import Forecast, Task
from duplus_nnunet.survival.models.imputed import needs_imputation
from duplus_nnunet.survival.models.methods import COMPETING_METHODS, IMAGE_METHODS, METHODS, forecast
from duplus_nnunet.survival.models.patient_hashes import find_hashed, hash_patients
from duplus_nnunet.survival.models.predictors import Predictor
from duplus_nnunet.survival.models.recalibration import Recalibration
from duplus_nnunet.survival.records.encoding import RecordEncoder, fit_encoder
from duplus_nnunet.survival.records.horizons import choose_horizons
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import LATE_ENTRY, SEEN, Record

RECORD_METHODS = tuple(name for name in METHODS if name not in IMAGE_METHODS)
# Largest difference between saved predictions and those of the method in memory.
CLOSEST = 1e-6
_CURVE = 101


@dataclass(frozen=True)
class Development:
    """The patients that a model was fitted to.

    Attributes:
        name: Name of their table or dataset.
        patients: Number of patients.
        events: Number of those with the event.
        competing: Number of those with a competing event.
        parameters: Number of encoded parameters, after rare categories were pooled.
        follow_up: Longest follow-up in days.
        ranges: Lowest and highest known value of each numeric covariate.
        salt: Random text, hexadecimal, put before patient IDs when they are hashed.
        hashes: SHA-256 of each patient ID after the salt.
    """

    name: str
    patients: int
    events: int
    competing: int
    parameters: int
    follow_up: float
    ranges: Mapping[str, tuple[float, float]]
    salt: str = ""
    hashes: frozenset[str] = frozenset()

    def find_known(self, patients: Sequence[str]) -> tuple[str, ...]:
        """Return the patients whose ID is one of the development patients' IDs, with other zeros or case, too."""
        return find_hashed(patients, self.salt, self.hashes)


@dataclass(frozen=True)
class RecordsModel:
    """A fitted model of clinical records.

    Attributes:
        method: Name of the method.
        schema: Meaning of the columns of the training table.
        encoder: Encoding of the covariates.
        predictor: Model of the encoded records.
        horizons: Days at which survival is evaluated and predicted, ascending.
        cut: Cut-off of the high-risk group; a higher risk is high. None if all training risks are equal.
        development: The training patients.
        recalibrations: Recalibrations, applied one after another.
        notes: Remarks on the fit for the reader.
        evidence: What was measured when it was fitted, as plain data for its card.
    """

    method: str
    schema: ClinicalSchema
    encoder: RecordEncoder
    predictor: Predictor
    horizons: tuple[float, ...]
    cut: float | None
    development: Development
    recalibrations: tuple[Recalibration, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def forecast(self, records: Sequence[Record], times: Numbers) -> Forecast:
        """Predict N patients, whose outcomes are not used, at times in days, (T)."""
        encoded, notes = self.encoder.encode(records)
        survival = self.predict_survival(encoded.astype(np.float64), np.asarray(times, np.float64))
        return Forecast(self.predictor.predict_risk(encoded.astype(np.float64)), survival, tuple(notes), self.cut)

    def find_recalibrated(self, patients: Sequence[str]) -> tuple[str, ...]:
        """Return the patients in whom the model was recalibrated, as far as their IDs tell."""
        found = {name for one in self.recalibrations for name in find_hashed(patients, one.salt, one.hashes)}
        return tuple(name for name in patients if name in found)

    def predict_survival(self, encoded: Numbers, times: Numbers) -> Numbers:
        """Return the recalibrated survival of encoded records (N, P), (N, T)."""
        horizons = [recalibration.horizon for recalibration in self.recalibrations]
        survival = self.predictor.predict_survival(encoded, np.concatenate([times, horizons]))
        for number, recalibration in enumerate(self.recalibrations):
            survival = recalibration.apply(survival, survival[:, len(times) + number])
        return np.asarray(survival[:, : len(times)])

    def choose_curve(self) -> Numbers:
        """Return the days of survival curves, from 0 to the end of follow-up."""
        return np.linspace(0, self.development.follow_up, _CURVE)


def fit_records_model(
    name: str, method: str, records: Sequence[Record], schema: ClinicalSchema, seed: int = 0
) -> RecordsModel:
    """Fit a method to all records.

    Args:
        name: Name of their table or dataset.
        method: One of RECORD_METHODS.
        records: One for each patient, with outcomes.
        schema: Meaning of the columns.
        seed: Seed of the fit.

    Raises:
        DataError: The method is unknown or cannot be saved, or it cannot be fitted.
        ModelError: The model to be saved predicts something else than the method.
    """
    if method in COMPETING_METHODS:
        listed = ", ".join(RECORD_METHODS)
        raise DataError(f"A {method} model cannot be saved. Choose one of these (--method): {listed}.")
    if method not in RECORD_METHODS:
        raise DataError(describe_unknown("method for records", method, RECORD_METHODS))
    ordered = sorted(records, key=lambda record: record.patient)
    outcome = read_outcome(ordered)
    follow_up, horizons = float(outcome.time.max()), _choose_horizons(outcome, schema)
    times = np.array([*horizons, follow_up])
    task = Task(ordered, ordered, schema, times, seed)
    if needs_imputation(task):
        raise DataError(
            f"The schema asks for {schema.imputations} imputations, and covariates are missing; models of several "
            "imputations cannot be saved. Set `imputations: 0` for a model that marks missing values by indicators."
        )
    result = forecast(method, task)
    if result.fitted is None:
        raise DataError(f"A model by the method {method!r} cannot be saved yet. Choose another one (--method).")
    encoder = fit_encoder(ordered, schema)
    development = describe_development(name, ordered, encoder, follow_up)
    late = sum(record.entry > 0 for record in ordered)
    notes = [f"{late} patient(s) with delayed entry. {LATE_ENTRY}", *result.notes] if late else result.notes
    model = RecordsModel(
        method, schema, encoder, result.fitted(), horizons, result.cut, development, notes=tuple(notes)
    )
    _check_equal(model, result, ordered, times)
    return model


def _choose_horizons(outcome: Outcome, schema: ClinicalSchema) -> tuple[float, ...]:
    """Return the horizons of the schema, or those chosen from the outcomes, in days."""
    if not outcome.event.any():
        raise DataError(f"None of the {len(outcome)} patients has the event: there is nothing to fit.")
    last = float(outcome.time.max())
    late = [horizon for horizon in schema.horizons_in_days if horizon >= last]
    if late:
        raise DataError(
            f"The horizon of {late[0]:g} days (`horizons` of the schema) is not before the end of follow-up, {last:g} "
            "days. Remove it, or choose an earlier one."
        )
    return schema.horizons_in_days or choose_horizons(outcome, last)


def describe_development(name: str, records: Sequence[Record], encoder: RecordEncoder, follow_up: float) -> Development:
    """Describe the patients that a model is fitted to; their IDs are kept as salted hashes."""
    salt, hashes = hash_patients(record.patient for record in records)
    ranges = {}
    for column in encoder.columns:
        known = [float(value) for record in records if isinstance(value := record.values[column.name], (int, float))]
        if column.type == "numeric" and known:
            ranges[column.name] = (min(known), max(known))
    return Development(
        name,
        len(records),
        sum(record.event == SEEN for record in records),
        count_competing(records),
        len(encoder.names),
        follow_up,
        ranges,
        salt,
        hashes,
    )


def _check_equal(model: RecordsModel, result: Forecast, records: Sequence[Record], times: Numbers) -> None:
    """Check that a model predicts for its training patients what the method predicted when it was fitted."""
    own = model.forecast(records, times)
    scale = max(1.0, float(np.abs(result.risk).max()))
    largest = max(
        float(np.abs(own.risk - result.risk).max()) / scale, float(np.abs(own.survival - result.survival).max())
    )
    if not largest <= CLOSEST:
        raise ModelError(
            f"The model of the method {model.method!r} to be saved differs by {largest:.2g} from the fitted one, "
            f"expected {CLOSEST:g} or less. It is not saved; report this as an error of the package."
        )
