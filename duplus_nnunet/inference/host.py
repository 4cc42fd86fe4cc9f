"""nnU-Net's predictor for our models: loads them safely, binds the selection, checks images at the border."""

import functools
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.images import check_channels, patch_checks
from duplus_nnunet.inference.selection import Selection, get_selection, read_model_plans
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import PLANS_KEY


def select_labels(dataset_json: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Return a copy of dataset.json that declares the selected labels only; their values stay.

    Args:
        dataset_json: Content of dataset.json.
        labels: Labels to keep, in its order.
    """
    from duplus_nnunet.planners.label_manager import list_targets

    chosen = deepcopy(dataset_json)
    targets = list(list_targets(dataset_json["labels"]))
    chosen["labels"] = {"background": 0, **{label: dataset_json["labels"][label] for label in labels}}
    order = dataset_json.get("regions_class_order")
    if order is not None:
        chosen["regions_class_order"] = [order[targets.index(label)] for label in labels]
    return chosen


def apply_selection(predictor: Any, selection: Selection) -> None:
    """Bind a loaded predictor to what was asked for; everything it allots is sized by that.

    Raises:
        PromptError: An unknown target or context.
    """
    bank = PromptBank(predictor.plans_manager.plans)
    names = bank.find_targets(selection.targets) if selection.targets else bank.names
    prompts = bank.draw(bank.find_context(selection.context), names)
    getattr(predictor.network, "_orig_mod", predictor.network).bind(prompts)
    labels = [label for name, label in zip(bank.names, bank.labels, strict=True) if name in names]
    predictor.dataset_json = select_labels(predictor.dataset_json, labels)
    predictor.label_manager = predictor.plans_manager.get_label_manager(predictor.dataset_json)


def _check_checkpoints(folder: Path, folds: Any, checkpoint_name: str) -> None:
    """Read every checkpoint with weights_only=True before nnU-Net reads it without."""
    from duplus_nnunet.trainers.checkpoint import read_checkpoint

    if folds is None:  # nnU-Net then takes every fold that has the checkpoint
        folds = [found.parent.name.removeprefix("fold_") for found in folder.glob(f"fold_*/{checkpoint_name}")]
    for fold in [folds] if isinstance(folds, (str, int)) else folds:
        file = folder / f"fold_{fold}" / checkpoint_name
        if not file.is_file():
            there = sorted(found.parent.name for found in folder.glob(f"fold_*/{checkpoint_name}"))
            raise ModelError(
                f"There is no {file}. Folds with {checkpoint_name}: {', '.join(there) or 'none'} (option -f)."
            )
        read_checkpoint(file)


def _refuse(selection: Selection) -> None:
    """Stop if something was selected for a model that cannot select."""
    if selection:
        raise ModelError(
            f"Targets or a context were given ({selection.targets or selection.context!r}), but the model is not a "
            "DuPLUS model and cannot select. Leave out --targets, --context, DUPLUS_TARGETS and DUPLUS_CONTEXT, or "
            "name a model of a DuPLUS trainer with -tr and -p."
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
        PromptBank(plans)
        _check_checkpoints(Path(model_training_output_dir), use_folds, checkpoint_name)
        original(self, model_training_output_dir, use_folds, checkpoint_name)
        apply_selection(self, selection)

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
