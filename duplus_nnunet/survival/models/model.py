"""A prognosis model: fitted on training records and their image features, it foretells risks and survival.

It is an ensemble: every network stops by another inner part of the training patients, and risks and curves are
averaged. Whatever is fitted - encoder, image code, bins, networks, baselines - is fitted on the records given, which
have to be those of a training fold.
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
from duplus_nnunet.survival.models.ensemble import EnsembleMember, make_network, train_members
from duplus_nnunet.survival.models.forecasts import Forecast
from duplus_nnunet.survival.models.image_inputs import ImageCode, fit_image_code
from duplus_nnunet.survival.models.losses import fit_loss, read_loss
from duplus_nnunet.survival.models.network import Inputs
from duplus_nnunet.survival.records.encoding import RecordEncoder, fit_encoder
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import SEEN, Record

USES = ("ehr", "image")
_VERSION = 1
_LEAST_EVENTS = 2


@dataclass(frozen=True)
class SurvivalModel:
    """A fitted model.

    Attributes:
        schema: Of the clinical table that it was fitted on.
        settings: How it was fitted.
        encoder: Turns records into numbers.
        code: Turns image features into numbers; None: it was fitted without images.
        members: Its networks.
        patients: Those that it was fitted on, sorted.
        risks: Their risks, ascending, (N); risk groups are cut by them.
        follow_up: Longest time that one of them was followed, in days; nothing is known beyond.
        notes: What a reader has to know of the fit.
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

    def forecast(
        self,
        records: Sequence[Record],
        images: FeatureTable | None,
        times: Numbers,
        use: Collection[str] = USES,
    ) -> Forecast:
        """Foretell patients; their outcomes are not looked at.

        Args:
            records: N patients; values that are missing count as not known.
            images: Their image features, by patient; None, or without a patient: not imaged.
            times: When survival is asked for, in days, (T).
            use: "ehr", "image" or both; what is left out counts as missing in everybody.

        Raises:
            ModelError: `use` is empty or names something else.
        """
        strange = sorted(set(use) - set(USES))
        if strange or not use:
            raise ModelError(describe_unknown("input", strange[0] if strange else "", USES))
        given, notes = self.encode(records, images, use)
        risks, curves = [], []
        with torch.no_grad():
            for member in self.members:
                logits = member.network(given)
                risks.append(member.loss.predict_risk(logits).numpy())
                curves.append(member.loss.predict_survival(logits, times))
        return Forecast(np.mean(risks, axis=0), np.mean(curves, axis=0), (*notes, *self._note_times(times)))

    def encode(
        self, records: Sequence[Record], images: FeatureTable | None, use: Collection[str] = USES
    ) -> tuple[Inputs, tuple[str, ...]]:
        """Return what the networks see of N patients, and what a reader has to know."""
        count = len(records)
        ehr, notes = self.encoder.encode(records) if "ehr" in use else (self._hide_records(count), [])
        if self.code is None:
            numbers = None
            if images is not None and "image" in use:
                notes.append("The model was fitted without images, and does not use those given.")
        else:
            table = images if "image" in use else None
            numbers, more = self.code.align(table, [record.patient for record in records])
            notes += more
            notes += ["No images are used."] if table is None and "image" in use else []
        raw = None if numbers is None else torch.from_numpy(numbers)
        return self.join(torch.from_numpy(ehr), raw), tuple(notes)

    def join(self, ehr: torch.Tensor, numbers: torch.Tensor | None) -> Inputs:
        """Join encoded records (N, P) and image features (N, I), of which it is differentiable.

        All is computed in double precision: in single, equal patients would get risks that are not quite equal.
        """
        if self.code is None or numbers is None:
            return Inputs(ehr.double(), torch.zeros(len(ehr), 0).double(), torch.zeros(len(ehr), 0, dtype=torch.bool))
        return Inputs(ehr.double(), *self.code.encode(numbers.double()))

    def predict_risk(self, records: Sequence[Record], numbers: torch.Tensor | None) -> torch.Tensor:
        """Return risks (N), higher is worse, differentiable with respect to image features (N, I) in its order."""
        given = self.join(torch.from_numpy(self.encoder.encode(records)[0]), numbers)
        return torch.stack([member.loss.predict_risk(member.network(given)) for member in self.members]).mean(0)

    def measure_loss(self, records: Sequence[Record], numbers: torch.Tensor | None) -> torch.Tensor:
        """Return the loss, a mean over networks, differentiable with respect to image features (N, I) in its order."""
        given = self.join(torch.from_numpy(self.encoder.encode(records)[0]), numbers)
        outcome = read_outcome(records)
        losses = [
            member.loss.compute(member.network(given), member.loss.make_targets(outcome)) for member in self.members
        ]
        return torch.stack(losses).mean()

    def find_cuts(self, groups: int = 2) -> Numbers:
        """Return the risks that part the training patients into groups of equal size, ascending, (groups - 1)."""
        return np.asarray(np.quantile(self.risks, np.arange(1, groups) / groups), np.float64)

    def find_groups(self, risk: Numbers, groups: int = 2) -> NDArray[np.int64]:
        """Return the risk group of each patient, 0 (lowest) to groups - 1, by cuts of the training patients' risks."""
        return np.searchsorted(self.find_cuts(groups), risk, side="left").astype(np.int64)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and tensors, which torch.load(weights_only=True) takes."""
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
            "notes": list(self.notes),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "SurvivalModel":
        """Read what `to_plain` gave.

        Raises:
            ModelError: It is not of that form, or of a newer version.
        """
        version = plain.get("version")
        if version != _VERSION:
            raise ModelError(f"A stored prognosis model is of version {version!r}; this package reads {_VERSION}.")
        try:
            settings = SurvivalSettings(**plain["settings"])
            encoder = RecordEncoder.from_plain(plain["encoder"])
            code = None if plain["images"] is None else ImageCode.from_plain(plain["images"])
            members = []
            for one in plain["members"]:
                loss = read_loss(one["loss"])
                network = make_network(encoder, code, torch.zeros(loss.outputs), settings)
                network.load_state_dict(one["weights"])
                members.append(EnsembleMember(network.eval(), loss))
            schema = ClinicalSchema.model_validate(plain["schema"])
            risks, follow_up = np.array(plain["risks"], np.float64), float(plain["follow_up"])
            patients, notes = tuple(plain["patients"]), tuple(plain["notes"])
            if risks.shape != (len(patients),):
                raise ValueError(f"risks of shape {risks.shape} of {len(patients)} patients")
        except ModelError:
            raise
        except (AttributeError, KeyError, TypeError, RuntimeError, ValidationError, PlansError, ValueError) as error:
            raise ModelError(f"A stored prognosis model cannot be read ({error!r}). Fit it again.") from error
        return cls(schema, settings, encoder, code, tuple(members), patients, risks, follow_up, notes)

    def _hide_records(self, count: int) -> NDArray[np.float32]:
        return np.tile(self.encoder.encode_empty_record(), (count, 1))

    def _note_times(self, times: Numbers) -> list[str]:
        late = [float(time) for time in np.atleast_1d(times) if time > self.follow_up]
        if not late:
            return []
        return [
            f"{late[-1]:g} days lie beyond the follow-up of the training patients, {self.follow_up:g} days; survival "
            "there is that at its end."
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
        records: Those of a training fold, and no others; their order changes nothing.
        schema: Types of covariates.
        images: Image features by patient, of which only those of the training patients are looked at; None: none.
        settings: How.
        seed: Of folds, weights and all that is drawn.

    Raises:
        DataError: There are too few events, nothing to learn from, or a package that the loss needs is missing.
    """
    records = sorted(records, key=lambda record: record.patient)
    events = sum(record.event == SEEN for record in records)
    if events < _LEAST_EVENTS:
        raise DataError(
            f"{events} of {len(records)} training patients have the event; expected {_LEAST_EVENTS} or more, one to "
            "learn from and one to say when to stop. Use larger folds or more patients."
        )
    encoder, outcome = fit_encoder(records, schema), read_outcome(records)
    patients = [record.patient for record in records]
    code, notes = (None, []) if images is None else fit_image_code(images, patients, settings.image_features)
    if not encoder.names and (code is None or not code.names):
        raise DataError(
            "There is nothing to learn from: no covariate of the schema has values, and there are no images."
        )
    loss, more = fit_loss(settings.loss, outcome, settings.bins)
    follow_up = float(outcome.time.max())
    model = SurvivalModel(schema, settings, encoder, code, (), tuple(patients), np.zeros(0), follow_up, ())
    given, _ = model.encode(records, images)
    members, gained = train_members(
        records, given, loss, lambda base: make_network(encoder, code, base, settings), seed
    )
    model = replace(model, members=members, notes=(*notes, *more, *gained))
    return replace(model, risks=np.sort(model.forecast(records, images, np.array([follow_up])).risk))
