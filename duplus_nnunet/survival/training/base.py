"""The segmentation model under a prognosis: may it be used, was anybody who is held out trained on, what did it score.

In come its checkpoint and folder, out come a checked base and notes.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.networks import ConditionedUNet, TextTable
from duplus_nnunet.networks.adaptation import name_in_base
from duplus_nnunet.outputs.files import write_text
from duplus_nnunet.reporting.summary import add_note
from duplus_nnunet.settings import PLANS_KEY
from duplus_nnunet.survival.training.data import ClinicalData
from duplus_nnunet.trainers.checkpoint import refuse_masks
from duplus_nnunet.trainers.training_cases import Base, FindPatient, TrainingCases, find_overlap, list_seen

VALIDATION, SUMMARY_NAME = "validation", "summary.json"
_SHOWN = 8
_ALLOW = "set duplus.settings.survival.allow_overlap to true in the plans; it will be reported with every result"


def require_base(file: str | None) -> None:
    """Refuse to begin without a base.

    Raises:
        ModelError: None was given, nor is this the continuation of a training that had one.
    """
    if file is None:
        raise ModelError(
            "Prognosis is learned on a trained segmentation model: add -pretrained_weights with a checkpoint of "
            "DuPLUSTrainer, such as fold_0/checkpoint_final.pth of the same dataset and fold; or continue what was "
            "begun with --c. To train the encoder by outcomes alone, set settings.survival.encoder to 'scratch' in the "
            "plans."
        )


def check_base(checkpoint: Mapping[str, Any], file: object, network: ConditionedUNet, plans: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that is not a whole model of these plans; take over embeddings that were trained with it.

    Raises:
        ModelError: It is no DuPLUS model's, cannot segment, lacks a weight, or was trained with other prompts.
    """
    refuse_masks(checkpoint, file)
    weights = checkpoint["network_weights"]
    theirs = checkpoint.get("init_args", {}).get("plans", {}).get(PLANS_KEY)
    if theirs is None:
        raise ModelError(
            f"{file} is no DuPLUS model's checkpoint. A prognosis is learned on a trained segmentation model: "
            "train one with -tr DuPLUSTrainer and the same plans, and give its checkpoint_final.pth."
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
            f"{file} is of another model than the plans {plans.get('plans_name')!r} describe: {len(wrong)} parts "
            f"differ, first {wrong[0]}. Give a checkpoint that DuPLUSTrainer trained with these plans; for another "
            "dataset's model, plan this one by `duplus adapt plan DATASET --from-model MODEL_FOLDER`. An adapter is "
            "first made a plain model by `duplus adapt merge`."
        )
    _take_texts(weights, file, network)


def _take_texts(weights: Mapping[str, torch.Tensor], file: object, network: ConditionedUNet) -> None:
    """Take over the embeddings of an adapted text encoder, which are the base's as much as its weights."""
    own = isinstance(network.texts, TextTable)
    if not own and "texts.table" not in weights:
        return
    texts = cast(Any, network.texts)
    if not own or "texts.table" not in weights or not torch.equal(texts.keys, weights["texts.keys"]):
        raise ModelError(
            f"{file} and the plans do not agree on the texts whose embeddings were trained (settings.text_adapter). "
            "Give the plans that the segmentation model was trained with."
        )
    texts.table.copy_(weights["texts.table"])


def judge_overlap(
    base: Base,
    held_out: Mapping[str, Sequence[str]],
    allowed: bool,
    clinic: ClinicalData | None = None,
    dataset: str | None = None,
) -> list[str]:
    """Compare who is held out with whom the base was trained on.

    Args:
        base: What is known of the base.
        held_out: Patients that are held out, each with all their names.
        allowed: Whether overlap is reported instead of refused.
        clinic: Finds patients in names of cases, those of other datasets too.
        dataset: nnU-Net's name of the dataset whose patients are held out.

    Returns:
        What every result has to say, a sentence each.

    Raises:
        DataError: Somebody is on both sides, or nobody knows, and it is not allowed.
    """
    if not held_out:
        return []
    find = None if clinic is None else clinic.schema.find_patient
    strangers = _name_strangers(base, clinic, dataset) if clinic and isinstance(base, TrainingCases) else []
    found = _describe_overlap(base, held_out, find)
    if not found:
        return strangers
    if not allowed:
        raise DataError(
            f"{found[0].upper()}{found[1:]}: what it sees in their images is better than in those of new patients. "
            "Train the segmentation on the same splits (`duplus survival split DATASET` before its training), give the "
            f"checkpoint of the same fold, or {_ALLOW}."
        )
    return [f"Overlap was allowed: {found}. Scores of what images tell may be too good.", *strangers]


def _describe_overlap(base: Base, held_out: Mapping[str, Sequence[str]], find: FindPatient | None) -> str:
    """Say who is held out, but was trained on, or that nobody knows; nothing, if it is known that nobody was."""
    overlap = find_overlap(base, held_out, find) if isinstance(base, TrainingCases) else []
    if not isinstance(base, TrainingCases) or not (overlap or base.is_known):
        return "it is not known on whom the segmentation model was trained (no training_cases.json beside it)"
    if not overlap:
        return ""
    where = [one.dataset for one in base.lineage if find_overlap(replace(one, base=None), held_out, find)]
    listed = ", ".join(overlap[:_SHOWN]) + (f" and {len(overlap) - _SHOWN} more" if len(overlap) > _SHOWN else "")
    return (
        f"the segmentation model was trained on {len(overlap)} of {len(held_out)} held-out patients ({listed}), as "
        f"cases of {', '.join(dict.fromkeys(where))} are called"
    )


def _name_strangers(base: TrainingCases, clinic: ClinicalData, dataset: str | None) -> list[str]:
    """Name other datasets with cases that cannot be compared with the patients of this one."""
    table, find = clinic.table, clinic.schema.find_patient
    known = {*clinic.records, *table.cases, *(table.find(case).patient for case in table.cases)}
    notes = []
    for one in base.lineage:
        if one.dataset == dataset:
            continue
        comparable = bool(known & list_seen(one, find))
        unnamed = [case for case in one.cases if not comparable or find(case) is None]
        if unnamed:
            notes.append(
                f"The segmentation model was trained on {one.dataset}, {len(unnamed)} of whose {len(one.cases)} cases "
                "bear no name of a patient here: whether somebody who is held out is among them was not checked."
            )
    return notes


def copy_summary(base: Path | None, folder: Path) -> None:
    """Give a fold the summary.json that nnU-Net's export asks for.

    Args:
        base: Folder of the base's fold, if it held out the same cases, so that its scores are those of this network.
        folder: Of ours.
    """
    ours = folder / VALIDATION / SUMMARY_NAME
    ours.parent.mkdir(parents=True, exist_ok=True)
    if base is not None and (base / VALIDATION / SUMMARY_NAME).is_file():
        shutil.copyfile(base / VALIDATION / SUMMARY_NAME, ours)
        return
    # nnU-Net's own functions read NaN as "no value".
    nothing = {"foreground_mean": {"Dice": float("nan")}, "mean": {}, "metric_per_case": []}
    write_text(ours, json.dumps(nothing, indent=1) + "\n")
    add_note(ours, "survival", "Segmentation was not validated here: it is that of the base, if there is one.")
