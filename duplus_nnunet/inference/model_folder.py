"""Reads plans, folds, checkpoints and targets of a model folder, before its weights are loaded."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.adaptation.files import read_card
from duplus_nnunet.adaptation.joining import join_plans
from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.training_match import compare_training, describe_changes, share_mirroring
from duplus_nnunet.model_form import read_json
from duplus_nnunet.plans_form import PlannedTarget
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.reporting.folds import list_trained_folds

CHECKPOINT_NAME = "checkpoint_final.pth"
# Keys of plans that name classes of this package.
_SIGNS = ("label_manager", "experiment_planner_used")
# As nnU-Net takes folds: one, several, or None for all that have the checkpoint.
Folds = Sequence[int | str] | int | str | None


@dataclass(frozen=True)
class ModelFiles:
    """Which weights of which folder make up a model.

    Attributes:
        folder: Model folder, with plans.json, dataset.json and fold_X.
        folds: Folds whose logits are averaged.
        checkpoint: File name within each fold.
        adapters: Folders of adapters that are used beside the model.
    """

    folder: Path
    folds: Folds = None
    checkpoint: str = CHECKPOINT_NAME
    adapters: tuple[str, ...] = ()

    @property
    def fold_names(self) -> tuple[str, ...]:
        """Names of the folds, as nnU-Net names them."""
        return list_folds(self.folder, self.folds, self.checkpoint)


@dataclass(frozen=True)
class CheckedFolds:
    """What was found in the checkpoints of a model.

    Attributes:
        configuration: The one that they were trained in; empty if they were not compared with plans.
        notes: What differs between the model folder and its checkpoints, or between these, a sentence each.
        mirroring_axes: Array axes along which all folds were trained with mirror images.
    """

    configuration: str
    notes: tuple[str, ...] = ()
    mirroring_axes: tuple[int, ...] = ()


def is_ours(folder: str | os.PathLike[str]) -> bool:
    """Whether a model folder holds a DuPLUS model.

    Raises:
        ModelError: Its plans.json is missing or damaged, or was made by a DuPLUS planner and has lost our part.
    """
    plans = read_own_plans(folder)
    if PLANS_KEY in plans:
        return True
    signs = [key for key in _SIGNS if str(plans.get(key)).startswith("DuPLUS")]
    if signs:
        raise ModelError(
            f"{Path(folder) / 'plans.json'} is damaged: it has no part {PLANS_KEY!r}, but {signs[0]} is "
            f"{plans[signs[0]]!r}. Export the model again."
        )
    return False


def read_own_plans(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read plans.json of a model folder, without adapters that stand elsewhere.

    Raises:
        ModelError: It is missing or damaged.
    """
    try:
        return read_json(Path(folder) / "plans.json")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{folder} is not a model folder: it has no plans.json. Check -d, -c, -tr, -p (or -m)."
        ) from error


def read_model_plans(folder: str | os.PathLike[str], adapters: Sequence[str] = ()) -> dict[str, Any]:
    """Read plans.json of a model folder; with adapters, join their prompts to the model's.

    Args:
        folder: Model folder.
        adapters: Folders of adapters that are used beside the model.

    Raises:
        ModelError: plans.json or an adapter is missing or damaged.
        PlansError: Adapters contradict each other or the base.
    """
    plans = read_own_plans(folder)
    if PLANS_KEY not in plans:
        return plans
    return join_plans(plans, [read_card(adapter).member for adapter in adapters])


def list_folds(folder: Path, folds: Folds, checkpoint: str) -> tuple[str, ...]:
    """List the folds that nnU-Net would load, by name; None lists all that have the checkpoint."""
    if folds is None:
        return list_trained_folds(folder, checkpoint)
    return tuple(str(fold) for fold in ([folds] if isinstance(folds, (str, int)) else folds))


def check_checkpoints(
    files: ModelFiles,
    embedding: tuple[int, int],
    masks: bool,
    plans: Mapping[str, Any] | None = None,
    dataset_json: Mapping[str, Any] | None = None,
) -> CheckedFolds:
    """Read and check every checkpoint, before nnU-Net reads it without any protection.

    Args:
        files: The model's.
        embedding: Lengths of a context and of a target embedding in the plans.
        masks: Whether the model is to segment.
        plans: Validated plans, whose network must be that of the checkpoints; None: they are not compared.
        dataset_json: Content of the model's dataset.json; None: it is not compared.

    Raises:
        ModelError: A checkpoint is missing, damaged, was trained with other embeddings or another network, or cannot
            segment.
    """
    from duplus_nnunet.trainers.checkpoint import refuse_masks, require_embedding

    name, notes, axes = "", list[str](), dict[str, tuple[int, ...]]()
    for fold in files.fold_names:
        file = files.folder / f"fold_{fold}" / files.checkpoint
        if not file.is_file():
            available = ", ".join(f"fold_{name}" for name in list_folds(files.folder, None, files.checkpoint))
            others = sorted(other.name for other in file.parent.glob("checkpoint_*.pth"))
            hint = (
                f" This fold has {', '.join(others)} (option -chk), of a training that did not end." if others else ""
            )
            raise ModelError(f"There is no {file}. Folds with {file.name}: {available or 'none'} (option -f).{hint}")
        checkpoint = read_checkpoint(file)
        require_embedding(checkpoint["network_weights"], embedding, file)
        if masks:
            refuse_masks(checkpoint, file)
        if plans is not None:
            name = compare_training(plans, checkpoint, file)
            notes.append(describe_changes(plans, dataset_json or {}, checkpoint))
        axes[f"fold_{fold}"] = tuple(checkpoint.get("inference_allowed_mirroring_axes") or ())
    shared, note = share_mirroring(axes)
    return CheckedFolds(name, tuple(dict.fromkeys(note for note in [*notes, note] if note)), shared)


def describe_targets(folder: str | os.PathLike[str], adapters: Sequence[str] = ()) -> str:
    """List the contexts and targets that a model was trained on, with their prompts and synonyms."""
    bank = PromptBank(read_model_plans(folder, adapters))
    lines = [
        f"{len(bank.contexts)} context(s) for --context, {len(bank.targets)} target(s) for --targets, in any case."
    ]
    width = max(len(name) for name in bank.names)
    for name, context in bank.contexts.items():
        default = " (default)" if name == bank.default_context else ""
        targets = [target for target in bank.targets if target.name in context.trained]
        prompt = f"  context prompt: {context.sentences[0]}"
        lines += ["", f"context {name}{default}", prompt, f"  {len(targets)} target(s):"]
        lines += [f"    {target.name:<{width}}  {_list_synonyms(target)}".rstrip() for target in targets]
    return "\n".join(lines)


def _list_synonyms(target: PlannedTarget) -> str:
    """List a target's synonyms, and its label where that is another word."""
    words = [*target.synonyms, target.label]
    synonyms = dict.fromkeys(word for word in words if normalise(word) != normalise(target.name))
    return f"also: {', '.join(synonyms)}" if synonyms else ""
