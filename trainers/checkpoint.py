"""Checkpoints of plain types: written to a temporary name and renamed, read with weights_only=True."""

import errno
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.settings import SCRATCH

# What a system says when no more can be written: no space, quota, size of a file.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Key of what DuPLUSSurvivalTrainer stores in a checkpoint.
SURVIVAL_KEY = "duplus_survival"


def make_plain(value: Any) -> Any:
    """Return the same content made of plain types and tensors: no numpy, no devices, no classes."""
    if isinstance(value, Mapping):
        return {key: make_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(make_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, torch.device) else value


def write_safely(file: str | os.PathLike[str], write: Callable[[str], None]) -> None:
    """Write a file under a temporary name and rename it; on an error the file that was there stays as it was.

    Raises:
        ModelError: It could not be written, for want of space or of permission.
    """
    target = Path(file)
    temporary = target.with_name(target.name + ".writing")
    try:
        write(str(temporary))
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        reason = _say_why(error, target.parent)
        temporary.unlink(missing_ok=True)
        raise ModelError(
            f"Could not write {target}: {reason}. What stood there before is unharmed. Free some space (or mend the "
            "permissions) and continue the training with --c."
        ) from error


def _say_why(error: Exception, folder: Path) -> str:
    """Return the system's reason; torch hides it behind positions in the file, so the free space stands beside it."""
    if isinstance(error, OSError):
        return str(error)
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB were left on the disk"
    except OSError:
        free = "the disk cannot be asked"
    return f"torch could not finish the file, {free} ({(str(error).splitlines() or [''])[0]})"


def read_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of ours.

    Raises:
        ModelError: It is missing, cut off, or holds more than plain types.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"There is no checkpoint {file}.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, OSError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The checkpoint {file} cannot be read ({first}). It was cut off while written, or is not one of DuPLUS. "
            "Remove it and continue from another one in its folder (checkpoint_latest.pth, checkpoint_best.pth)."
        ) from error
    if not isinstance(found, dict) or "network_weights" not in found:
        raise ModelError(f"The checkpoint {file} holds no 'network_weights'; it is not an nnU-Net checkpoint.")
    return found


def require_embedding(weights: Mapping[str, Any], expected: tuple[int, int], file: str | os.PathLike[str]) -> None:
    """Refuse weights that were trained on embeddings of other lengths than the plans hold.

    Args:
        weights: `network_weights` of a checkpoint.
        expected: Lengths of a context and of a target embedding in the plans.
        file: The checkpoint, for the message.

    Raises:
        ModelError: They differ.
    """
    layers = ("film.hidden.weight", "generator.from_target.weight")
    found = tuple(int(weights[name].shape[1]) if name in weights else 0 for name in layers)
    if 0 not in found and found != expected:
        raise ModelError(
            f"The checkpoint {file} was trained on text embeddings of length {found[0]}; its plans hold some of "
            f"length {expected[0]}, made by another text encoder. Put back the plans it was trained with, or train "
            "anew with these."
        )


def refuse_masks(checkpoint: Mapping[str, Any], file: Any) -> None:
    """Refuse to segment by a model whose decoder never learned, or to build on its masks.

    Raises:
        ModelError: Its encoder was trained by outcomes alone.
    """
    if checkpoint.get(SURVIVAL_KEY, {}).get("encoder") == SCRATCH:
        raise ModelError(
            f"{file} cannot segment: its encoder was trained from scratch for a prognosis, and its decoder never "
            "learned. Use it by `duplus survival predict`; for masks, or as a base, take a model of DuPLUSTrainer."
        )
