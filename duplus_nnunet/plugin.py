"""Lists every change that the start-up hook makes in nnU-Net in one table, and makes them.

`_autoload` calls `is_changed` for each module of nnU-Net that is imported, and `change` as soon as such a module has
been executed, before other code can import a name from it. Nothing of nnU-Net is imported at the top of this module.
"""

import functools
import importlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from duplus_nnunet.command_checks import check_training_first, refuse_misspelt, with_device
from duplus_nnunet.errors import DuplusError, HostError, ModelError
from duplus_nnunet.host.probe import list_differences, probe_module
from duplus_nnunet.host.version import check_host, is_supported, is_tested, read_host_version
from duplus_nnunet.plans_section import PLANS_KEY, refuse_unplanned

PLANNERS = "duplus_nnunet.planners"
TRAINERS = "duplus_nnunet.trainers"

# nnU-Net's folder for a kind of class -> our classes of that kind -> the module that each is imported from, on demand.
CLASSES: dict[str, dict[str, str]] = {
    "nnunetv2.experiment_planning": {
        "DuPLUSPlanner": PLANNERS,
        "DuPLUSPlannerResEncM": PLANNERS,
        "DuPLUSPlannerResEncL": PLANNERS,
        "DuPLUSPlannerResEncXL": PLANNERS,
    },
    "nnunetv2.preprocessing": {"DuPLUSPreprocessor": PLANNERS},
    "nnunetv2.preprocessing.normalization": {"SUVNormalization": PLANNERS},
    "nnunetv2.utilities.label_handling": {"DuPLUSLabelManager": PLANNERS},
    "nnunetv2.training.nnUNetTrainer": {
        "DuPLUSTrainer": TRAINERS,
        "DuPLUSLoRATrainer": TRAINERS,
        "DuPLUSSurvivalTrainer": f"{TRAINERS}.survival",
    },
}

# Options that this package adds to nnU-Net's prediction commands.
OPTIONS = frozenset({"--targets", "--prompt", "--context", "--list-targets"})
# Option that this package adds to the planning commands: the trained model that a dataset is planned for.
BASE_OPTION = "--from-model"
# Words of a command line that ask for this package.
OUR_WORDS = OPTIONS | {BASE_OPTION}.union(*CLASSES.values())

Entry = Callable[..., Any]


@dataclass(frozen=True)
class Change:
    """One name of nnU-Net that the hook replaces."""

    module: str
    attribute: str
    what: str
    reason: str
    wrap: Callable[[Any], Any]

    @property
    def dotted_name(self) -> str:
        """The dotted name of what is replaced, such as `nnunetv2.run.run_training.run_training_entry`."""
        return f"{self.module}.{self.attribute}"


# --- replacements of nnU-Net's functions


def wrap_lookup(original: Entry) -> Entry:
    """Resolve the names of our classes in nnU-Net's folder of their kind; leave every other name to nnU-Net."""

    @functools.wraps(original)
    def find_class(folder: str, class_name: str, current_module: str | None, *args: Any, **kwargs: Any) -> Any:
        ours = CLASSES.get(current_module or "", {})
        home = ours.get(class_name)
        if home is None:
            found = original(folder, class_name, current_module, *args, **kwargs)
            if found is None:
                refuse_misspelt(("", class_name), "", ours)
            return found
        check_host()
        return getattr(importlib.import_module(home), class_name)

    return find_class


def wrap_pretrained(original: Entry) -> Entry:
    """Let a network that has the method `load_pretrained` load pretrained weights itself."""

    @functools.wraps(original)
    def load_pretrained_weights(network: Any, fname: str, *args: Any, **kwargs: Any) -> Any:
        from duplus_nnunet.networks import unwrap

        inner = unwrap(network)
        if not hasattr(inner, "load_pretrained"):
            return original(network, fname, *args, **kwargs)
        checkpoint = read_pretrained(fname)
        if getattr(inner, "check_pretrained", None) is not None:
            inner.check_pretrained(checkpoint, fname)
        fresh = inner.load_pretrained(checkpoint["network_weights"])
        loaded = [name for name in inner.state_dict().keys() - set(fresh or ()) if not name.startswith("adapters.")]
        report = getattr(inner, "report_pretrained", None) or (lambda text: sys.stdout.write(f"{text}\n"))
        report(f"Pretrained weights loaded from {fname}: {name_parts(loaded)}; newly initialised: {name_parts(fresh)}")
        return fresh

    return load_pretrained_weights


def name_parts(weights: Iterable[str] | None) -> str:
    """Name the parts of a network that weights belong to, such as `film` or `decoder.seg_layers`; "none" if empty."""
    parts = {re.sub(r"^(decoder\.seg_layers|[^.]+).*", r"\1", name) for name in weights or ()}
    return ", ".join(sorted(parts)) or "none"


