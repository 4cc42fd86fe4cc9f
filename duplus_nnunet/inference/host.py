"""nnU-Net's predictor for our models: loads them safely, binds the selection, checks images at the border."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.adaptation.files import read_adapter
from duplus_nnunet.adaptation.joining import join_labels
from duplus_nnunet.adaptation.loading import load_adapters
from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.binding import apply_selection
from duplus_nnunet.inference.free_text import describe_reading
from duplus_nnunet.inference.images import check_source, patch_checks
from duplus_nnunet.inference.mirroring import find_network, patch_windows
from duplus_nnunet.inference.reading import take_item
from duplus_nnunet.inference.records import describe_model, list_folds
from duplus_nnunet.inference.selection import Selection, get_selection, read_model_plans
from duplus_nnunet.inference.session import Call, get_session, open_session
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import BASE_KEY, PLANS_KEY


def bind(predictor: Any, prompts: Prompts, dataset_json: dict[str, Any]) -> None:
    """Bind a loaded predictor, for good, to prompts and to the dataset.json that declares a label for each of them."""
    predictor.duplus_binding = None
    getattr(predictor.network, "_orig_mod", predictor.network).bind(prompts)
    predictor.dataset_json = dataset_json
    predictor.label_manager = predictor.plans_manager.get_label_manager(dataset_json)


def _check_checkpoints(files: Sequence[Path], embedding: tuple[int, int], masks: bool) -> None:
    """Read every checkpoint with weights_only=True before nnU-Net reads it without, and compare it with the plans."""
    from duplus_nnunet.trainers.checkpoint import read_checkpoint, refuse_masks, require_embedding

    for file in files:
        if not file.is_file():
            there = ", ".join(f"fold_{name}" for name in list_folds(file.parents[1], None, file.name))
            raise ModelError(f"There is no {file}. Folds with {file.name}: {there or 'none'} (option -f).")
        found = read_checkpoint(file)
        require_embedding(found["network_weights"], embedding, file)
        if masks:
            refuse_masks(found, file)


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
        selection = get_selection()
        plans = read_model_plans(model_training_output_dir, selection.options.adapters)
        if PLANS_KEY not in plans:
            _refuse(selection)
            original(self, model_training_output_dir, use_folds, checkpoint_name)
            return
        bank, folder = PromptBank(plans), Path(model_training_output_dir)
        if selection.options.jobs is not None and selection.context is None:
            # Each job says which context it has; until then, any will do.
            selection = replace(selection, context=bank.default_context)
        folds = list_folds(folder, use_folds, checkpoint_name)
        files = [folder / f"fold_{fold}" / checkpoint_name for fold in folds]
        _check_checkpoints(files, bank.embedding, selection.masks)
        original(self, model_training_output_dir, use_folds, checkpoint_name)
        self.duplus_model = describe_model(folder, folds, checkpoint_name)
        _join_adapters(self, plans, selection.options.adapters)
        values = {target["name"]: self.dataset_json["labels"][target["label"]] for target in bank.targets}
        sys.stdout.write(describe_reading(apply_selection(self, selection), values))
        network = find_network(self)
        if network is not None:
            network.cpu_bfloat16, network.half_logits = selection.options.precision != "float32", True
            _share_weights(self, network)

    return initialize


def _share_weights(predictor: Any, network: torch.nn.Module) -> None:
    """Hold the weights of a single fold once: nnU-Net keeps those of each fold beside the network that runs."""
    if len(predictor.list_of_parameters) == 1:
        network.load_state_dict(predictor.list_of_parameters[0])
        predictor.list_of_parameters = [network.state_dict()]


def _join_adapters(predictor: Any, plans: dict[str, Any], places: Sequence[str]) -> None:
    """Make one model of a loaded one and its adapters.

    Args:
        predictor: nnU-Net's, as nnU-Net loaded it.
        plans: Those that know the prompts of all.
        places: Folders of adapters that are no part of the model itself.
    """
    own, adapters = predictor.plans_manager.plans, [read_adapter(place) for place in places]
    network: Any = find_network(predictor)
    axes = {network.default_adapter: predictor.allowed_mirroring_axes}
    if BASE_KEY in own[PLANS_KEY]:
        axes[""] = own[PLANS_KEY][BASE_KEY]["mirroring_axes"]
    predictor.duplus_mirroring = {**axes, **{one.card.name: one.card.mirroring_axes for one in adapters}}
    if adapters:
        predictor.list_of_parameters = load_adapters(network, predictor.list_of_parameters, adapters)
        found = {f"adapter {adapter.card.name}": adapter.card.sha256 for adapter in adapters}
        model = predictor.duplus_model
        predictor.duplus_model = replace(model, checkpoints={**model.checkpoints, **found})
    members = [adapter.card.member for adapter in adapters]
    predictor.dataset_json = join_labels(own, predictor.dataset_json, members)
    predictor.plans_manager = type(predictor.plans_manager)(plans)


def _for_ours(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of nnU-Net's predictor do something else where it holds one of our models, bound to a selection.

    Args:
        original: nnU-Net's method.
        ours: Takes the predictor, and the arguments of a call by name, defaults filled in.
    """
    signature = inspect.signature(original)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "duplus_binding", None) is None:
            return original(self, *args, **kwargs)
        call = signature.bind(self, *args, **kwargs)
        call.apply_defaults()
        given = dict(list(call.arguments.items())[1:])
        return ours(self, given)

    return method


