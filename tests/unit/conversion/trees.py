"""Builds small downloads under the real names of the datasets, with the oddities of their geometry."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

SHAPE = (10, 10, 10)
# LPS+ grid of 2 mm, as most CT are stored.
AFFINE = np.diag([-2.0, -2.0, 2.0, 1.0])


def save(root: Path, name: str, array: NDArray[Any], affine: Any = AFFINE) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), file)
    return file


def make_image(seed: int = 0, shape: Sequence[int] = SHAPE) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(-1000, 400, shape).astype(np.int16)


def make_labels(values: Sequence[int], shape: Sequence[int] = SHAPE) -> NDArray[Any]:
    """Put each value into a voxel of its own, in the order of the array."""
    labels = np.zeros(shape, np.uint8)
    labels.ravel()[: len(values)] = values
    return labels


def save_pair(root: Path, image: str, label: str, values: Sequence[int], affine: Any = AFFINE) -> None:
    save(root, image, make_image(), affine)
    save(root, label, make_labels(values), affine)


def save_series(folder: Path, count: int, gap: float = 4.0, first: float = 10.0, reverse: bool = False) -> None:
    """Write a DICOM series of constant slices, the number of the slice from the feet as intensity."""
    import SimpleITK

    folder.mkdir(parents=True, exist_ok=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index in range(count):
        height = count - 1 - index if reverse else index
        pixels = np.full((1, 6, 8), 100 * (height + 1), np.int16)
        pixels[0, 1, 5] = 7  # row 1, column 5
        image = SimpleITK.GetImageFromArray(pixels)
        image.SetSpacing((1.5, 1.5, gap))
        image.SetOrigin((-20.0, -30.0, first + height * gap))
        for tag, value in {
            "0008|0060": "MR", "0020|000d": "1.2.3", "0020|000e": "1.2.3.4", "0020|0013": str(index + 1),
            "0008|0018": f"1.2.3.4.{index + 1}", "0020|0032": f"-20\\-30\\{first + height * gap}",
            "0020|0037": "1\\0\\0\\0\\1\\0", "0018|0088": str(gap),
        }.items():  # fmt: skip
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"IMG-0001-{index + 1:05}.dcm"))
        writer.Execute(image)


def save_masks(folder: Path, masks: Sequence[NDArray[Any]]) -> None:
    from skimage.io import imsave

    folder.mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        imsave(folder / f"IMG-0001-{index + 1:05}.png", mask.astype(np.uint8), check_contrast=False)


def write_csv(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    file.write_text("\n".join(lines) + "\n")