def read_pretrained(path: str) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net or of this package onto the CPU.

    Raises:
        ModelError: If the file is missing, damaged, may be malicious, or holds no network weights.
    """
    from duplus_nnunet.checkpoint_files import read_checkpoint

    try:
        return read_checkpoint(path)
    except ModelError as error:
        raise ModelError(f"The weights for -pretrained_weights cannot be used. {error}") from error


def wrap_preprocess(original: Entry) -> Entry:
    """Refuse configurations that DuPLUS plans never contain if the caller named them; keep the default list."""
    signature = inspect.signature(original)
    default = signature.parameters["configurations"].default

    @functools.wraps(original)
    def preprocess_dataset(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        configurations = call.arguments["configurations"]
        plans_name = call.arguments["plans_identifier"]
        ours = has_our_plans(call.arguments["dataset_id"], plans_name)
        if ours and tuple(configurations) != tuple(default):
            refuse_unplanned(configurations, f"the plans {plans_name!r}")
        result = original(*args, **kwargs)
        if ours:
            importlib.import_module(f"{PLANNERS}.references").round_references(call.arguments["dataset_id"], plans_name)
        return result

    return preprocess_dataset


def has_our_plans(dataset_id: int, plans_name: str) -> bool:
    """Report whether a dataset's plans of that name, in nnU-Net's folder of preprocessed data, are DuPLUS plans."""
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    path = os.path.join(nnUNet_preprocessed, convert_id_to_dataset_name(dataset_id), f"{plans_name}.json")
    try:
        with open(path, encoding="utf-8") as file:
            return PLANS_KEY in json.load(file)
    except (OSError, json.JSONDecodeError):
        return False  # nnU-Net reads the same file next and reports what is wrong with it


def wrap_entry(original: Entry) -> Entry:
    """End a command of nnU-Net with the message of our error and exit code 1 instead of a stack trace."""

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except DuplusError as error:
            sys.exit(f"error: {error}")

    return run


def wrap_unsupported_entry(original: Entry) -> Entry:
    """Make a command of an unsupported nnU-Net report its version if our classes or options are asked for."""

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        if OUR_WORDS & set(sys.argv):
            check_host()
        return original(*args, **kwargs)

    return wrap_entry(run)


def wrap_plan_entry(original: Entry) -> Entry:
    """Let a planning command of nnU-Net check our planners' input first, and accept `--from-model`."""

    @functools.wraps(original)
    def plan_entry() -> Any:
        words, planners = set(sys.argv), CLASSES["nnunetv2.experiment_planning"]
        ours = bool(words & set(planners))
        refuse_misspelt(sys.argv, "-pl", planners)
        if not ours and not words & {BASE_OPTION, "-h", "--help"}:
            return original()
        check_host()
        return importlib.import_module(f"{PLANNERS}.entry").plan(original, ours)

    return wrap_entry(plan_entry)


def wrap_predict_entry(original: Entry) -> Entry:
    """Give one of the two prediction commands the selection of targets and context, and a device that is available."""
    from duplus_nnunet.inference.entry import wrap_entry_point

    return wrap_entry(with_device(wrap_entry_point(original), "--list-targets", "--list_targets"))


def wrap_train_entry(original: Entry) -> Entry:
    """Let the training command use the CPU if there is no GPU, and end with the message of our error."""
    return wrap_entry(with_device(original))


def wrap_predictor(predictor: type) -> type:
    """Let nnU-Net's predictor handle our networks."""
    from duplus_nnunet.inference.takeover import patch_predictor

    patch_predictor(predictor)
    return predictor


