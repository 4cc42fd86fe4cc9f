"""Fits the prognosis model, an ensemble of networks on records and image features, and predicts risk and survival.

Everything is fitted on the given training records: encoders, time bins, networks and baseline hazards.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from duplus_nnunet.errors import DataError, ModelError, PlansError, describe_unknown
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.models.competing_hazard import add_competing_hazard, fit_competing_hazard
from duplus_nnunet.survival.models.ensemble import EnsembleMember, make_network, train_members
from duplus_nnunet.survival.models.forecasts import Forecast
from duplus_nnunet.survival.models.image_inputs import ImageCode, fit_image_code
from duplus_nnunet.survival.models.losses import fit_loss, read_loss
from duplus_nnunet.survival.models.network import Inputs
from duplus_nnunet.survival.records.encoding import RecordEncoder, fit_encoder
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.horizons import choose_horizons
from duplus_nnunet.survival.records.outcome import Numbers, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import SEEN, Record

INPUT_KINDS = ("record", "image")
_FORMER_KINDS = {"ehr": "record"}  # its former name
_VERSION = 1
_LEAST_EVENTS = 2


@dataclass(frozen=True)
class SurvivalModel:
    """A fitted model.

    Attributes:
        schema: Schema of the training table.
        settings: Settings of the fit.
        encoder: Encoder of records.
        code: Encoder of image features; None: the model was fitted without images.
        members: The networks.
        patients: Training patients, sorted.
        risks: Predicted risks of the training patients, ascending, (N); their median is the cut-off of risk groups.
        follow_up: Longest time of a training patient, in days; survival beyond it is unknown.
        notes: Notes on the fit for the reader.
        horizons: Days at which survival is reported by default; empty in models of earlier versions.
        competing: Event-free probability of the training patients by Kaplan-Meier if competing events were the only
            ones, as pairs of days, ascending, and probability, (2, T); None: no competing events, or a model of an
            earlier version, which takes them for censored.
    """

    schema: ClinicalSchema
    settings: SurvivalSettings
    encoder: RecordEncoder
    code: ImageCode | None
    members: tuple[EnsembleMember, ...]
    patients: tuple[str, ...]
    risks: Numbers
    follow_up: float
    notes: tuple[str, ...]
    horizons: tuple[float, ...] = ()
    competing: Numbers | None = None

    def forecast(
        self,
        records: Sequence[Record],
        images: FeatureTable | None,
        times: Numbers,
        use: Collection[str] = INPUT_KINDS,
    ) -> Forecast:
        """Predict risk and survival of patients; with competing events, survival is 1 - cumulative incidence.

        Args:
            records: Records of N patients; their outcomes are not used.
            images: Image features by patient; None, or a patient without features: missing.
            times: Times at which survival is predicted, in days, (T).
            use: "record", "image" or both; the other one is treated as missing in all patients.

        Raises:
            ModelError: `use` is empty or has another value.
        """
        use = {_FORMER_KINDS.get(kind, kind) for kind in use}
        unknown = sorted(use - set(INPUT_KINDS))
        if unknown or not use:
            raise ModelError(describe_unknown("input", unknown[0] if unknown else "", INPUT_KINDS))
        inputs, notes = self.encode(records, images, use)
        risks, curves = [], []
        with torch.no_grad():
            for member in self.members:
                logits = member.network(inputs)
                risks.append(member.loss.predict_risk(logits).numpy())
                curves.append(self._predict_free(member, logits, times))
        return Forecast(np.mean(risks, axis=0), np.mean(curves, axis=0), (*notes, *self._note_times(times)))

    def _predict_free(self, member: EnsembleMember, logits: torch.Tensor, times: Numbers) -> Numbers:
        """Return the probability of being free of the event at each time, (N, T)."""
        if self.competing is None:
            return member.loss.predict_survival(logits, times)
        return add_competing_hazard(
            lambda moments: member.loss.predict_survival(logits, moments), self.competing, times
        )

    def encode(
        self, records: Sequence[Record], images: FeatureTable | None, use: Collection[str] = INPUT_KINDS
    ) -> tuple[Inputs, tuple[str, ...]]:
        """Return the network inputs of N patients, and notes for the reader."""
        count = len(records)
        ehr, notes = self.encoder.encode(records) if "record" in use else (self._encode_empty_records(count), [])
        if self.code is None:
            numbers = None
            if images is not None and "image" in use:
                notes.append("The model was fitted without images; the given images are not used.")
        else:
            table = images if "image" in use else None
            numbers, more = self.code.align(table, [record.patient for record in records])
            notes += more
            if table is None and "image" in use:
                notes.append("There are no images; all modalities are treated as missing.")
        raw = None if numbers is None else torch.from_numpy(numbers)
        return self.join(torch.from_numpy(ehr), raw), tuple(notes)

    def join(self, ehr: torch.Tensor, numbers: torch.Tensor | None) -> Inputs:
        """Join encoded records (N, P) and image features (N, I); differentiable with respect to the image features.

        The inputs are double precision: in single precision, equal patients would get slightly different risks.
        """
        if self.code is None or numbers is None:
            return Inputs(ehr.double(), torch.zeros(len(ehr), 0).double(), torch.zeros(len(ehr), 0, dtype=torch.bool))
        return Inputs(ehr.double(), *self.code.encode(numbers.double()))

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and tensors, which torch.load(weights_only=True) can load."""
        return {
            "version": _VERSION,
            "schema": self.schema.model_dump(mode="json", exclude_defaults=True),
            "settings": {**asdict(self.settings), "lesion_targets": list(self.settings.lesion_targets)},
            "encoder": self.encoder.to_plain(),
            "images": None if self.code is None else self.code.to_plain(),
            "members": [
                {"weights": dict(member.network.state_dict()), "loss": member.loss.to_plain()}
                for member in self.members
            ],
            "patients": list(self.patients),
            "risks": self.risks.tolist(),
            "follow_up": self.follow_up,
            "horizons": list(self.horizons),
            "notes": list(self.notes),
            "competing": None if self.competing is None else self.competing.tolist(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "SurvivalModel":
        """Restore a model from the result of `to_plain`.

        Raises:
            ModelError: The stored data are invalid, or of another version.
        """
        version = plain.get("version")
        if version != _VERSION:
            raise ModelError(
                f"A stored prognosis model has version {version!r}; expected {_VERSION}. Install the version of this "
                "package that wrote it, or fit it again."
            )
        try:
            settings = SurvivalSettings(**plain["settings"])
            encoder = RecordEncoder.from_plain(plain["encoder"])
            code = None if plain["images"] is None else ImageCode.from_plain(plain["images"])
            members = []
            for member in plain["members"]:
                loss = read_loss(member["loss"])
                network = make_network(encoder, code, torch.zeros(loss.outputs), settings)
                network.load_state_dict(member["weights"])
                members.append(EnsembleMember(network.eval(), loss))
            schema = ClinicalSchema.model_validate(plain["schema"])
            risks, follow_up = np.array(plain["risks"], np.float64), float(plain["follow_up"])
            patients, notes = tuple(plain["patients"]), tuple(plain["notes"])
            horizons = tuple(map(float, plain.get("horizons", ())))  # absent in models of earlier versions
            competing = plain.get("competing")  # absent in models of earlier versions
            if risks.shape != (len(patients),):
                raise ValueError(f"risks of shape {risks.shape}; expected ({len(patients)},)")
        except ModelError:
            raise
        except (AttributeError, KeyError, TypeError, RuntimeError, ValidationError, PlansError, ValueError) as error:
            raise ModelError(f"A stored prognosis model cannot be read ({error!r}). Fit it again.") from error
        return cls(
            schema,
            settings,
            encoder,
            code,
            tuple(members),
            patients,
            risks,
            follow_up,
            notes,
            horizons,
            None if competing is None else np.array(competing, np.float64),
        )

    def _encode_empty_records(self, count: int) -> NDArray[np.float32]:
        return np.tile(self.encoder.encode_empty_record(), (count, 1))

    def _note_times(self, times: Numbers) -> list[str]:
        late = [float(time) for time in np.atleast_1d(times) if time > self.follow_up]
        if not late:
            return []
        return [
            f"{late[-1]:g} days lie beyond the follow-up of the training patients, {self.follow_up:g} days; the "
            "survival at its end is reported there."
        ]


def fit_model(
    records: Sequence[Record],
    schema: ClinicalSchema,
    images: FeatureTable | None,
    settings: SurvivalSettings,
    seed: int,
) -> SurvivalModel:
    """Fit a model.

    Args:
        records: Training records only; the result does not depend on their order.
        schema: Types of the covariates.
        images: Image features by patient; only those of training patients are used. None: there are no images.
        settings: Settings of the fit.
        seed: Seed of inner folds, weights and dropout.

    Raises:
        DataError: There are too few events, no inputs, or a package that the loss needs is not installed.
    """
    records = sorted(records, key=lambda record: record.patient)
    events = sum(record.event == SEEN for record in records)
    if events < _LEAST_EVENTS:
        raise DataError(
            f"{events} of {len(records)} training patients have the event; expected {_LEAST_EVENTS} or more, one for "
            "training and one for early stopping. Use fewer, larger folds, or more patients."
        )
    encoder, outcome = fit_encoder(records, schema), read_outcome(records)
    patients = [record.patient for record in records]
    code, notes = (None, []) if images is None else fit_image_code(images, patients, settings.image_features)
    if not encoder.names and (code is None or not code.names):
        raise DataError(
            "The model has no inputs: the schema has no covariate, and there are no images. Add covariates to the "
            "schema, or images."
        )
    loss, loss_notes = fit_loss(settings.loss, outcome, settings.bins)
    follow_up = float(outcome.time.max())
    horizons = schema.horizons_in_days or choose_horizons(outcome)
    model = SurvivalModel(schema, settings, encoder, code, (), tuple(patients), np.zeros(0), follow_up, (), horizons)
    model = replace(model, competing=fit_competing_hazard(outcome))
    inputs, _ = model.encode(records, images)
    members, image_notes = train_members(
        records, inputs, loss, lambda base: make_network(encoder, code, base, settings), seed
    )
    model = replace(model, members=members, notes=(*notes, *loss_notes, *image_notes))
    return replace(model, risks=np.sort(model.forecast(records, images, np.array([follow_up])).risk))
