"""Checks the list of images of a prediction, and their voxels after preprocessing."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.raw_dataset import group_channels, list_images
from duplus_nnunet.remote_files import hide_credentials, is_url, join_url, list_names

# Endings of files of series, and of what holds several.
_DICOM = (".dcm", ".dicom", ".ima", ".zip")


def check_source(source: str | Sequence[Sequence[str]], dataset_json: Mapping[str, Any]) -> None:
    """Check that there is something to predict; each case is checked when it is read.

    Args:
        source: As for nnU-Net's predictor: a folder, or the files of each case.
        dataset_json: The model's.

    Raises:
        DataError: There is no case, or a file has no channel number.
    """
    if isinstance(source, str):
        list_folder(source, dataset_json["file_ending"])
    elif not source:
        raise DataError("There is no case to predict: the list of files is empty.")


def check_case(files: Sequence[str], dataset_json: Mapping[str, Any]) -> None:
    """Check the number of channels of one case; the preprocessor checks each file.

    Raises:
        DataError: It is not the model's.
    """
    names = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    if len(files) != len(names):
        raise DataError(
            f"The case {Path(files[0]).name} has {len(files)} channel(s); the model takes {len(names)}: "
            f"{', '.join(names.values())}. Give one file per channel, named CASE_0000, CASE_0001 and so on."
        )


def check_finite(data: Any) -> None:
    """Check the voxels of a preprocessed image, a tensor of any shape; a NaN would turn the prediction into background.

    Raises:
        DataError: A voxel is not a finite number.
    """
    import torch

    wrong = data.numel() - int(torch.isfinite(data).sum())
    if wrong:
        raise DataError(
            f"The image that is being predicted has {wrong} of {data.numel()} voxels that are NaN or infinite after "
            "preprocessing. Replace them in the image file."
        )


def list_folder(folder: str | Path, ending: str) -> list[list[str]]:
    """List the files of each case of a folder, given by its path or URL, in the order in which nnU-Net predicts them.

    Raises:
        DataError: There is no case, or a file has no channel number.
        HostError: The package that a URL needs is not installed.
    """
    if isinstance(folder, str) and is_url(folder):
        return _list_remote_folder(folder, ending)
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise DataError(f"The input folder {folder} cannot be read: {error}. Name another one with -i.") from error
    cases = list_images(Path(folder), ending)
    _require_cases(cases, names, folder, ending)
    return [[str(file) for file in channels.values()] for _, channels in sorted(cases.items())]


def _list_remote_folder(url: str, ending: str) -> list[list[str]]:
    shown, names = hide_credentials(url), list_names(url)
    if not any(name.endswith(ending) for name in names) and any(name.lower().endswith(_DICOM) for name in names):
        raise DataError(
            f"{shown} holds DICOM files, which are not read from URLs. Copy the series to a folder of this machine, or "
            "write them as images with `duplus dicom to-nifti`."
        )
    cases = group_channels([PurePosixPath(name) for name in names], ending, shown)
    _require_cases(cases, names, shown, ending)
    return [[join_url(url, str(file)) for file in channels.values()] for _, channels in sorted(cases.items())]


def _require_cases(cases: Mapping[str, Any], names: Sequence[str], folder: object, ending: str) -> None:
    if not cases:
        content = f"it holds {len(names)} other file(s), first {names[0]!r}" if names else "it is empty"
        raise DataError(f"The input folder {folder} has no image that ends in {ending!r}: {content}.")