def wrap_export(original: Entry) -> Entry:
    """Give nnU-Net's label maps the orientation of their image, which our preprocessor may have turned."""

    @functools.wraps(original)
    def convert(
        predicted_logits: Any,
        plans_manager: Any,
        configuration_manager: Any,
        label_manager: Any,
        properties_dict: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        import numpy as np

        from duplus_nnunet.data.orientations import NO_REORIENTATION, read_turn

        turn, managers = read_turn(properties_dict), (plans_manager, configuration_manager, label_manager)
        if turn == NO_REORIENTATION:
            return original(predicted_logits, *managers, properties_dict, *args, **kwargs)
        turned = {**properties_dict, "spacing": turn.sort(properties_dict["spacing"])}
        made = original(predicted_logits, *managers, turned, *args, **kwargs)
        parts = made if isinstance(made, tuple) else (made,)
        back = tuple(np.ascontiguousarray(turn.invert().apply(values)) for values in parts)
        return back if isinstance(made, tuple) else back[0]

    return convert


# --- the table

_PREDICT = "nnunetv2.inference.predict_from_raw_data"
_ENTRYPOINTS = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
_NO_TRACE = "an error that the user can correct ends with its message and exit code 1"
_NO_TRACE_REASON = "nnU-Net's commands print a stack trace for every error"
_SELECTION = (
    "accepts --targets, --prompt, --context and --list-targets; given for a stock model, they end with an error"
)
_SELECTION_REASON = "nnU-Net's parser refuses options that it does not know"

LOOKUP = Change(
    "nnunetv2.utilities.find_class_by_name",
    "recursive_find_python_class",
    "the names of our planners, preprocessor, label manager and trainers resolve to our classes",
    "nnU-Net looks classes up by name in its own folders only, in workers too",
    wrap_lookup,
)

CHANGES = (
    LOOKUP,
    Change(
        "nnunetv2.run.load_pretrained_weights",
        "load_pretrained_weights",
        "a DuPLUS network loads pretrained weights itself",
        "nnU-Net requires every key but the segmentation layers to be present with an equal shape",
        wrap_pretrained,
    ),
    Change(_PREDICT, "predict_entry_point", _SELECTION, _SELECTION_REASON, wrap_predict_entry),
    Change(_PREDICT, "predict_entry_point_modelfolder", _SELECTION, _SELECTION_REASON, wrap_predict_entry),
    Change(
        _PREDICT,
        "nnUNetPredictor",
        "a DuPLUS model predicts the selected targets, each case in its context; mirroring exchanges left and right",
        "nnU-Net gives the network the image alone, mirrors without telling it, and sizes its output by dataset.json",
        wrap_predictor,
    ),
    Change(
        "nnunetv2.inference.export_prediction",
        "convert_predicted_logits_to_segmentation_with_correct_shape",
        "label maps of images that our preprocessor turned to the training's orientation are turned back",
        "nnU-Net undoes its crop and its order of axes only",
        wrap_export,
    ),
    Change(
        "nnunetv2.experiment_planning.plan_and_preprocess_api",
        "preprocess_dataset",
        "2d and 3d_cascade_fullres, named for DuPLUS plans, are refused; the default list is not",
        "nnU-Net silently skips a configuration that the plans do not contain",
        wrap_preprocess,
    ),
    Change(
        _ENTRYPOINTS,
        "plan_and_preprocess_entry",
        "accepts --from-model; configurations, labels and prompts are checked for our planners before the fingerprint "
        f"is extracted; {_NO_TRACE}",
        "nnU-Net's parser refuses options that it does not know; the fingerprint of a large dataset takes long",
        wrap_plan_entry,
    ),
    Change(
        _ENTRYPOINTS,
        "plan_experiment_entry",
        f"accepts --from-model; {_NO_TRACE}",
        "as for plan_and_preprocess_entry",
        wrap_plan_entry,
    ),
    Change(_ENTRYPOINTS, "preprocess_entry", _NO_TRACE, _NO_TRACE_REASON, wrap_entry),
    Change(
        "nnunetv2.run.run_training",
        "run_training_entry",
        f"uses the CPU, with a note, if no -device is given and there is no GPU; {_NO_TRACE}",
        _NO_TRACE_REASON,
        wrap_train_entry,
    ),
    Change(
        "nnunetv2.run.run_training",
        "run_training",
        "DuPLUS plans are refused for other trainers, and plans that do not exist if there are DuPLUS plans",
        "nnU-Net trains on any plans, and what is not annotated would be learnt as background",
        check_training_first,
    ),
)

# Dotted name of each change tried so far -> why it failed, "" if it was made. Read by `duplus doctor`.
outcomes: dict[str, str] = {}


def is_changed(module_name: str) -> bool:
    """Report whether the hook changes anything in that module of nnU-Net."""
    return any(row.module == module_name for row in CHANGES)


def change(module: ModuleType) -> None:
    """Make the table's changes in a module of nnU-Net that has just been executed.

    A change that fails leaves nnU-Net's own function in place, with a warning, so that stock models still run. In an
    unsupported nnU-Net only the look-up and the commands are changed, to report the version; in an untested one that
    lacks something in this module, only the commands.
    """
    version = _read_version()
    offered = is_tested(version) or not list_differences(probe_module(module.__name__))
    for row in CHANGES:
        if row.module != module.__name__:
            continue
        if offered and (row is LOOKUP or is_supported(version)):
            _make(row, row.wrap, module)
        elif "entry" in row.attribute and hasattr(module, row.attribute):
            _make(row, wrap_unsupported_entry, module)


def _make(row: Change, wrap: Callable[[Any], Any], module: ModuleType) -> None:
    try:
        setattr(module, row.attribute, wrap(getattr(module, row.attribute)))
        outcomes[row.dotted_name] = ""
    except Exception as error:
        outcomes[row.dotted_name] = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"DuPLUS could not change {row.dotted_name} ({outcomes[row.dotted_name]}), so nnU-Net's own is used. "
            "Run `duplus doctor`.",
            RuntimeWarning,
            stacklevel=2,
        )


@functools.cache
def _read_version() -> str:
    """Return the version of the installed nnU-Net, "" if it has no metadata."""
    try:
        return read_host_version()
    except HostError:
        return ""
