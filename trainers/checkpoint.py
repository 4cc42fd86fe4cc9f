"""Writes checkpoints of plain types atomically, with checksums, and compares them with plans."""

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duplus_nnunet.checkpoint_files import save_checkpoint
from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.settings import SCRATCH
from duplus_nnunet.substitution import call_with
from duplus_nnunet.trainers.training_cases import CASES_KEY

# Error numbers of a system on which no more can be written: no space, quota, size of a file.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Key of what DuPLUSSurvivalTrainer stores in a checkpoint.
SURVIVAL_KEY = "duplus_survival"
# Parts of nnU-Net's checkpoints that hold tensors and plain types anyway.
_TENSORS = ("network_weights", "optimizer_state", "grad_scaler_state")


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


def collect_content(save: Callable[[str], None], file: str) -> dict[str, Any] | None:
    """Return what nnU-Net's `save_checkpoint` would write to a file, without writing it.

    A copy of the method is run for which `torch.save` means keeping the content. So all that nnU-Net saves is known
    before it is written, whatever its version saves, and nothing is changed for others.

    Args:
        save: The bound method.
        file: Name that it is given.

    Returns:
        The content by key; None if the method did not use `torch.save`, but wrote the file in another way.
    """
    recorder = _Recorder()
    call_with(save, {"torch": recorder}, file)
    return recorder.content


def write_content(trainer: Any, content: Mapping[str, Any] | None, file: str) -> None:
    """Write the content of a checkpoint in plain types, with checksums and the training cases.

    Args:
        trainer: The DuPLUSTrainer.
        content: What nnU-Net would write; None: it did already.
        file: File to write.
    """
    if content is None:
        return
    plain = {key: value if key in _TENSORS else make_plain(value) for key, value in content.items()}
    cases = trainer.training_cases
    save_checkpoint(plain if cases is None else {**plain, CASES_KEY: make_plain(asdict(cases))}, file)


class _Recorder:
    """Stands for the module torch, and keeps what is to be saved."""

    def __init__(self) -> None:
        self.content: dict[str, Any] | None = None

    def save(self, content: dict[str, Any], file: str) -> None:
        self.content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def write_safely(file: str | os.PathLike[str], write: Callable[[str], None]) -> None:
    """Write a file atomically: on an error, the previous file is unchanged.

    Args:
        file: The file.
        write: Writes the file whose name it is given.

    Raises:
        ModelError: The file could not be written.
    """
    target = Path(file)
    try:
        with open_new_file(target) as new:
            write(str(new))
    except (OSError, RuntimeError, DataError) as error:
        raise ModelError(
            f"Could not write {target}: {_find_reason(error, target.parent)}. The previous file is intact. Free some "
            "space (or correct the permissions) and continue the training with --c."
        ) from error


def _find_reason(error: Exception, folder: Path) -> str:
    """Return the system's reason, or what torch reports in place of it, together with the free space."""
    if isinstance(error, (OSError, DataError)):
        return str(error.__cause__ or error)
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB were left on the disk"
    except OSError:
        free = "the free space is unknown"
    return f"torch could not finish the file, {free} ({(str(error).splitlines() or [''])[0]})"


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
    kinds = ("context", "target")  # without FiLM there is no layer of the first
    differing = [
        f"{kind} prompts of length {own}, and the plans have {planned}"
        for kind, own, planned in zip(kinds, lengths, expected, strict=True)
        if own not in (0, planned)
    ]
    if differing:
        raise ModelError(
            f"The checkpoint {file} was trained on embeddings of {'; of '.join(differing)}: another text encoder, or "
            "other settings.context_prompt or settings.target_prompt. Restore the plans it was trained with, or train "
            "again with these."
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
