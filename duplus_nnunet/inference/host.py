"""nnU-Net's predictor for our models: loads them safely, binds the selection, checks images at the border."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.binding import Binding
from duplus_nnunet.inference.free_text import Reading, describe_reading
from duplus_nnunet.inference.images import check_channels, patch_checks
from duplus_nnunet.inference.mirroring import patch_windows
from duplus_nnunet.inference.selection import Selection, get_selection, read_model_plans
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import PLANS_KEY


def apply_selection(predictor: Any, selection: Selection) -> Reading:
    """Bind a loaded predictor to what was asked for; everything it allots is sized by that.

    Returns:
        What the user's own texts stand for.

    Raises:
        PromptError: An unknown target or context, none where there are several, or a text that stands for nothing.
        EncoderError: A new text cannot be encoded by the model's own text encoder.
    """
    binding = Binding(predictor, selection)
    predictor.duplus_binding = binding
    binding.bind_all(predictor)
    return binding.first.reading


def bind(predictor: Any, prompts: Prompts, dataset_json: dict[str, Any]) -> None:
    """Bind a loaded predictor, for good, to prompts and to the dataset.json that declares a label for each of them."""
    predictor.duplus_binding = None
    getattr(predictor.network, "_orig_mod", predictor.network).bind(prompts)
    predictor.dataset_json = dataset_json
    predictor.label_manager = predictor.plans_manager.get_label_manager(dataset_json)


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
            binding = getattr(self, "duplus_binding", None)
            if binding is not None:
                binding.check_cases([files[0] for files in lists[0]])
        return lists

    return manage


def wrap_iterator(original: Callable[..., Any]) -> Callable[..., Any]:
    """Bind our models to the context of each case as it comes."""

    @functools.wraps(original)
    def predict(self: Any, data_iterator: Any, *args: Any, **kwargs: Any) -> Any:
        binding = getattr(self, "duplus_binding", None)
        items = data_iterator if binding is None else binding.follow(self, data_iterator)
        return original(self, items, *args, **kwargs)

    return predict


def wrap_case(original: Callable[..., Any]) -> Callable[..., Any]:
    """Bind our models to the context of the case that was preprocessed last, if that was in this very process."""

    @functools.wraps(original)
    def predict(self: Any, data: Any) -> Any:
        binding = getattr(self, "duplus_binding", None)
        if binding is not None:
            from duplus_nnunet.planners.preprocessor import take_last

            properties = take_last()
            if properties is not None:
                binding.bind_case(self, properties)
        return original(self, data)

    return predict


def patch_predictor(predictor: Any) -> None:
    """Wrap the methods of nnU-Net's predictor class that have to know our models."""
    predictor.initialize_from_trained_model_folder = wrap_initialize(predictor.initialize_from_trained_model_folder)
    predictor._manage_input_and_output_lists = wrap_lists(predictor._manage_input_and_output_lists)
    predictor.predict_from_data_iterator = wrap_iterator(predictor.predict_from_data_iterator)
    predictor.predict_logits_from_preprocessed_data = wrap_case(predictor.predict_logits_from_preprocessed_data)
    patch_checks(predictor)
    patch_windows(predictor)
