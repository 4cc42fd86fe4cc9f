"""Images at the border of a prediction: in come what nnU-Net is told to predict, out comes nothing, or an error.

Everything here runs before nnU-Net writes a file, but for the look at the voxels, which are read a case at a time.
"""

import functools
import gzip
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.selection import read_own_plans
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.raw_dataset import list_images, read_dataset_json
from duplus_nnunet.settings import PLANS_KEY

_BLOCK = 1 << 22
_LENGTH_IN_GZIP = 1 << 32


def check_source(source: str | Sequence[Sequence[str]], dataset_json: Mapping[str, Any]) -> None:
    """Check that there is something to predict; each case is checked when it is read, and does not end the others.

    Args:
        source: As for nnU-Net's predictor: a folder, or the files of each case.
        dataset_json: The model's.

    Raises:
        DataError: There is no case, or a file has no channel number.
    """
    if isinstance(source, str):
        list_folder(Path(source), dataset_json["file_ending"])
    elif not source:
        raise DataError("There is no case to predict: the list of files is empty.")


def check_case(files: Sequence[str], dataset_json: Mapping[str, Any]) -> None:
    """Check the files of one case.

    Raises:
        DataError: One is missing or damaged, or channels are missing.
    """
    check_channels([files], dataset_json)
    for file in files:
        check_whole(Path(file))


def check_channels(cases: Sequence[Sequence[str]], dataset_json: Mapping[str, Any]) -> None:
    """Check the number of channels of every case.

    Raises:
        DataError: It is not the model's.
    """
    names = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    for files in cases:
        if len(files) != len(names):
            raise DataError(
                f"The case {Path(files[0]).name} has {len(files)} channel(s); the model takes {len(names)}: "
                f"{', '.join(names.values())}. Give one file a channel, named CASE_0000, CASE_0001 and so on."
            )


def check_whole(file: Path) -> None:
    """Check that a NIfTI file is there to its end: cut off, nnU-Net's reader fills it up with zeros and says nothing.

    Raises:
        DataError: It is missing, cut off, or no NIfTI file.
    """
    if not file.name.endswith((".nii", ".nii.gz")):
        return
    try:
        expected, found = _count_bytes(file), _measure_bytes(file)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}. Copy or convert the image again.") from error
    if found < expected:
        raise DataError(f"{file} is cut off: it holds {found} of {expected} bytes. Copy or convert the image again.")


def check_finite(data: Any) -> None:
    """Check a preprocessed image, a tensor of any shape; one NaN would make all of the prediction background.

    Raises:
        DataError: Some voxel is not a finite number.
    """
    import torch

    wrong = data.numel() - int(torch.isfinite(data).sum())
    if wrong:
        raise DataError(
            f"The image that is being predicted has {wrong} of {data.numel()} voxels that are NaN or infinite after "
            "preprocessing. Replace them in the image file."
        )


def patch_checks(predictor: Any) -> None:
    """Let nnU-Net's predictor class check what our models are to predict."""
    predictor.initialize_from_trained_model_folder = _wrap_folder(predictor.initialize_from_trained_model_folder)
    predictor.predict_logits_from_preprocessed_data = _wrap_logits(predictor.predict_logits_from_preprocessed_data)


def _wrap_folder(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def initialize(self: Any, model_training_output_dir: str, *args: Any, **kwargs: Any) -> Any:
        from duplus_nnunet.planners.label_manager import check_labels

        plans: Any = read_own_plans(model_training_output_dir)
        if PLANS_KEY in plans:
            declared = read_dataset_json(Path(model_training_output_dir) / "dataset.json")
            check_labels(declared, PromptBank(plans).labels, plans.get("plans_name"))
        return original(self, model_training_output_dir, *args, **kwargs)

    return initialize


def _wrap_logits(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def predict(self: Any, data: Any) -> Any:
        if PLANS_KEY in self.plans_manager.plans:
            check_finite(data)
        return original(self, data)

    return predict


def list_folder(folder: Path, ending: str) -> list[list[str]]:
    """List the files of each case of a folder, in the order in which nnU-Net predicts them.

    Raises:
        DataError: There is no case, or a file has no channel number.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise DataError(f"The input folder {folder} cannot be read: {error}. Name another one with -i.") from error
    cases = list_images(folder, ending)
    if not cases:
        there = f"it holds {len(names)} other file(s), first {names[0]!r}" if names else "it is empty"
        raise DataError(f"The input folder {folder} has no image that ends in {ending!r}: {there}.")
    return [[str(file) for file in channels.values()] for _, channels in sorted(cases.items())]


def _count_bytes(file: Path) -> int:
    """Count the bytes that a NIfTI file's header promises."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        stored: Any = nibabel.load(file).dataobj
    except ImageFileError as error:
        raise ValueError(str(error)) from error
    length: int = stored.offset + math.prod(stored.shape) * stored.dtype.itemsize
    return length


def _measure_bytes(file: Path) -> int:
    """Measure the bytes of a file, unpacked; a gzip file's last four say so, or else it is read to its end."""
    if file.suffix != ".gz":
        return file.stat().st_size
    with file.open("rb") as packed:
        packed.seek(-4, os.SEEK_END)
        promised = int.from_bytes(packed.read(4), "little")
    if promised == _count_bytes(file) % _LENGTH_IN_GZIP:
        return _count_bytes(file)
    with gzip.open(file) as unpacked:
        return sum(len(block) for block in iter(lambda: unpacked.read(_BLOCK), b""))
