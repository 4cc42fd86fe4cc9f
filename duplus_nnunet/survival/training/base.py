"""Checks the segmentation model (base) under a survival model: that it fits, and saw no held-out patient."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.files import write_text
from duplus_nnunet.networks import ConditionedUNet, TextTable
from duplus_nnunet.networks.adaptation import name_in_base
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.reporting.summary import add_note
from duplus_nnunet.survival.training.data import ClinicalData
from duplus_nnunet.trainers.checkpoint import refuse_masks
from duplus_nnunet.trainers.training_cases import Base, FindPatient, TrainingCases, find_overlap, list_seen

VALIDATION, SUMMARY_NAME = "validation", "summary.json"
_SHOWN = 8
_ALLOW = "set duplus.settings.survival.allow_overlap to true in the plans; it will be reported with every result"


def require_base(file: str | None) -> None:
    """Check that a base was given.

    Raises:
        ModelError: There is none.
    """
    if file is None:
        raise ModelError(
            "A survival model is trained on a trained segmentation model: add -pretrained_weights with a checkpoint of "
            "DuPLUSTrainer, such as fold_0/checkpoint_final.pth of the same dataset and fold, or continue an earlier "
            "training with --c. To train the encoder on outcomes only, set settings.survival.encoder to 'scratch' in "
            "the plans."
        )


def check_base(checkpoint: Mapping[str, Any], file: object, network: ConditionedUNet, plans: Mapping[str, Any]) -> None:
    """Check that a checkpoint is a complete segmentation model of these plans; load its trained text embeddings.

    Raises:
        ModelError: It is not of a DuPLUS segmentation model, lacks a weight, or was trained with other prompts.
    """
    refuse_masks(checkpoint, file)
    weights = checkpoint["network_weights"]
    theirs = checkpoint.get("init_args", {}).get("plans", {}).get(PLANS_KEY)
    if theirs is None:
        raise ModelError(
            f"{file} is not a checkpoint of a DuPLUS model. A survival model is trained on a trained segmentation "
            "model: train one with -tr DuPLUSTrainer and the same plans, and give its checkpoint_final.pth."
        )
    ours = {name_in_base(name): value for name, value in network.state_dict().items() if name_in_base(name)}
    wrong = [
        name for name, value in ours.items()
        if not name.startswith("texts.") and (name not in weights or weights[name].shape != value.shape)
    ]  # fmt: skip
    if theirs.get("centres") != plans[PLANS_KEY]["centres"]:
        wrong.append("the centres of the embeddings")
    if wrong:
        raise ModelError(
            f"{file} does not match the plans {plans.get('plans_name')!r}: {len(wrong)} parts differ, first "
            f"{wrong[0]}. Give a checkpoint that DuPLUSTrainer trained with these plans. To use the model of another "
            "dataset, plan this dataset with `duplus adapt plan DATASET --from-model MODEL_FOLDER`. Merge an adapter "
            "into its base first with `duplus adapt merge`."
        )
    _take_texts(weights, file, network)


def _take_texts(weights: Mapping[str, torch.Tensor], file: object, network: ConditionedUNet) -> None:
    """Load the embeddings of an adapted text encoder, which belong to the base like its weights."""
    own = isinstance(network.texts, TextTable)
    if not own and "texts.table" not in weights:
        return
    texts = cast(Any, network.texts)
    if not own or "texts.table" not in weights or not torch.equal(texts.keys, weights["texts.keys"]):
        raise ModelError(
            f"{file} and the plans differ in the texts whose embeddings were trained (settings.text_adapter). Use the "
            "plans of the segmentation model."
        )
    texts.table.copy_(weights["texts.table"])


def judge_overlap(
    base: Base,
    held_out: Mapping[str, Sequence[str]],
    allowed: bool,
    clinic: ClinicalData | None = None,
    dataset: str | None = None,
) -> list[str]:
    """Check whether the base was trained on held-out patients.

    Args:
        base: Training cases of the base.
        held_out: Held-out patients, each with all names of the patient.
        allowed: Whether overlap is reported instead of refused.
        clinic: Clinical data, which find the patient of a case, also of other datasets.
        dataset: nnU-Net's name of the dataset of the held-out patients.

    Returns:
        Notes for every result, one sentence each.

    Raises:
        DataError: There is overlap, or it is not known whether there is, and it is not allowed.
    """
    if not held_out:
        return []
    find = None if clinic is None else clinic.schema.find_patient
    unmatched = _note_unmatched(base, clinic, dataset) if clinic and isinstance(base, TrainingCases) else []
    overlap = _describe_overlap(base, held_out, find)
    if not overlap:
        return unmatched
    if not allowed:
        raise DataError(
            f"{overlap[0].upper()}{overlap[1:]}: its features of their images would be better than those of new "
            "patients. Train the segmentation on the same splits (`duplus survival split DATASET` before its "
            f"training), give the checkpoint of the same fold, or {_ALLOW}."
        )
    return [f"Overlap was allowed: {overlap}. Scores of methods that use images may be optimistic.", *unmatched]


def _describe_overlap(base: Base, held_out: Mapping[str, Sequence[str]], find: FindPatient | None) -> str:
    """Describe the held-out patients that the base was trained on, or that it is not known; empty: no overlap."""
    overlap = find_overlap(base, held_out, find) if isinstance(base, TrainingCases) else []
    if not isinstance(base, TrainingCases) or not (overlap or base.is_known):
        return "the training cases of the segmentation model are not known (no training_cases.json beside it)"
    if not overlap:
        return ""
    datasets = [part.dataset for part in base.lineage if find_overlap(replace(part, base=None), held_out, find)]
    listed = ", ".join(overlap[:_SHOWN]) + (f" and {len(overlap) - _SHOWN} more" if len(overlap) > _SHOWN else "")
    return (
        f"the segmentation model was trained on {len(overlap)} of {len(held_out)} held-out patients ({listed}), "
        f"according to the case names of {', '.join(dict.fromkeys(datasets))}"
    )


def _note_unmatched(base: TrainingCases, clinic: ClinicalData, dataset: str | None) -> list[str]:
    """Return a note for each other training dataset with cases that match no patient of this dataset."""
    table, find = clinic.table, clinic.schema.find_patient
    known = {*clinic.records, *table.cases, *(table.find(case).patient for case in table.cases)}
    notes = []
    for part in base.lineage:
        if part.dataset == dataset:
            continue
        comparable = bool(known & list_seen(part, find))
        unnamed = [case for case in part.cases if not comparable or find(case) is None]
        if unnamed:
            notes.append(
                f"The segmentation model was trained on {part.dataset}: {len(unnamed)} of its {len(part.cases)} cases "
                "match no patient of this dataset, so overlap with held-out patients could not be checked for them."
            )
    return notes


def copy_summary(base: Path | None, folder: Path) -> None:
    """Write the summary.json of a fold, which nnU-Net's export requires.

    Args:
        base: Folder of the base's fold, if it held out the same cases, so that its scores apply; None: no scores.
        folder: Folder of the fold.
    """
    ours = folder / VALIDATION / SUMMARY_NAME
    ours.parent.mkdir(parents=True, exist_ok=True)
    if base is not None and (base / VALIDATION / SUMMARY_NAME).is_file():
        shutil.copyfile(base / VALIDATION / SUMMARY_NAME, ours)
        return
    # nnU-Net reads NaN as "no value".
    nothing = {"foreground_mean": {"Dice": float("nan")}, "mean": {}, "metric_per_case": []}
    write_text(ours, json.dumps(nothing, indent=1) + "\n")
    add_note(ours, "survival", "The segmentation was not validated here; it is that of the base, if there is one.")
