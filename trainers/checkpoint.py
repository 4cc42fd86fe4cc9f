"""Writes checkpoints of plain types atomically, and reads them with weights_only=True."""

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

# Error numbers of a system on which no more can be written: no space, quota, size of a file.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Key of what DuPLUSSurvivalTrainer stores in a checkpoint.
SURVIVAL_KEY = "duplus_survival"


def make_plain(value: Any) -> Any:
    """Convert content to plain types and tensors: no NumPy, no devices, no classes."""
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
    """Write a file atomically: on an error, the previous file is unchanged.

    Args:
        file: The file.
        write: Writes the file whose name it is given.

    Raises:
        ModelError: The file could not be written.
    """
    target = Path(file)
    temporary = target.with_name(target.name + ".writing")
    try:
        write(str(temporary))
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        reason = _find_reason(error, target.parent)
        temporary.unlink(missing_ok=True)
        raise ModelError(
            f"Could not write {target}: {reason}. The previous file is intact. Free some space (or correct the "
            "permissions) and continue the training with --c."
        ) from error


def _find_reason(error: Exception, folder: Path) -> str:
    """Return the system's reason, or what torch reports in place of it, together with the free space."""
    if isinstance(error, OSError):
        return str(error)
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB were left on the disk"
    except OSError:
        free = "the free space is unknown"
    return f"torch could not finish the file, {free} ({(str(error).splitlines() or [''])[0]})"


def read_checkpoint(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of plain types.

    Raises:
        ModelError: It is missing, damaged, or contains more than plain types.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"There is no checkpoint {file}.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, OSError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The checkpoint {file} cannot be read ({first}). It is incomplete, or not a checkpoint of DuPLUS. "
            "Remove it and continue from another one in its folder (checkpoint_latest.pth, checkpoint_best.pth)."
        ) from error
    if not isinstance(content, dict) or "network_weights" not in content:
        raise ModelError(f"The checkpoint {file} has no 'network_weights'; it is not an nnU-Net checkpoint.")
    return content


def require_embedding(weights: Mapping[str, Any], expected: tuple[int, int], file: str | os.PathLike[str]) -> None:
    """Refuse weights that were trained on embeddings of other lengths than those in the plans.

    Args:
        weights: `network_weights` of a checkpoint.
        expected: Lengths of a context and of a target embedding in the plans.
        file: The checkpoint, for the message.

    Raises:
        ModelError: The lengths differ.
    """
    layers = ("film.hidden.weight", "generator.from_target.weight")
    lengths = tuple(int(weights[name].shape[1]) if name in weights else 0 for name in layers)
    if 0 not in lengths and lengths != expected:
        raise ModelError(
            f"The checkpoint {file} was trained on text embeddings of length {lengths[0]}; those in its plans have "
            f"length {expected[0]}, from another text encoder. Restore the plans it was trained with, or train again "
            "with these."
        )


def refuse_masks(checkpoint: Mapping[str, Any], file: Any) -> None:
    """Refuse a model that cannot segment: its encoder was trained from scratch on outcomes, its decoder not at all.

    Args:
        checkpoint: Content of the model's checkpoint.
        file: Its file, for the message.

    Raises:
        ModelError: It is such a model.
    """
    if checkpoint.get(SURVIVAL_KEY, {}).get("encoder") == SCRATCH:
        raise ModelError(
            f"{file} cannot segment: its encoder was trained from scratch for a prognosis, and its decoder was not "
            "trained. Use it with `duplus survival predict`; for masks, or as a base, use a model of DuPLUSTrainer."
        )
