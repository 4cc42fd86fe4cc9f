"""How nnU-Net finds this package: every change that the start-up hook makes in nnU-Net, in one table.

`_autoload` asks `is_changed` for each module of nnU-Net that is imported, and calls `change` as soon as one of them has
been executed, before anybody else can import a name from it. Nothing of nnU-Net is imported here at the top.
"""

import functools
import importlib
import importlib.metadata
import inspect
import json
import os
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from duplus_nnunet import __version__
from duplus_nnunet.errors import DuplusError, HostError, ModelError
from duplus_nnunet.plans_section import PLANS_KEY, refuse_unplanned

LOWEST_HOST = (2, 8)
FIRST_UNSUPPORTED_HOST = (2, 9)
SUPPORTED_HOSTS = "nnunetv2>=2.8,<2.9"

PLANNERS = "duplus_nnunet.planners"
TRAINERS = "duplus_nnunet.trainers"

# nnU-Net's folder for a kind of class -> our classes of that kind -> where each is imported from, once asked for.
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

# Options of the prediction commands that are not nnU-Net's.
OPTIONS = frozenset({"--targets", "--context", "--list-targets"})
# Of the planning commands: the trained model that a dataset is planned for.
BASE_OPTION = "--from-model"

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
    def place(self) -> str:
        """The dotted name of what is replaced."""
        return f"{self.module}.{self.attribute}"


# --- the host's version


def read_host_version() -> str:
    """Return the version of the installed nnU-Net.

    Raises:
        HostError: If no nnU-Net is installed.
    """
    try:
        return importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        raise HostError(
            f"No installed nnU-Net was found by {sys.executable}; DuPLUS {__version__} is a plug-in for it. "
            f"Install one with `pip install '{SUPPORTED_HOSTS}'`."
        ) from None


def is_supported(version: str) -> bool:
    """Say whether this package was made for that version of nnU-Net."""
    found = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return LOWEST_HOST <= found < FIRST_UNSUPPORTED_HOST


def check_host() -> str:
    """Return the version of the installed nnU-Net if it is supported.

    Raises:
        HostError: If nnU-Net is missing or of another version.
    """
    version = read_host_version()
    if not is_supported(version):
        raise HostError(
            f"nnU-Net {version} is installed for {sys.executable}, but DuPLUS {__version__} needs {SUPPORTED_HOSTS}. "
            f"Install one with `pip install '{SUPPORTED_HOSTS}'`."
        )
    return version


# --- what takes the place of nnU-Net's own


def wrap_lookup(original: Entry) -> Entry:
    """Resolve our names, in nnU-Net's folder of their kind; leave every other name to nnU-Net."""

    @functools.wraps(original)
    def find_class(folder: str, class_name: str, current_module: str | None, *args: Any, **kwargs: Any) -> Any:
        home = CLASSES.get(current_module or "", {}).get(class_name)
        if home is None:
            return original(folder, class_name, current_module, *args, **kwargs)
        check_host()
        return getattr(importlib.import_module(home), class_name)

    return find_class


def wrap_pretrained(original: Entry) -> Entry:
    """Let a network that has `load_pretrained` take over the weights by itself."""

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
        sys.stdout.write(f"Pretrained weights of {fname} taken over; fresh: {name_parts(fresh)}\n")
        return fresh

    return load_pretrained_weights


def name_parts(weights: Sequence[str] | None) -> str:
    """Name the parts of a network that weights belong to, such as `film` or `decoder.seg_layers`."""
    parts = {re.sub(r"^(decoder\.seg_layers|[^.]+).*", r"\1", name) for name in weights or ()}
    return ", ".join(sorted(parts)) or "none"


def read_pretrained(path: str) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net or of this package, onto the CPU.

    Raises:
        ModelError: If the file is missing, damaged, or holds no network weights.
    """
    import torch

    try:
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            # nnU-Net's own checkpoints hold numpy scalars, and nnU-Net reads them like this.
            checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # reading bytes that are no pickle can end in any exception
        reason = (str(error).splitlines() or ["nothing in it"])[0]
        raise ModelError(
            f"The pretrained weights {path!r} cannot be read ({type(error).__name__}: {reason}). "
            "Give -pretrained_weights a complete checkpoint, such as fold_0/checkpoint_final.pth of a model folder."
        ) from error
    if not isinstance(checkpoint, dict) or "network_weights" not in checkpoint:
        raise ModelError(
            f"{path!r} is not a checkpoint of nnU-Net: it was expected to hold 'network_weights'. "
            "Give -pretrained_weights a file such as fold_0/checkpoint_final.pth of a model folder."
        )
    return checkpoint


def wrap_preprocess(original: Entry) -> Entry:
    """Refuse configurations that our plans never hold, where the caller named them; the default list stays as it is."""
    signature = inspect.signature(original)
    default = signature.parameters["configurations"].default

    @functools.wraps(original)
    def preprocess_dataset(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        asked = call.arguments["configurations"]
        plans_name = call.arguments["plans_identifier"]
        if tuple(asked) != tuple(default) and is_ours(call.arguments["dataset_id"], plans_name):
            refuse_unplanned(asked, f"the plans {plans_name!r}")
        return original(*args, **kwargs)

    return preprocess_dataset


def is_ours(dataset_id: int, plans_name: str) -> bool:
    """Say whether the plans of that name, in nnU-Net's folder for preprocessed data, are DuPLUS plans."""
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    path = os.path.join(nnUNet_preprocessed, convert_id_to_dataset_name(dataset_id), f"{plans_name}.json")
    try:
        with open(path, encoding="utf-8") as file:
            return PLANS_KEY in json.load(file)
    except (OSError, json.JSONDecodeError):
        return False  # nnU-Net reads the same file next, and says what is wrong with it


