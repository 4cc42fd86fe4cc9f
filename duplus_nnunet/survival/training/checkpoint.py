"""Checkpoints of a prognosis: nnU-Net's own form with the base's weights, and the prognosis beside them.

nnU-Net's predictor reads the weights and segments as the base does; what it does not know stands under one key, of
plain types and tensors, so that everything loads with weights_only=True.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.networks import ConditionedUNet, unwrap
from duplus_nnunet.networks.adaptation import name_in_base, put_adapter, take_adapter
from duplus_nnunet.settings import PRETRAINED
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.table import Record
from duplus_nnunet.survival.training.lora import ADAPTER
from duplus_nnunet.survival.training.scratch import BestEpoch
from duplus_nnunet.trainers.checkpoint import SURVIVAL_KEY, make_plain, read_checkpoint, require_embedding
from duplus_nnunet.trainers.training_cases import TrainingCases, parse_base

VERSION = 1
# Features of a fold's patients, beside its checkpoint: as the base sees them, and as the LoRA does.
TABLE_NAME, LORA_TABLE_NAME = "survival_table.npz", "survival_table_lora.npz"
_UNKNOWN = (
    "The training goes on from a checkpoint of an earlier version, which did not write down the outcomes that it was "
    "begun with: that they are the same now was not checked."
)


def make_checkpoint(trainer: Any) -> dict[str, Any]:
    """Return a DuPLUSSurvivalTrainer's checkpoint, of plain types and tensors."""
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
        SURVIVAL_KEY: _describe(trainer),
    })  # fmt: skip
    return content


def _describe(trainer: Any) -> dict[str, Any]:
    """Return all that the prognosis needs: model, LoRA if it is in use, schema, lesions, and how it came about."""
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
    """Return a checksum of what became of patients, and of their centres, by which they are split; in any order."""
    told = sorted((one.patient, repr((float(one.time), one.event, float(one.entry), one.centre))) for one in records)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def take_checkpoint(trainer: Any, file: Any) -> None:
    """Let a DuPLUSSurvivalTrainer go on from a checkpoint of its own.

    Raises:
        ModelError: It is damaged, no checkpoint of this trainer, or does not fit plans, splits and clinical table.
    """
    found = read_checkpoint(file)
    require_embedding(found["network_weights"], trainer.bank.embedding, file)
    state = found.get(SURVIVAL_KEY)
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ModelError(f"{file} holds no prognosis of version {VERSION}; it is none of DuPLUSSurvivalTrainer's.")
    now, before = trainer.settings.survival.encoder, state.get("encoder", PRETRAINED)
    if now != before:
        raise ModelError(
            f"{file} was begun with settings.survival.encoder {before!r}, and the plans say {now!r} now. Put that back "
            "in the plans, or train without --c."
        )
    compare_patients(trainer, state, file)
    trainer.num_epochs = state["epochs"]
    if not trainer.was_initialized:
        trainer.initialize()
    _put_weights(trainer, found["network_weights"], state, file)
    trainer.current_epoch, trainer._best_ema = found["current_epoch"], found["_best_ema"]
    trainer.logger.load_checkpoint(found["logging"])
    trainer.inference_allowed_mirroring_axes = found["inference_allowed_mirroring_axes"]
    if found["optimizer_state"]:
        trainer.optimizer.load_state_dict(found["optimizer_state"])
        if trainer.grad_scaler is not None and found["grad_scaler_state"]:
            trainer.grad_scaler.load_state_dict(found["grad_scaler_state"])
    trainer.base_file, trainer.base_cases = state["base_file"], parse_base(state["base_cases"])
    trainer.continued, trainer.unread = True, state.get("unread", [])
    trainer.table_keys = state.get("tables", {})
    trainer.kept, trainer.losses, trainer.best = state["kept"], state["losses"], BestEpoch(**state.get("best", {}))
    trainer.notes = list(dict.fromkeys([*trainer.notes, *state["notes"]]))
    trainer.model = None if state["model"] is None else SurvivalModel.from_plain(state["model"])


def compare_patients(trainer: Any, state: Mapping[str, Any], file: Any) -> None:
    """Refuse to go on with other patients or outcomes: splits or clinical table may have changed.

    Raises:
        ModelError: Who was learned from is not in the fold any more, or what is unfinished was taught something else.
    """
    before, now = set(state["patients"]), {record.patient for record in trainer.cohort.train}
    if before != now:
        differ = sorted(before ^ now)
        raise ModelError(
            f"{file} was trained on {len(before)} patients, and the fold has {len(now)} now; {len(differ)} differ, "
            f"first {differ[0]!r}. Restore splits_final.json and clinical.csv, or train without --c."
        )
    if state["model"] is not None:
        return
    if "outcomes" not in state:
        trainer.notes.append(_UNKNOWN)
    # What goes on learning was taught by outcomes, and is judged by inner held-out patients: both must be as they were.
    told = {"outcomes": digest_outcomes(trainer.cohort.train), "inner_held_out": _list_inner(trainer)}
    for key, found in told.items():
        if state.get(key, found) != found:
            raise ModelError(
                f"Times, events or centres of the training patients, or who of them has images, are not as they were "
                f"when {file} was begun: it would be judged by patients that it learned from. Restore clinical.csv and "
                "the images, or train without --c."
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
            f"The checkpoint {file} does not fit the network of the plans: {str(error).splitlines()[0]}. The plans "
            "changed after the training began: restore those of the model folder, or train without --c."
        ) from error
