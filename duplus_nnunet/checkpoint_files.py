"""Reads and writes checkpoint files: the one place where a checkpoint is loaded, checked and refused.

A checkpoint is a zip file in which torch stores a pickle. A pickle can run any code when it is loaded, so only plain
types, tensors and the NumPy scalars of nnU-Net's own log are accepted. Damage is found by checksums: of the zip file,
which torch does not compare, and by those that our trainers write for each part of the content.
"""

import contextlib
import hashlib
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from duplus_nnunet.errors import ModelError

if TYPE_CHECKING:
    import torch

# Key of the checksums in a checkpoint of our trainers: SHA-256 by the key of the part.
CHECKSUMS_KEY = "duplus_checksums"
# nnU-Net's checkpoints in the order in which it looks for one to continue from.
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
# Set to 1, it allows checkpoints that hold other Python objects, and so any code.
UNSAFE_VARIABLE = "DUPLUS_UNSAFE_CHECKPOINTS"

# NumPy's types of the numbers in nnU-Net's log and best score.
_NUMBERS = ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")
# A checkpoint pickled with NumPy 1 names the first of these modules, with NumPy 2 the second.
_SCALAR_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


def read_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net or of this package onto the CPU, without running code that it may hold.

    Args:
        file: The checkpoint.

    Returns:
        Its content, without the checksums.

    Raises:
        ModelError: It is missing, no regular file, damaged, no checkpoint, or holds objects that no checkpoint of
            nnU-Net holds.
    """
    path = Path(file)
    _require_regular(path)
    _check_zip(path)
    content = _load(path)
    if not isinstance(content, dict) or not isinstance(content.get("network_weights"), Mapping):
        raise ModelError(
            f"The checkpoint {path} has no 'network_weights', so it is not a checkpoint of nnU-Net. Give a file such "
            "as fold_0/checkpoint_final.pth of a model folder."
        )
    checksums = content.pop(CHECKSUMS_KEY, {})
    _check_parts(path, content, checksums)
    return content


def save_checkpoint(content: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """Write a checkpoint with checksums of its parts.

    Args:
        content: Plain types and tensors by key.
        file: File to write; the caller makes sure that it is written atomically.
    """
    import torch

    checksums = {key: compute_checksum(value) for key, value in content.items()}
    torch.save({**content, CHECKSUMS_KEY: checksums}, file)


def require_finite_weights(weights: Mapping[str, Any], file: object) -> None:
    """Refuse weights to start from that are not finite, of which a training would learn nothing.

    Args:
        weights: `network_weights` of a checkpoint.
        file: The checkpoint, for the message.

    Raises:
        ModelError: Some are NaN or infinite.
    """
    import torch

    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    damaged = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if damaged:
        raise ModelError(
            f"{len(damaged)} of {len(tensors)} weights in {file} are NaN or infinite, first {damaged[0]!r}; nothing "
            "can be trained from them. Take another checkpoint in its folder, or copy it again."
        )


def compute_checksum(value: Any) -> str:
    """Compute the SHA-256 of plain types and tensors: of names and order, of dtype, shape and bytes of each tensor."""
    digest = hashlib.sha256()
    for part in _list_bytes(value):
        digest.update(part)
    return digest.hexdigest()


def _list_bytes(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)} ".encode()
        yield _view_bytes(value)
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)} ".encode()
        for key, item in value.items():
            yield f"{key!r} ".encode()
            yield from _list_bytes(item)
    elif isinstance(value, (list, tuple)):
        yield f"{'list' if isinstance(value, list) else 'tuple'} {len(value)} ".encode()
        for item in value:
            yield from _list_bytes(item)
    else:
        yield f"{value!r} ".encode()


def _view_bytes(tensor: "torch.Tensor") -> Any:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _require_regular(path: Path) -> None:
    """Refuse what is no regular file: reading a pipe or a device may wait for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ModelError(f"There is no checkpoint {path}.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"The checkpoint {path} cannot be read: {error}.") from error
    if not stat.S_ISREG(mode):
        raise ModelError(f"{path} is a folder, a pipe or a device, not a checkpoint file.")


def _check_zip(path: Path) -> None:
    """Compare the checksum of each record of the zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [record.filename for record in archive.infolist() if record.compress_type != zipfile.ZIP_STORED]
            damaged = packed[0] if packed else archive.testzip()
    except Exception as error:  # a damaged zip file raises many kinds
        raise _describe_damage(path, _shorten(error)) from error
    if damaged is not None:
        raise _describe_damage(path, f"its record {damaged!r} is not what was written")


def _check_parts(path: Path, content: Mapping[str, Any], checksums: Any) -> None:
    """Compare the checksums that our trainers write; a part that was taken out of the file is not compared."""
    if not isinstance(checksums, Mapping):
        raise _describe_damage(path, f"{CHECKSUMS_KEY!r} is no list of checksums")
    changed = [key for key in content if key in checksums and checksums[key] != compute_checksum(content[key])]
    if changed:
        raise ModelError(
            f"The checkpoint {path} was changed after it was written: the checksum of {', '.join(map(repr, changed))} "
            f"differs. Copy it again, or take another one in its folder. If you changed it yourself, remove its key "
            f"{CHECKSUMS_KEY!r}."
        )


def _describe_damage(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"The checkpoint {path} cannot be read ({reason}). It is incomplete or damaged, or not a checkpoint of torch "
        "1.6 or newer. Copy it again, or use another one in its folder (checkpoint_latest.pth, checkpoint_best.pth)."
    )


def _load(path: Path) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_list_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _find_reason(path, error)
        if os.environ.get(UNSAFE_VARIABLE) != "1":
            raise ModelError(
                f"The checkpoint {path} is refused ({reason}): it may be malicious, since loading such a file can run "
                "any code with your rights. nnU-Net and DuPLUS do not write such files. If you trust where it comes "
                f"from, set {UNSAFE_VARIABLE}=1 to load it without this protection."
            ) from error
    except Exception as error:  # unpickling arbitrary bytes can raise any exception
        raise _describe_damage(path, _shorten(error)) from error
    warnings.warn(
        f"{UNSAFE_VARIABLE} is set: {path} ({reason}) is loaded without protection, and may run any code.",
        RuntimeWarning,
        stacklevel=3,
    )
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise _describe_damage(path, _shorten(error)) from error


def _find_reason(path: Path, error: Exception) -> str:
    """Name the objects that are not allowed, or what else was wrong."""
    import torch

    with contextlib.suppress(Exception), torch.serialization.safe_globals(_list_allowed()):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if names:
            return f"it holds {', '.join(sorted(names)[:3])}"
    return _shorten(error)


def _shorten(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no details'])[0]}"


def _list_allowed() -> list[Any]:
    """List what a checkpoint of nnU-Net holds beside plain types and tensors: NumPy scalars."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(name)) for name in _NUMBERS}
    return [np.dtype, *kinds, *((scalar, f"{module}.scalar") for module in _SCALAR_MODULES)]
