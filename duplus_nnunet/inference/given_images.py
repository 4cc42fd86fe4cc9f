"""Images as programs give them, a file, an object or an array, become files that nnU-Net's reader reads."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError

# (D, H, W), or (C, D, H, W) with several channels; and the size of a voxel along (D, H, W), in mm.
ArrayWithSpacing = tuple[NDArray[Any], Sequence[float]]


def list_own_files(image: Any) -> tuple[str, ...]:
    """List the files that an image is given as; none if it is an object or an array."""
    files = [image] if isinstance(image, (str, os.PathLike)) else image if isinstance(image, list) else []
    return tuple(os.fspath(file) for file in files if isinstance(file, (str, os.PathLike)))


@contextmanager
def list_files(image: Any) -> Iterator[tuple[str, ...]]:
    """Give an image as files, which nnU-Net's reader reads as it does any other."""
    if isinstance(image, (str, os.PathLike)):
        yield (os.fspath(image),)
        return
    if isinstance(image, list) and all(isinstance(file, (str, os.PathLike)) for file in image):
        yield tuple(os.fspath(file) for file in image)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield tuple(_write_channels(image, Path(folder)))


def _write_channels(image: Any, folder: Path) -> Iterator[str]:
    if hasattr(image, "to_filename") and hasattr(image, "affine"):
        image.to_filename(folder / "image_0000.nii")
        yield str(folder / "image_0000.nii")
        return
    import SimpleITK

    for number, channel in enumerate([image] if isinstance(image, SimpleITK.Image) else _make_channels(image)):
        file = str(folder / f"image_{number:04d}.nii")
        SimpleITK.WriteImage(channel, file)
        yield file


def _make_channels(image: Any) -> Iterator[Any]:
    import SimpleITK

    try:
        values, spacing = image
        values, widths = np.asarray(values), [float(width) for width in spacing]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The image is a {type(image).__name__}; expected a file, a list of files, an image of nibabel or "
            "SimpleITK, or a pair of an array and its spacing."
        ) from error
    if values.ndim not in (3, 4) or len(widths) != 3 or min(widths) <= 0:
        raise DataError(
            f"The array has shape {values.shape} and the spacing {tuple(widths)}; expected (D, H, W) or (C, D, H, W), "
            "and three numbers above 0 in mm along (D, H, W)."
        )
    for channel in values if values.ndim == 4 else values[None]:
        made = SimpleITK.GetImageFromArray(np.ascontiguousarray(channel, dtype=np.float32))
        made.SetSpacing(widths[::-1])
        yield made