# nnU-Net's names for what is to be predicted and where it goes; both methods that predict files have them.
_SOURCE, _OUTPUT = "list_of_lists_or_source_folder", "output_folder_or_list_of_truncated_output_files"
_SHARED = (_SOURCE, _OUTPUT, "save_probabilities", "overwrite")


def wrap_files(original: Callable[..., Any]) -> Callable[..., Any]:
    """Check what is to be predicted, then let nnU-Net do it; a table of jobs is one call for each selection."""

    def predict(self: Any, given: dict[str, Any]) -> Any:
        self.duplus_binding.bind_all(self)
        with open_session(self, get_selection().options, _describe_call(given)) as session:
            if session.options.jobs is None:
                check_source(given[_SOURCE], self.dataset_json)
                return original(self, **given)
            for files, names in session.walk_jobs():
                outputs = [os.path.join(given[_OUTPUT], name) for name in names]
                original(self, **{**given, _SOURCE: files, _OUTPUT: outputs})
            return None

    return _for_ours(original, predict)


def _describe_call(given: Mapping[str, Any]) -> Call:
    output = given[_OUTPUT]
    folder = os.path.dirname(output[0]) if isinstance(output, list) else output
    return Call(
        None if folder is None else Path(folder),
        given["overwrite"],
        given["save_probabilities"],
        (given["part_id"], given["num_parts"]),
    )


def wrap_sequential(original: Callable[..., Any]) -> Callable[..., Any]:
    """Predict as ever: nothing of ours is done in other processes anyway."""
    return _for_ours(original, lambda self, given: self.predict_from_files(**{name: given[name] for name in _SHARED}))


def wrap_lists(original: Callable[..., Any]) -> Callable[..., Any]:
    """Compare cases with the table of contexts, and leave out those that are complete."""

    def manage(self: Any, given: dict[str, Any]) -> Any:
        lists = original(self, **{**given, "overwrite": True})
        names = [os.path.basename(name) for name in lists[1]] if lists[1] else None
        self.duplus_binding.check_cases([files[0] for files in lists[0]], names)
        return lists if given["overwrite"] else get_session(self).leave_out_complete(lists)

    return _for_ours(original, manage)


def wrap_reading(original: Callable[..., Any]) -> Callable[..., Any]:
    """Read cases ahead in threads; one that cannot be read does not end the others."""

    def read(self: Any, given: dict[str, Any]) -> Any:
        return get_session(self).read(given["input_list_of_lists"], given["output_filenames_truncated"])

    return _for_ours(original, read)


def wrap_iterator(original: Callable[..., Any]) -> Callable[..., Any]:
    """Predict cases as they come, each in its context, and write them meanwhile."""

    def predict(self: Any, given: dict[str, Any]) -> Any:
        session = get_session(self, given["save_probabilities"])
        return session.predict(map(take_item, given["data_iterator"]))

    return _for_ours(original, predict)


def wrap_case(original: Callable[..., Any]) -> Callable[..., Any]:
    """Bind our models to the context of a single image that nnU-Net preprocessed in this very thread."""

    def predict(self: Any, given: dict[str, Any]) -> Any:
        from duplus_nnunet.planners.preprocessor import take_last

        properties = take_last()
        if properties is not None:
            self.duplus_binding.bind_case(self, properties)
        return original(self, **given)

    return _for_ours(original, predict)


def wrap_threads(original: Callable[..., Any]) -> Callable[..., Any]:
    """Use all processors that this process may use; nnU-Net takes eight at most."""

    def predict(self: Any, given: dict[str, Any]) -> Any:
        if self.device.type != "cpu":
            return original(self, **given)
        before = torch.get_num_threads()
        torch.set_num_threads(count_processors())
        try:
            return original(self, **given)
        finally:
            torch.set_num_threads(before)

    return _for_ours(original, predict)


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
