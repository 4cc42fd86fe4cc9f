"""Checks the image files of a case against each other and against the plans, before any voxel is read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from duplus_nnunet.data.image_headers import ImageHeader, inspect_image
from duplus_nnunet.data.orientations import find_orientation, find_turn
from duplus_nnunet.errors import DataError

# Ratios of voxel sizes, image against plans, on one axis: doubtful, and not to be predicted.
_DOUBTFUL, _LARGEST_RATIO = 4.0, 10.0
_ROUNDING = 1e-3
_SINGLE = 4  # bytes of a voxel
_GIB = 1 << 30


@dataclass(frozen=True)
class PlannedGrid:
    """The grid that the plans want of an image.

    Attributes:
        spacing: Target spacing of the case's context, in mm, after nnU-Net's transposition; of a 2d configuration two
            numbers.
        order: nnU-Net's transposition.
        orientation: Orientation of the arrays before it; None: as they are stored.
    """

    spacing: Sequence[float]
    order: Sequence[int]
    orientation: str | None = None

    def sort(self, header: ImageHeader, of_axes: Sequence[float]) -> list[float]:
        """Return what belongs to the axes of a file, as its header has it, in the order of the plans."""
        if self.orientation is not None:
            of_axes = find_turn(find_orientation(header.direction).name, self.orientation).sort(of_axes)
        return [of_axes[axis] for axis in self.order]


def read_headers(files: Sequence[str], reader: str) -> list[ImageHeader]:
    """Read the headers of a case's channels, and check that they have one grid.

    Raises:
        DataError: A file cannot be used, or channels differ in shape or voxel size.
    """
    headers = [inspect_image(Path(file), reader) for file in files]
    for file, header in zip(files[1:], headers[1:], strict=True):
        same = all(
            math.isclose(*pair, rel_tol=_ROUNDING) for pair in zip(header.spacing, headers[0].spacing, strict=True)
        )
        if header.shape != headers[0].shape or not same:
            raise DataError(
                f"{file} has {_list(header.shape)} voxels of {_list(header.spacing)} mm (z, y, x), and {files[0]} "
                f"{_list(headers[0].shape)} of {_list(headers[0].spacing)} mm; expected one grid for all channels of a "
                "case. Resample one to the other."
            )
    return headers


def find_doubts(files: Sequence[str], headers: Sequence[ImageHeader], grid: PlannedGrid) -> list[str]:
    """Return what is doubtful about images that are to be predicted.

    Raises:
        DataError: Their voxels are ten times as large or small as the plans', or the resampled image does not fit the
            memory.
    """
    doubts = [doubt for header in headers for doubt in header.warnings]
    header, file = headers[0], files[0]
    spacing = grid.sort(header, header.spacing)
    wanted = [spacing[0]] * (3 - len(grid.spacing)) + [float(width) for width in grid.spacing]
    ratio = max(max(own / target, target / own) for own, target in zip(spacing, wanted, strict=True))
    compared = f"voxels of {_list(spacing)} mm, and the model was planned for {_list(wanted)} mm"
    if ratio > _LARGEST_RATIO:
        raise DataError(
            f"{file} has {compared}: a factor of {ratio:.3g} on an axis. Perhaps the unit of its header is wrong. "
            "Correct the spacing in the header, or predict with a model for such images."
        )
    if ratio > _DOUBTFUL:
        doubts.append(f"the image has {compared}: the prediction may be poor")
    _check_size(file, len(headers), spacing, wanted, grid.sort(header, [float(size) for size in header.shape]))
    return list(dict.fromkeys(doubts))


def _check_size(
    file: str, channels: int, spacing: Sequence[float], wanted: Sequence[float], shape: Sequence[float]
) -> None:
    """Refuse an image that would not fit the memory after resampling, beside what it is made of."""
    resampled = [max(1, round(size * own / to)) for size, own, to in zip(shape, spacing, wanted, strict=True)]
    needed = channels * _SINGLE * (math.prod(resampled) + math.prod(shape))
    free = int(psutil.virtual_memory().available)
    if needed > free:
        raise DataError(
            f"{file}, {_list(shape)} voxels of {_list(spacing)} mm, has {_list(resampled)} = {math.prod(resampled)} "
            f"voxels after resampling to the model's {_list(wanted)} mm; that takes {needed / _GIB:.1f} GiB, and "
            f"{free / _GIB:.1f} GiB are free. Check the spacing in its header, crop the image, or use a larger machine."
        )


def _list(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
