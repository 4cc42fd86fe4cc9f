"""Decides from its header alone whether an image can be used: its size, spacing, orientation and type of number.

Every command that reads images asks here first, so that training, prediction and evaluation accept the same files.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.nifti_headers import RAS_TO_LPS, NiftiHeader, read_nifti_header
from duplus_nnunet.errors import DataError

Triple = tuple[float, float, float]

# nnU-Net's readers by name; the others take NIfTI files with nibabel.
_SITK_READERS = ("SimpleITKIO", "SimpleITKIOWithReorient")
_NIFTI_ENDINGS = (".nii", ".nii.gz")
_TIFF_ENDINGS = (".tif", ".tiff")
_PICTURE_ENDINGS = (".png", ".bmp")
# In mm: electron microscopy lies below, and no scanner takes slices further apart.
_LEAST_SPACING, _LARGEST_SPACING = 0.01, 50.0
_FLAT_SPACING = 999.0  # nnU-Net's spacing between slices of a picture
_GIPL_HEADER = 256


@dataclass(frozen=True)
class ImageHeader:
    """The grid of an image file, as nnU-Net's reader of it takes it.

    Attributes:
        shape: Voxels along (z, y, x).
        spacing: Voxel size along the same axes, in mm.
        origin: Position of the first voxel's centre, in mm, along (x, y, z) to left, posterior, superior (LPS), as in
            SimpleITK.
        direction: Nine direction cosines as in SimpleITK, row by row; the identity if the file has none.
        oriented: Whether the file says how it lies in the patient.
        warnings: What is doubtful about the file, a sentence each; empty for most.
    """

    shape: tuple[int, int, int]
    spacing: Triple
    origin: Triple = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    oriented: bool = False
    warnings: tuple[str, ...] = ()


def inspect_image(file: Path, reader: str = "SimpleITKIO") -> ImageHeader:
    """Read an image's header, and check it against the size of the file; no voxel is read.

    Args:
        file: An image or label map in a format of nnU-Net's readers.
        reader: Name of nnU-Net's reader that will read it, which decides what it takes from a NIfTI file.

    Raises:
        DataError: The file is missing, damaged, no image of numbers in two or three dimensions, or its header
            contradicts itself so that sizes, or left and right, would be wrong.
    """
    if not file.is_file():
        raise DataError(f"{file} is missing, or is not a file. Check the path.")
    ending = file.name.lower()
    try:
        if ending.endswith(_NIFTI_ENDINGS):
            header = _inspect_nifti(file, reader)
        elif ending.endswith(_TIFF_ENDINGS):
            header = _inspect_tiff(file)
        elif ending.endswith(_PICTURE_ENDINGS):
            header = _inspect_picture(file)
        else:
            header = _inspect_with_sitk(file)
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
        raise DataError(f"{file} cannot be read: {reason}. Copy or convert the image again.") from error
    _check_spacing(file, header.spacing)
    return header


def _inspect_nifti(file: Path, reader: str) -> ImageHeader:
    header = read_nifti_header(file)
    by_sitk = reader in _SITK_READERS
    problems = [*header.find_problems(by_sitk)]
    if problems:
        raise DataError(f"{file}: {' '.join(problems)}")
    doubts = tuple(header.find_doubts(by_sitk))
    if len(header.shape) < 3:
        y, x = (*header.shape, 1)[:2][::-1]
        return ImageHeader((1, y, x), _flat(header.spacing), warnings=doubts)
    affine = header.choose_affine(by_sitk)
    direction = (RAS_TO_LPS @ affine[:3, :3]) / np.linalg.norm(affine[:3, :3], axis=0)
    return ImageHeader(
        _reverse_shape(header.shape),
        _reverse(header.scaled_spacing(by_sitk)),
        _to_triple(RAS_TO_LPS @ affine[:3, 3]),
        tuple(float(cosine) for cosine in direction.ravel()),
        header.is_oriented,
        doubts,
    )


def _inspect_with_sitk(file: Path) -> ImageHeader:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    size, parts = reader.GetSize(), reader.GetNumberOfComponents()
    kind = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    if len(size) not in (2, 3) or parts != 1 or "complex" in kind:
        raise DataError(
            f"{file} holds {kind} values, {parts} a voxel, of the shape {' x '.join(map(str, size))}; expected one "
            "number a voxel in three dimensions. Write one file per channel or time point."
        )
    if file.name.lower().endswith(".gipl"):
        _check_gipl(file, size, kind)
    if len(size) == 2:
        return ImageHeader((1, int(size[1]), int(size[0])), _flat(reader.GetSpacing()))
    return ImageHeader(
        _reverse_shape(size),
        _reverse(np.abs(reader.GetSpacing())),
        _to_triple(reader.GetOrigin()),
        tuple(float(cosine) for cosine in reader.GetDirection()),
        True,
    )


def _check_gipl(file: Path, size: Sequence[int], kind: str) -> None:
    """Check a GIPL file's length, since its reader fills what is missing with whatever lies in memory."""
    bits = next((int(part.removesuffix("-bit")) for part in kind.split() if part.endswith("-bit")), 0)
    bits = bits or (64 if "double" in kind else 32)
    expected = _GIPL_HEADER + math.prod(size) * bits // 8
    if file.stat().st_size < expected:
        raise DataError(
            f"{file} is cut off: it holds {file.stat().st_size} of {expected} bytes. Copy or convert the image again."
        )


