"""Describes what a training should know about the weights that it starts from, and about the folds beside it."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from duplus_nnunet.adaptation.trained_weights import find_configuration, find_mirroring, find_trained_plans, identify
from duplus_nnunet.checkpoint_files import require_finite_weights
from duplus_nnunet.errors import DuplusError, ModelError
from duplus_nnunet.mirroring import describe_axes
from duplus_nnunet.model_form import inherit
from duplus_nnunet.planners.context_plans import list_spacing
from duplus_nnunet.plans_form import PlannedStart, as_form
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.trainers.resuming import join_changes, list_changes
from duplus_nnunet.trainers.training_cases import UNKNOWN, Base

# Spacings that differ by less are taken as equal.
_TOLERANCE = 0.05


def log_missing_start(trainer: Any) -> None:
    """Warn if a DuPLUSTrainer starts from scratch although its plans were made for the weights of a model."""
    start = trainer.bank.form.start
    if start is not None and trainer.base_cases is None and not trainer.current_epoch:
        trainer.print_to_log_file(
            f"warning: the plans were made for the weights of {start.model}, but the training starts from scratch. To "
            "start from them, add -pretrained_weights with a checkpoint of it, such as fold_0/checkpoint_final.pth"
        )


def check_start(trainer: Any, checkpoint: Mapping[str, Any], file: object) -> None:
    """Check the weights that a training of a DuPLUSTrainer starts from, and log if they are of another fold.

    Args:
        trainer: The trainer.
        checkpoint: Content of their checkpoint.
        file: The checkpoint, for messages.

    Raises:
        ModelError: They are not finite, or not of the model that the plans were made for.
    """
    require_finite_weights(checkpoint.get("network_weights", {}), file)
    start = trainer.bank.form.start
    if start is not None:
        for note in match_start(start, checkpoint, file, trainer.plans_manager.plans.get("plans_name")):
            trainer.print_to_log_file(f"note: {note}")


def match_start(start: PlannedStart, checkpoint: Mapping[str, Any], file: object, plans_name: object) -> list[str]:
    """Compare a checkpoint with the model that plans were made for.

    Another fold of the model, with the same plans, is accepted, and so is a model that was itself trained from it.
    Plans of earlier versions name trainer and configuration alone.

    Args:
        start: The model.
        checkpoint: Content of the checkpoint.
        file: The checkpoint, for messages.
        plans_name: Name of the plans.

    Returns:
        A sentence if the checkpoint is of another fold.

    Raises:
        ModelError: It is of another model.
    """
    found, trained = identify(checkpoint), find_trained_plans(checkpoint) or {}
    theirs = as_form(trained).start if PLANS_KEY in trained else None
    if found["weights"] == start.weights or (theirs is not None and _is_same_model(theirs, start)):
        return []
    names = checkpoint.get("trainer_name") or "", find_configuration(checkpoint)
    expected = start.trainer, start.configuration
    same = all(not ours or not theirs or ours == theirs for ours, theirs in zip(expected, names, strict=True))
    if same and found["plans"] == start.plans and start.plans:
        return [f"{file} has other weights than those that the dataset was planned for; they are of the same model"]
    if not same or start.weights:
        made = f"{trained.get('dataset_name', 'an unknown dataset')}, {names[0] or '?'}, {names[1] or '?'}"
        raise ModelError(
            f"{file} ({made}) is not of the model that the plans {plans_name!r} were made for, {start.model}: its "
            "weights or its plans are others. Give -pretrained_weights a checkpoint of that model, or plan for this "
            "one: `duplus adapt plan DATASET --from-model MODEL_FOLDER`."
        )
    return []


def _is_same_model(one: PlannedStart, other: PlannedStart) -> bool:
    """Report whether two plans were made for the same model, as far as plans of earlier versions say."""
    same_weights = not one.weights or not other.weights or one.weights == other.weights
    return one.model == other.model and (same_weights or one.plans == other.plans != "")


def log_start(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Log what should be known about the weights that a training of a DuPLUSTrainer starts from."""
    plans, configuration = trainer.plans_manager.plans, trainer.configuration_name
    for note in describe_start(checkpoint, plans, configuration, trainer.base_cases):
        trainer.print_to_log_file(f"note: {note}")


