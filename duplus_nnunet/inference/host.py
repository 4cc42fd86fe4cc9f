"""nnU-Net's predictor for our models: loads them safely, binds the selection, checks images at the border."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.binding import Binding
from duplus_nnunet.inference.free_text import Reading, describe_reading
from duplus_nnunet.inference.images import check_source, patch_checks
from duplus_nnunet.inference.mirroring import find_network, patch_windows
from duplus_nnunet.inference.options import get_options
from duplus_nnunet.inference.reading import take_item
from duplus_nnunet.inference.records import describe_model
from duplus_nnunet.inference.selection import Selection, get_selection, read_model_plans
from duplus_nnunet.inference.session import Call, get_session, open_session
from duplus_nnunet.inference.skipping import patch_skipping
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.reporting.presence_files import read_calibration
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
        if get_options().jobs is not None and selection.context is None:
            # Each job says which context it has; until then, any will do.
            selection = replace(selection, context=PromptBank(plans).default_context)
        _check_checkpoints(Path(model_training_output_dir), use_folds, checkpoint_name, PromptBank(plans).embedding)
        original(self, model_training_output_dir, use_folds, checkpoint_name)
        folder = Path(model_training_output_dir)
        self.duplus_model = describe_model(folder, use_folds, checkpoint_name)
        self.duplus_calibration = read_calibration(folder, self.duplus_model.folds)
        values = {target["name"]: self.dataset_json["labels"][target["label"]] for target in PromptBank(plans).targets}
        sys.stdout.write(describe_reading(apply_selection(self, selection), values))
        network = find_network(self)
        if network is not None:
            network.cpu_bfloat16 = get_options().precision != "float32"

    return initialize


def _is_bound(predictor: Any) -> bool:
    """Say whether a predictor holds one of our models, bound to what was asked for."""
    return getattr(predictor, "duplus_binding", None) is not None


def wrap_files(original: Callable[..., Any]) -> Callable[..., Any]:
    """Check what is to be predicted, then let nnU-Net do it; a table of jobs is one call for each selection."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def predict(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_bound(self):
            return original(self, *args, **kwargs)
        call = signature.bind(self, *args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        source, output = (given[name] for name in list(given)[1:3])
        self.duplus_binding.bind_all(self)
        with open_session(self, get_options(), _describe_call(given, output)) as session:
            if session.options.jobs is None:
                check_source(source, self.dataset_json)
                return original(*call.args, **call.kwargs)
            for files, names in session.walk_jobs():
                outputs = [os.path.join(output, name) for name in names]
                given.update(zip(list(given)[1:3], (files, outputs), strict=True))
                original(*call.args, **call.kwargs)
            return None

    return predict


def _describe_call(given: Mapping[str, Any], output: Any) -> Call:
    folder = os.path.dirname(output[0]) if isinstance(output, list) else output
    return Call(
        None if folder is None else Path(folder),
        given["overwrite"],
        given["save_probabilities"],
        (given["part_id"], given["num_parts"]),
    )


def wrap_sequential(original: Callable[..., Any]) -> Callable[..., Any]:
    """Predict as ever: nothing of ours is done in other processes anyway."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def predict(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_bound(self):
            return original(self, *args, **kwargs)
        call = signature.bind(self, *args, **kwargs)
        call.apply_defaults()
        shared = list(call.arguments)[1:5]  # nnU-Net's two methods begin with the same four parameters
        return self.predict_from_files(*(call.arguments[name] for name in shared))

    return predict


def wrap_lists(original: Callable[..., Any]) -> Callable[..., Any]:
    """Compare cases with the table of contexts, and leave out those that are complete."""

    @functools.wraps(original)
    def manage(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_bound(self):
            return original(self, *args, **kwargs)
        call = inspect.signature(original).bind(self, *args, **kwargs)
        call.apply_defaults()
        overwrite, call.arguments["overwrite"] = call.arguments["overwrite"], True
        lists = original(*call.args, **call.kwargs)
        names = [os.path.basename(name) for name in lists[1]] if lists[1] else None
        self.duplus_binding.check_cases([files[0] for files in lists[0]], names)
        return lists if overwrite else get_session(self).leave_out_complete(lists)

    return manage


def wrap_reading(original: Callable[..., Any]) -> Callable[..., Any]:
    """Read cases ahead in threads; one that cannot be read does not end the others."""

    @functools.wraps(original)
    def read(self: Any, inputs: Any, previous: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_bound(self):
            return original(self, inputs, previous, outputs, *args, **kwargs)
        return get_session(self).read(inputs, outputs)

    return read


def wrap_iterator(original: Callable[..., Any]) -> Callable[..., Any]:
    """Predict cases as they come, each in its context, and write them meanwhile."""

    @functools.wraps(original)
    def predict(self: Any, data_iterator: Any, save_probabilities: bool = False, *args: Any, **kwargs: Any) -> Any:
        if not _is_bound(self):
            return original(self, data_iterator, save_probabilities, *args, **kwargs)
        return get_session(self, save_probabilities).predict(map(take_item, data_iterator))

    return predict


def wrap_case(original: Callable[..., Any]) -> Callable[..., Any]:
    """Bind our models to the context of a single image that nnU-Net preprocessed in this very thread."""

    @functools.wraps(original)
    def predict(self: Any, data: Any) -> Any:
        if _is_bound(self):
            from duplus_nnunet.planners.preprocessor import take_last

            properties = take_last()
            if properties is not None:
                self.duplus_binding.bind_case(self, properties)
        return original(self, data)

    return predict


def wrap_threads(original: Callable[..., Any]) -> Callable[..., Any]:
    """Use all processors that this process may use; nnU-Net takes eight at most."""

    @functools.wraps(original)
    def predict(self: Any, input_image: Any) -> Any:
        if not _is_bound(self) or self.device.type != "cpu":
            return original(self, input_image)
        before = torch.get_num_threads()
        torch.set_num_threads(count_processors())
        try:
            return original(self, input_image)
        finally:
            torch.set_num_threads(before)

    return predict


def count_processors() -> int:
    """Count the processors that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def patch_predictor(predictor: Any) -> None:
    """Wrap the methods of nnU-Net's predictor class that have to know our models."""
    wraps = {
        "initialize_from_trained_model_folder": wrap_initialize,
        "predict_from_files": wrap_files,
        "predict_from_files_sequential": wrap_sequential,
        "_manage_input_and_output_lists": wrap_lists,
        "_internal_get_data_iterator_from_lists_of_filenames": wrap_reading,
        "predict_from_data_iterator": wrap_iterator,
        "predict_logits_from_preprocessed_data": wrap_case,
        "predict_sliding_window_return_logits": wrap_threads,
    }
    for name, wrap in wraps.items():
        setattr(predictor, name, wrap(getattr(predictor, name)))
    patch_checks(predictor)
    patch_windows(predictor)
    patch_skipping(predictor)
