"""Finds the cases of a sensitivity study, and reads their images and reference label maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet.data.grids import find_difference, last_line
from duplus_nnunet.data.label_maps import read_label_map
from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.image_checks import read_headers
from duplus_nnunet.prompt_registry.raw_dataset import list_images


@dataclass(frozen=True)
class LabelledCase:
    """A case: its name, one image file per channel, and its reference label map."""

    name: str
    images: tuple[str, ...]
    label: str


def find_cases(images: Sequence[str], label: str, ending: str) -> list[LabelledCase]:
    """Find the cases in files or folders given by the user.

    Args:
        images: One file per channel, or one folder like nnU-Net's imagesTr.
        label: The label map of the case, or a folder like nnU-Net's labelsTr.
        ending: File ending of the model's images, such as `.nii.gz`.

    Raises:
        DataError: A file is missing or has another ending, or only one of images and label is a folder.
    """
    if len(images) == 1 and Path(images[0]).is_dir():
        return _list_cases(Path(images[0]), Path(label), ending)
    for option, file in (*(("-i", image) for image in images), ("-l", label)):
        if not Path(file).is_file():
            raise DataError(
                f"The file {file} ({option}) does not exist. Give one file per channel with -i and their label map "
                "with -l, or a folder with each (imagesTr and labelsTr)."
            )
        if not file.endswith(ending):
            raise DataError(f"{file} ({option}) does not end in {ending}, the format of the model. Convert it.")
    return [LabelledCase(Path(label).name.removesuffix(ending), tuple(map(str, images)), label)]


def read_image(reader: Any, case: LabelledCase) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Read the images of a case, (C, D, H, W), and their properties.

    Raises:
        DataError: The images cannot be read, or their grids differ.
    """
    read_headers(case.images, type(reader).__name__)
    try:
        data, properties = reader.read_images(list(case.images))
    except Exception as error:  # readers raise different exceptions for damaged files
        raise DataError(
            f"The image(s) {', '.join(case.images)} cannot be read ({last_line(error)}). All channels of a "
            "case must be intact files on the same grid."
        ) from error
    return data, properties


def read_truth(
    reader: Any, case: LabelledCase, properties: Mapping[str, Any], shape: Sequence[int]
) -> np.ndarray[Any, Any]:
    """Read the reference label map of a case, (D, H, W).

    Args:
        reader: nnU-Net's reader of the model.
        case: The case.
        properties: Properties of the image.
        shape: Shape of the image, (D, H, W).

    Raises:
        DataError: The label map cannot be read, holds values that are not whole, or is not on the grid of the image.
    """
    label_map, truth_properties = read_label_map(case.label, type(reader))
    truth = label_map.labels
    difference = find_difference(truth_properties, truth.shape[1:], properties, shape)
    if difference:
        raise DataError(
            f"The label map {case.label} and the image {case.images[0]} lie on different grids: {difference}. Resample "
            "the label map to the grid of the image, or give the label map of this image."
        )
    return np.asarray(truth[0])


def _list_cases(images: Path, labels: Path, ending: str) -> list[LabelledCase]:
    if not labels.is_dir():
        raise DataError(f"-i is the folder {images}, but -l is {labels}. Give the folder of its label maps with -l.")
    channels = list_images(images, ending)
    if not channels:
        content = ", ".join(sorted(file.name for file in images.iterdir())[:5]) or "nothing"
        raise DataError(f"The folder {images} has no image CASE_0000{ending}; it contains {content}.")
    missing = [name for name in channels if not (labels / f"{name}{ending}").is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(channels)} cases in {images} have no label map in {labels}, the first is "
            f"{missing[0]}{ending}. Add it, or give a single case: its images with -i, its label map with -l."
        )
    return [
        LabelledCase(name, tuple(map(str, files.values())), str(labels / f"{name}{ending}"))
        for name, files in channels.items()
    ]
