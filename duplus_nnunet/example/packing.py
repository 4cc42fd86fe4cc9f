"""Packs a trained model folder into one small file of plain types, and unpacks it."""

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.checkpoint_files import read_checkpoint, save_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.files import open_new_file

if TYPE_CHECKING:
    import torch

CHECKPOINT = "fold_0/checkpoint_final.pth"
MEMBERS = ("plans.json", "dataset.json", "dataset_fingerprint.json", CHECKPOINT)

# A prediction needs neither; None is what a checkpoint without them has.
_LEFT_OUT = ("optimizer_state", "grad_scaler_state", "logging")
# Equal content gives an equal file, whenever it is packed.
_TIME = (1980, 1, 1, 0, 0, 0)


def pack_model(model: Path, file: Path) -> None:
    """Pack a model folder with the weights of fold 0 in half precision, without the state of its optimizer.

    Raises:
        ModelError: The checkpoint is missing or damaged.
    """
    contents = {name: (model / name).read_bytes() for name in MEMBERS if name != CHECKPOINT}
    checkpoint = read_checkpoint(model / CHECKPOINT)
    plain = {key: value for key, value in checkpoint.items() if key not in _LEFT_OUT}
    with tempfile.TemporaryDirectory() as folder:
        # The name enters the content of a checkpoint.
        halved = Path(folder, Path(CHECKPOINT).name)
        save_checkpoint({**plain, "network_weights": _halve(plain["network_weights"])}, halved)
        contents[CHECKPOINT] = halved.read_bytes()
    with open_new_file(file) as new, zipfile.ZipFile(new, "w") as archive:
        for name, content in contents.items():
            record = zipfile.ZipInfo(name, _TIME)
            record.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(record, content, compresslevel=9)


def unpack_model(file: Path, folder: Path) -> None:
    """Write the model folder that a file was packed from.

    Args:
        file: A file of `pack_model`.
        folder: The model folder; its files of the same names are replaced.

    Raises:
        ModelError: The file is damaged, or holds other files than those of a model.
        DataError: The folder is not writable.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{file} cannot be read ({error}). Install the package again.") from error
    if tuple(contents) != MEMBERS:
        raise ModelError(f"{file} holds {', '.join(contents)}; expected {', '.join(MEMBERS)}.")
    for name, content in contents.items():
        with open_new_file(folder / name) as new:
            new.write_bytes(content)


def _halve(weights: "Mapping[str, torch.Tensor]") -> "dict[str, Any]":
    """Convert to half precision; tensors that share memory, as nnU-Net's encoder and decoder do, still share it."""
    halves: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
    return {
        name: halves.setdefault((tensor.data_ptr(), tuple(tensor.shape)), tensor.half())
        for name, tensor in weights.items()
    }