def wrap_entry(original: Entry) -> Entry:
    """End one of nnU-Net's commands with our message and exit code 1, where it would print our stack trace."""

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except DuplusError as error:
            sys.exit(f"error: {error}")

    return run


def wrap_entry_elsewhere(original: Entry) -> Entry:
    """Of an nnU-Net of another version: say so where our classes or options are asked for, without a stack trace."""

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        if OPTIONS & set(sys.argv):
            check_host()
        return original(*args, **kwargs)

    return wrap_entry(run)


def wrap_plan_entry(original: Entry) -> Entry:
    """Let one of nnU-Net's planning commands say early what would stop our planners, and take `--from-model`."""

    @functools.wraps(original)
    def plan_entry() -> Any:
        words = set(sys.argv)
        ours = bool(words & set(CLASSES["nnunetv2.experiment_planning"]))
        if not ours and not words & {BASE_OPTION, "-h", "--help"}:
            return original()
        check_host()
        return importlib.import_module(f"{PLANNERS}.entry").plan(original, ours)

    return wrap_entry(plan_entry)


def wrap_predict_entry(original: Entry) -> Entry:
    """Give one of the two prediction commands the selection of targets and context."""
    from duplus_nnunet.inference.entry import wrap_entry_point

    return wrap_entry(wrap_entry_point(original))


def wrap_predictor(predictor: type) -> type:
    """Let nnU-Net's predictor handle our networks."""
    from duplus_nnunet.inference.takeover import patch_predictor

    patch_predictor(predictor)
    return predictor


# --- the table

_PREDICT = "nnunetv2.inference.predict_from_raw_data"
_ENTRYPOINTS = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
_NO_TRACE = "an error that the user can put right ends with its message and exit code 1"
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
        "a DuPLUS network takes pretrained weights over by itself",
        "nnU-Net insists that every key but the segmentation layers is present with an equal shape",
        wrap_pretrained,
    ),
    Change(_PREDICT, "predict_entry_point", _SELECTION, _SELECTION_REASON, wrap_predict_entry),
    Change(_PREDICT, "predict_entry_point_modelfolder", _SELECTION, _SELECTION_REASON, wrap_predict_entry),
    Change(
        _PREDICT,
        "nnUNetPredictor",
        "a DuPLUS model predicts what was asked for, each case in its context; mirror images exchange left and right",
        "nnU-Net calls the network with the image alone, mirrors without saying so, sizes its output by dataset.json",
        wrap_predictor,
    ),
    Change(
        "nnunetv2.experiment_planning.plan_and_preprocess_api",
        "preprocess_dataset",
        "2d and 3d_cascade_fullres, asked for by name with DuPLUS plans, are refused; the default list is not",
        "nnU-Net skips a configuration that the plans do not hold without saying why",
        wrap_preprocess,
    ),
    Change(
        _ENTRYPOINTS,
        "plan_and_preprocess_entry",
        "accepts --from-model; what stops our planners (configurations, labels, prompts) does so before the "
        f"fingerprint; {_NO_TRACE}",
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
    Change("nnunetv2.run.run_training", "run_training_entry", _NO_TRACE, _NO_TRACE_REASON, wrap_entry),
)

# Place of each change tried so far -> why it could not be made, "" where it was. Read by `duplus doctor`.
outcomes: dict[str, str] = {}


def is_changed(module_name: str) -> bool:
    """Say whether the hook changes anything in that module of nnU-Net."""
    return any(row.module == module_name for row in CHANGES)


def change(module: ModuleType) -> None:
    """Make the table's changes in a module of nnU-Net that has just been executed.

    A change that cannot be made leaves nnU-Net's own in place, with a warning, so that stock models still run. With an
    nnU-Net of another version only the look-up and the commands are changed, to say so.
    """
    for row in CHANGES:
        if row.module != module.__name__:
            continue
        if row is LOOKUP or _host_is_supported():
            _make(row, row.wrap, module)
        elif "entry" in row.attribute and hasattr(module, row.attribute):
            _make(row, wrap_entry_elsewhere, module)


def _make(row: Change, wrap: Callable[[Any], Any], module: ModuleType) -> None:
    try:
        setattr(module, row.attribute, wrap(getattr(module, row.attribute)))
        outcomes[row.place] = ""
    except Exception as error:
        outcomes[row.place] = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"DuPLUS could not change {row.place} ({outcomes[row.place]}), so that nnU-Net's own is used. "
            "Run `duplus doctor`.",
            RuntimeWarning,
            stacklevel=2,
        )


@functools.cache
def _host_is_supported() -> bool:
    try:
        return is_supported(read_host_version())
    except HostError:
        return False
