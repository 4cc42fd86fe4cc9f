"""nnU-Net's predictor for our models: loads them safely, binds the selection, checks images at the border."""

import functools
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import ModelError, PromptError
from duplus_nnunet.inference.free_text import NewTarget, Reading, describe_reading, read_texts
from duplus_nnunet.inference.images import check_channels, patch_checks
from duplus_nnunet.inference.selection import Selection, get_selection, read_model_plans
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import PLANS_KEY


def select_labels(dataset_json: dict[str, Any], labels: Sequence[str], new: Sequence[NewTarget] = ()) -> dict[str, Any]:
    """Return a copy of dataset.json that declares the selected labels only; their values stay.

    Args:
        dataset_json: Content of dataset.json.
        labels: Labels to keep, in its order.
        new: Targets to add, each under its text; where regions overlap, they are written over the others.
    """
    from duplus_nnunet.planners.label_manager import list_targets

    chosen = deepcopy(dataset_json)
    targets = list(list_targets(dataset_json["labels"]))
    chosen["labels"] = {"background": 0, **{label: dataset_json["labels"][label] for label in labels}}
    chosen["labels"].update({target.text: target.value for target in new})
    order = dataset_json.get("regions_class_order")
    if order is not None:
        chosen["regions_class_order"] = [order[targets.index(label)] for label in labels]
        chosen["regions_class_order"] += [target.value for target in new]
    return chosen


def apply_selection(predictor: Any, selection: Selection) -> Reading:
    """Bind a loaded predictor to what was asked for; everything it allots is sized by that.

    Returns:
        What the user's own texts stand for.

    Raises:
        PromptError: An unknown target or context, or a text that stands for nothing.
        EncoderError: A new text cannot be encoded by the model's own text encoder.
    """
    plans, labels = predictor.plans_manager.plans, predictor.dataset_json["labels"]
    bank = PromptBank(plans)
    context = bank.find_context(selection.context)
    asked = _find_targets(bank, selection.targets)
    reading = read_texts(plans, labels, context, selection.prompts, selection.encoder)
    asked.update(reading.known.values())
    everything = not asked and not reading.new
    names = [name for name in bank.names if everything or name in asked]
    found = bank.contexts[context]
    pairs = [(found["target_prompts"][name][0], name) for name in names]
    pairs += [(target.sentence, target.name) for target in reading.new]
    prompts = PromptBank(reading.plans).compose(found["sentences"][0], pairs)
    chosen = [label for name, label in zip(bank.names, bank.labels, strict=True) if name in names]
    bind(predictor, prompts, select_labels(predictor.dataset_json, chosen, reading.new))
    predictor.dataset_json["duplus"] = write_legend(predictor.label_manager, context, found["sentences"][0], reading)
    return reading


def _find_targets(bank: PromptBank, targets: Sequence[str]) -> set[str]:
    try:
        return set(bank.find_targets(targets))
    except PromptError as error:
        raise PromptError(f"{error} What is none of these is asked for by --prompt.") from error


def bind(predictor: Any, prompts: Prompts, dataset_json: dict[str, Any]) -> None:
    """Bind a loaded predictor to prompts and to the dataset.json that declares a label for each of them."""
    getattr(predictor.network, "_orig_mod", predictor.network).bind(prompts)
    predictor.dataset_json = dataset_json
    predictor.label_manager = predictor.plans_manager.get_label_manager(dataset_json)


def write_legend(label_manager: Any, context: str, t1: str, reading: Reading) -> dict[str, Any]:
    """Say what stands in a prediction, for the dataset.json that nnU-Net writes beside it."""
    from duplus_nnunet.planners.label_manager import list_targets

    values, labels = label_manager.regions_class_order, list_targets(label_manager.label_dict)
    return {
        "context": context,
        "context_prompt": t1,
        "legend": {str(value): label for value, label in zip(values, labels, strict=True)},
        "not_seen_in_training": {
            target.text: {
                "value": target.value,
                "sentence": target.sentence,
                "name": target.name,
                "nearest": {name: round(cosine, 4) for name, cosine in target.nearest},
            }
            for target in reading.new
        },
    }


def _check_checkpoints(
    folder: Path, folds: Any, checkpoint_name: str, embedding: tuple[int, int] | None = None
) -> None:
    """Read every checkpoint with weights_only=True before nnU-Net reads it without, and compare it with the plans."""
    from duplus_nnunet.trainers.checkpoint import read_checkpoint, require_embedding

    if folds is None:  # nnU-Net then takes every fold that has the checkpoint
        folds = [found.parent.name.removeprefix("fold_") for found in folder.glob(f"fold_*/{checkpoint_name}")]
    for fold in [folds] if isinstance(folds, (str, int)) else folds:
        file = folder / f"fold_{fold}" / checkpoint_name
        if not file.is_file():
            there = sorted(found.parent.name for found in folder.glob(f"fold_*/{checkpoint_name}"))
            raise ModelError(
                f"There is no {file}. Folds with {checkpoint_name}: {', '.join(there) or 'none'} (option -f)."
            )
        found = read_checkpoint(file)
        if embedding is not None:
            require_embedding(found["network_weights"], embedding, file)


def _refuse(selection: Selection) -> None:
    """Stop if something was selected for a model that cannot select."""
    if selection:
        given = selection.targets or selection.prompts or selection.context
        raise ModelError(
            f"Targets, prompts or a context were given ({given!r}), but the model is not a DuPLUS model and cannot "
            "select. Leave out --targets, --prompt, --context and the variables DUPLUS_TARGETS, DUPLUS_PROMPT and "
            "DUPLUS_CONTEXT, or name a model of a DuPLUS trainer with -tr and -p."
        )


def wrap_initialize(original: Callable[..., None]) -> Callable[..., None]:
    """Load our models safely and bind the selection; stock models are loaded as ever."""

    @functools.wraps(original)
    def initialize(
        self: Any, model_training_output_dir: str, use_folds: Any, checkpoint_name: str = "checkpoint_final.pth"
    ) -> None:
        plans = read_model_plans(model_training_output_dir)
        selection = get_selection()
        if PLANS_KEY not in plans:
            _refuse(selection)
            original(self, model_training_output_dir, use_folds, checkpoint_name)
            return
        _check_checkpoints(Path(model_training_output_dir), use_folds, checkpoint_name, PromptBank(plans).embedding)
        original(self, model_training_output_dir, use_folds, checkpoint_name)
        values = {target["name"]: self.dataset_json["labels"][target["label"]] for target in PromptBank(plans).targets}
        sys.stdout.write(describe_reading(apply_selection(self, selection), values))

    return initialize


def wrap_lists(original: Callable[..., Any]) -> Callable[..., Any]:
    """Check the number of channels of every case before any worker starts."""

    @functools.wraps(original)
    def manage(self: Any, *args: Any, **kwargs: Any) -> Any:
        lists = original(self, *args, **kwargs)
        if PLANS_KEY in self.plans_manager.plans:
            check_channels(lists[0], self.dataset_json)
        return lists

    return manage


def patch_predictor(predictor: Any) -> None:
    """Wrap the methods of nnU-Net's predictor class that have to know our models."""
    predictor.initialize_from_trained_model_folder = wrap_initialize(predictor.initialize_from_trained_model_folder)
    predictor._manage_input_and_output_lists = wrap_lists(predictor._manage_input_and_output_lists)
    patch_checks(predictor)