def describe_start(
    checkpoint: Mapping[str, Any], plans: Mapping[str, Any], configuration: str, cases: Base
) -> list[str]:
    """Describe the weights that a training starts from.

    Args:
        checkpoint: Content of their checkpoint.
        plans: Plans of the training.
        configuration: The configuration that is trained.
        cases: The training cases of the weights.

    Returns:
        Sentences: whether their training cases are known, whether their images were mirrored, and, for a stock model,
        where the images of this training are preprocessed in another way.
    """
    notes = []
    if cases == UNKNOWN:
        notes.append(
            "the training cases of the pretrained weights are not recorded, so held-out cases of this training may "
            "have been among them"
        )
    if axes := find_mirroring(checkpoint):
        notes.append(f"the images of the pretrained weights were {describe_axes(axes)}")
    settings = checkpoint.get("init_args")
    theirs = settings.get("plans") if isinstance(settings, Mapping) else None
    if isinstance(theirs, Mapping) and PLANS_KEY not in theirs:
        trained = str(settings.get("configuration")) if isinstance(settings, Mapping) else ""
        notes += _describe_preprocessing(theirs, trained, plans, configuration)
    return notes


def _describe_preprocessing(
    theirs: Mapping[str, Any], trained: str, plans: Mapping[str, Any], configuration: str
) -> Iterator[str]:
    """Describe in which contexts images have another spacing, or another normalisation, than the model's had."""
    form, own = as_form(plans), plans["configurations"][configuration]
    try:
        values = inherit(theirs["configurations"], trained, "the checkpoint")
        spacing, ways = [float(mm) for mm in values["spacing"]], list(values["normalization_schemes"])
    except (DuplusError, KeyError, TypeError, ValueError):
        yield "the checkpoint does not say how the images of the pretrained model were preprocessed"
        return
    for name, context in form.contexts.items():
        planned = list_spacing(form, own["spacing"], name)
        if len(spacing) != len(planned) or any(
            abs(math.log(ours / mm)) > _TOLERANCE for ours, mm in zip(planned, spacing, strict=True)
        ):
            yield f"context {name}: spacing {_join(planned)} mm; the pretrained model's was {_join(spacing)} mm"
        if (context.normalization_schemes or own["normalization_schemes"]) != ways:
            found = ", ".join(context.normalization_schemes or own["normalization_schemes"])
            yield f"context {name}: normalised by {found}; the pretrained model's images by {', '.join(ways)}"


def _join(numbers: list[float]) -> str:
    return " x ".join(f"{number:.3g}" for number in numbers)


def report_siblings(trainer: Any) -> None:
    """Report in the log of a training how its plans differ from those that other folds of the model were trained with.

    nnU-Net writes the plans of the training into the model folder, in place of theirs.
    """
    folder = Path(trainer.output_folder_base)
    others = sorted(file.parent.name for file in folder.glob("fold_*/checkpoint_*.pth"))
    others = [name for name in dict.fromkeys(others) if name != Path(trainer.output_folder).name]
    try:
        before = json.loads((folder / "plans.json").read_text(encoding="utf-8")) if others else None
    except (OSError, ValueError):
        return  # nnU-Net writes it again
    if isinstance(before, Mapping):
        changes = list_changes(before, trainer.plans_manager.plans, trainer.configuration_name)
        if changes:
            trainer.print_to_log_file(
                f"WARNING: {', '.join(others)} of this model had other plans, which are replaced in {folder}: "
                f"{join_changes(changes)}. Folds that are to be used together need the same plans."
            )
