"""Cases with their truth: in come what a user typed for images and labels, out come files that belong together.

A label map counts only on the grid of its image; where they differ, nothing is scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet.data.grids import find_difference, last_line
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.raw_dataset import list_images


@dataclass(frozen=True)
class LabelledCase:
    """One case: its name, an image a channel, and its label map."""

    name: str
    images: tuple[str, ...]
    label: str


def find_cases(images: Sequence[str], label: str, ending: str) -> list[LabelledCase]:
    """Find the cases that a user named.

    Args:
        images: One file a channel, or one folder as nnU-Net's imagesTr.
        label: The label map of that case, or a folder as nnU-Net's labelsTr.
        ending: File ending that the model reads, such as `.nii.gz`.

    Raises:
        DataError: A file or folder is missing, or one is a folder and the other is not.
    """
    if len(images) == 1 and Path(images[0]).is_dir():
        return _list_cases(Path(images[0]), Path(label), ending)
    for option, file in (*(("-i", image) for image in images), ("-l", label)):
        if not Path(file).is_file():
            raise DataError(
                f"There is no file {file} ({option}). Give -i one file a channel and -l their label map, or -i and -l "
                "a folder each (imagesTr and labelsTr)."
            )
        if not file.endswith(ending):
            raise DataError(f"{file} ({option}) does not end in {ending}, which the model reads. Convert it.")
    return [LabelledCase(Path(label).name.removesuffix(ending), tuple(map(str, images)), label)]


def read_image(reader: Any, case: LabelledCase) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Read a case's images, (C, D, H, W), and what the reader says of them.

    Raises:
        DataError: They cannot be read, or differ in their grids.
    """
    try:
        data, properties = reader.read_images(list(case.images))
    except Exception as error:  # each reader has exceptions of its own for files that are no images
        raise DataError(
            f"The image(s) {', '.join(case.images)} cannot be read ({last_line(error)}). All channels of a "
            "case must be whole files on one grid."
        ) from error
    return data, properties


def read_truth(
    reader: Any, case: LabelledCase, properties: Mapping[str, Any], shape: Sequence[int]
) -> np.ndarray[Any, Any]:
    """Read a case's label map, shape as the image's.

    Args:
        reader: nnU-Net's reader of the model.
        case: The case.
        properties: What the reader said of the image.
        shape: The image's (D, H, W).

    Raises:
        DataError: The label map cannot be read, or its grid is not the image's.
    """
    try:
        truth, found = reader.read_seg(case.label)
    except Exception as error:  # as above
        why = last_line(error)
        raise DataError(f"The label map {case.label} cannot be read ({why}). Write it anew.") from error
    difference = find_difference(found, truth.shape[1:], properties, shape)
    if difference:
        raise DataError(
            f"The label map {case.label} and the image {case.images[0]} lie on different grids: {difference}. Resample "
            "the label map to the image's grid, or give the one that belongs to it."
        )
    return np.asarray(truth[0])


def _list_cases(images: Path, labels: Path, ending: str) -> list[LabelledCase]:
    if not labels.is_dir():
        raise DataError(f"-i is the folder {images}, so -l must be the folder of its label maps; found {labels}.")
    channels = list_images(images, ending)
    if not channels:
        found = ", ".join(sorted(file.name for file in images.iterdir())[:5]) or "nothing"
        raise DataError(f"The folder {images} holds no image CASE_0000{ending}; found {found}.")
    missing = [name for name in channels if not (labels / f"{name}{ending}").is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(channels)} cases of {images} have no label map in {labels}, the first is "
            f"{missing[0]}{ending}. Put it there, or give single cases: -i one file a channel, -l their label map."
        )
    return [
        LabelledCase(name, tuple(map(str, files.values())), str(labels / f"{name}{ending}"))
        for name, files in channels.items()
    ]