def _inspect_tiff(file: Path) -> ImageHeader:
    """Read the shape of a TIFF file; nnU-Net takes the spacing from a JSON file beside it."""
    import json

    import tifffile

    with tifffile.TiffFile(file) as content:
        shape, kind = content.series[0].shape, content.series[0].dtype
    if len(shape) == 2:
        return ImageHeader((1, int(shape[0]), int(shape[1])), (_FLAT_SPACING, 1.0, 1.0))
    if len(shape) != 3 or kind is None or kind.kind not in "biuf":
        raise DataError(f"{file} holds {kind} values of the shape {shape}; expected numbers in three dimensions.")
    stem = file.name[: -len(file.suffix)]
    names = [stem, *([stem[:-5]] if stem[-5:-4] == "_" and stem[-4:].isdecimal() else [])]
    beside = [found for name in names if (found := file.with_name(name + ".json")).is_file()]
    if not beside:
        doubt = f"{file.name} has no file {names[-1]}.json with its spacing, which is taken as 1 mm on every axis."
        return ImageHeader(_to_shape(shape), (1.0, 1.0, 1.0), warnings=(doubt,))
    spacing = json.loads(beside[-1].read_text(encoding="utf-8"))["spacing"]
    return ImageHeader(_to_shape(shape), _to_triple(spacing))


def _inspect_picture(file: Path) -> ImageHeader:
    import imageio.v3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of very large pictures
        shape = imageio.v3.improps(file).shape
    return ImageHeader((1, int(shape[0]), int(shape[1])), (_FLAT_SPACING, 1.0, 1.0))


def _check_spacing(file: Path, spacing: Sequence[float]) -> None:
    """Refuse a voxel size that no scanner has; three numbers that are missing or odd are refused too."""
    listed = " x ".join(f"{width:g}" for width in spacing)
    if not all(math.isfinite(width) and width > 0 for width in spacing):
        raise DataError(f"{file} has voxels of {listed} mm (z, y, x); expected sizes above 0. Correct its header.")
    if spacing[0] >= _FLAT_SPACING * min(spacing):  # a picture, whose spacing means nothing
        return
    wrong = [width for width in spacing if not _LEAST_SPACING <= width <= _LARGEST_SPACING]
    if wrong:
        guess = "metres, or in tenths of a millimetre" if wrong[0] > 1 else "metres that were taken as millimetres"
        raise DataError(
            f"{file} has voxels of {listed} mm (z, y, x); expected {_LEAST_SPACING:g} to {_LARGEST_SPACING:g} mm on "
            f"every axis. Perhaps its header is in {guess}, or names another unit than its numbers have. Correct the "
            "spacing in the header."
        )


def _flat(spacing: Sequence[float]) -> Triple:
    widths = [abs(float(width)) for width in spacing[:2]]
    return _FLAT_SPACING * max(widths), widths[1], widths[0]


def _reverse(values: Sequence[float] | NDArray[np.float64]) -> Triple:
    return _to_triple(list(values)[::-1])


def _reverse_shape(sizes: Sequence[int]) -> tuple[int, int, int]:
    return _to_shape(list(sizes)[:3][::-1])


def _to_shape(sizes: Sequence[int]) -> tuple[int, int, int]:
    z, y, x = (int(size) for size in sizes)
    return z, y, x


def _to_triple(values: Sequence[float] | NDArray[np.float64]) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third


__all__ = ["ImageHeader", "NiftiHeader", "inspect_image"]
