"""Writes and loads checkpoints of DuPLUSSurvivalTrainer: nnU-Net's format with the base's weights and a survival model.

nnU-Net's predictor reads the weights and segments like the base. The survival model is stored under one extra key, in
plain types and tensors, so that the checkpoint loads with weights_only=True.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.networks import ConditionedUNet, unwrap
from duplus_nnunet.networks.adaptation import name_in_base, put_adapter, take_adapter
from duplus_nnunet.settings import PRETRAINED
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record
from duplus_nnunet.survival.training.lora import ADAPTER
from duplus_nnunet.survival.training.scratch import BestEpoch
from duplus_nnunet.trainers.checkpoint import SURVIVAL_KEY, make_plain, require_embedding
from duplus_nnunet.trainers.resuming import report_changes
from duplus_nnunet.trainers.training_cases import CASES_KEY, TrainingCases, find_training_cases, parse_base

VERSION = 1
# Image features of the patients of a fold, beside its checkpoint: of the base model and of the LoRA.
TABLE_NAME, LORA_TABLE_NAME = "survival_table.npz", "survival_table_lora.npz"
_UNKNOWN = (
    "The training was continued from a checkpoint of an earlier version without a record of the outcomes: whether they "
    "have changed since was not checked."
)


def make_checkpoint(trainer: Any) -> dict[str, Any]:
    """Return the checkpoint of a DuPLUSSurvivalTrainer in plain types and tensors."""
    weights = unwrap(trainer.network).state_dict()
    scaler = trainer.grad_scaler
    content: dict[str, Any] = make_plain({
        "network_weights": {name_in_base(name): value for name, value in weights.items() if name_in_base(name)},
        "optimizer_state": trainer.optimizer.state_dict() if trainer.model is None else {},
        "grad_scaler_state": None if scaler is None else scaler.state_dict(),
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": trainer.current_epoch + 1,
        "init_args": trainer.my_init_kwargs,
        "trainer_name": type(trainer).__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        CASES_KEY: None if trainer.training_cases is None else asdict(trainer.training_cases),
        SURVIVAL_KEY: _describe(trainer),
    })  # fmt: skip
    return content


def _describe(trainer: Any) -> dict[str, Any]:
    """Return the survival model: fitted model, LoRA if used, schema, lesions, and its provenance."""
    unfinished, base = trainer.model is None, trainer.base_cases
    lora = None
    if trainer.num_epochs and not trainer.scratch and (unfinished or trainer.kept):
        weights = take_adapter(unwrap(trainer.network).state_dict(), ADAPTER)
        lora = {"spec": asdict(trainer.spec), "weights": weights}
    return {
        "version": VERSION,
        "model": None if unfinished else trainer.model.to_plain(),
        "lora": lora,
        "head": trainer.head.state_dict() if unfinished else None,
        "encoder": trainer.settings.survival.encoder,
        "best": trainer.best.to_plain(unfinished),
        "kept": trainer.kept,
        "losses": trainer.losses,
        "epochs": trainer.num_epochs,
        "schema": trainer.clinic.schema.model_dump(mode="json", exclude_defaults=True),
        "lesions": trainer.lesions,
        "base_file": trainer.base_file,
        "base_cases": asdict(base) if isinstance(base, TrainingCases) else base,
        "notes": trainer.notes,
        "patients": [record.patient for record in trainer.cohort.train],
        "held_out": [record.patient for record in trainer.cohort.held_out],
        "inner_held_out": _list_inner(trainer),
        "outcomes": digest_outcomes(trainer.cohort.train),
        "tables": dict(trainer.table_keys),
        "unread": list(trainer.unread),
    }


def _list_inner(trainer: Any) -> list[str]:
    return [record.patient for record in trainer.inner.held_out] if trainer.inner else []


def digest_outcomes(records: Sequence[Record]) -> str:
    """Return a checksum of outcomes and centres of patients, independent of their order."""
    outcomes = sorted(
        (record.patient, repr((float(record.time), record.event, float(record.entry), record.centre)))
        for record in records
    )
    return hashlib.sha256(repr(outcomes).encode()).hexdigest()


def take_checkpoint(trainer: Any, file: Any) -> None:
    """Continue the training of a DuPLUSSurvivalTrainer from a checkpoint.

    Raises:
        ModelError: It is damaged, not of this trainer, or does not match plans, splits and clinical table.
    """
    checkpoint = read_checkpoint(file)
    require_embedding(checkpoint["network_weights"], trainer.bank.embedding, file)
    state = checkpoint.get(SURVIVAL_KEY)
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ModelError(
            f"{file} has no survival model of version {VERSION}. Give a checkpoint of DuPLUSSurvivalTrainer of this "
            "version of the package."
        )
    current, stored = trainer.settings.survival.encoder, state.get("encoder", PRETRAINED)
    if current != stored:
        raise ModelError(
            f"{file} was trained with settings.survival.encoder {stored!r}, but the plans have {current!r}. Restore "
            "the setting in the plans, or train without --c."
        )
    _compare_endpoints(trainer.clinic.schema, state["schema"], file)
    compare_patients(trainer, state, file)
    report_changes(trainer, checkpoint)
    trainer.num_epochs = state["epochs"]
    if not trainer.was_initialized:
        trainer.initialize()
    _put_weights(trainer, checkpoint["network_weights"], state, file)
    trainer.current_epoch, trainer._best_ema = checkpoint["current_epoch"], checkpoint["_best_ema"]
    trainer.logger.load_checkpoint(checkpoint["logging"])
    trainer.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
    if checkpoint["optimizer_state"]:
        trainer.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if trainer.grad_scaler is not None and checkpoint["grad_scaler_state"]:
            trainer.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
    trainer.base_file, trainer.base_cases = state["base_file"], parse_base(state["base_cases"])
    cases = find_training_cases(checkpoint, Path(str(file)).parent)
    trainer.training_cases = cases if isinstance(cases, TrainingCases) else None
    trainer.continued, trainer.unread = True, state.get("unread", [])
    trainer.table_keys = state.get("tables", {})
    trainer.kept, trainer.losses, trainer.best = state["kept"], state["losses"], BestEpoch(**state.get("best", {}))
    trainer.notes = list(dict.fromkeys([*trainer.notes, *state["notes"]]))
    trainer.model = None if state["model"] is None else SurvivalModel.from_plain(state["model"])


def _compare_endpoints(schema: ClinicalSchema, stored: Mapping[str, Any], file: Any) -> None:
    """Check that the endpoint is that of the checkpoint, whose schema is stored as plain data.

    Raises:
        ModelError: Its name differs, and so does its time or event.
    """
    before = ClinicalSchema.model_validate(stored)
    if before.endpoint != schema.endpoint and (before.time, before.event) != (schema.time, schema.event):
        raise ModelError(
            f"{file} was trained on the endpoint {before.endpoint!r} (event {before.event.column!r}), and now it is "
            f"{schema.endpoint!r} (event {schema.event.column!r}). Restore settings.survival.endpoint in the plans, or "
            "train without --c, with another name of the plans for each endpoint."
        )


def compare_patients(trainer: Any, state: Mapping[str, Any], file: Any) -> None:
    """Check that patients and outcomes are those of the checkpoint.

    Raises:
        ModelError: The training patients differ, or the training is unfinished and outcomes or inner split differ.
    """
    before, now = set(state["patients"]), {record.patient for record in trainer.cohort.train}
    if before != now:
        changed = sorted(before ^ now)
        raise ModelError(
            f"{file} was trained on {len(before)} patients, and the fold now has {len(now)}; {len(changed)} differ, "
            f"first {changed[0]!r}. Restore splits_final.json and clinical.csv, or train without --c."
        )
    if state["model"] is not None:
        return
    if "outcomes" not in state:
        trainer.notes.append(_UNKNOWN)
    # An unfinished training depends on the outcomes and on the inner split: both must be unchanged.
    current = {"outcomes": digest_outcomes(trainer.cohort.train), "inner_held_out": _list_inner(trainer)}
    for key, value in current.items():
        if state.get(key, value) != value:
            raise ModelError(
                f"Times, events, centres or images of the training patients have changed since {file} was written: "
                "inner held-out patients might have been trained on. Restore clinical.csv and the images, or train "
                "without --c."
            )


def _put_weights(trainer: Any, base: Mapping[str, torch.Tensor], state: Mapping[str, Any], file: Any) -> None:
    network: ConditionedUNet = unwrap(trainer.network)
    weights = {
        name: base.get(name_in_base(name), value) if name_in_base(name) else value
        for name, value in network.state_dict().items()
    }
    missing = [name for name in weights if name_in_base(name) and name_in_base(name) not in base]
    try:
        if missing:
            raise KeyError(missing[0])
        network.load_state_dict(weights)
        if state["lora"] is not None:
            put_adapter(network, state["lora"]["weights"], ADAPTER)
        if state["head"] is not None:
            trainer.head.load_state_dict(state["head"])
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"The checkpoint {file} does not match the network of the plans: {str(error).splitlines()[0]}. The plans "
            "have changed since the training started: restore those of the model folder, or train without --c."
        ) from error
