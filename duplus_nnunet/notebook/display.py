"""Makes small NIfTI files of an image and its masks, which is all that a browser gets of them.

Above a number of voxels, blocks of neighbouring voxels are shown as one: the image by their mean; a mask wherever any
of them belongs to it, so that no small lesion is lost. Measurements are always those of the full grid.
"""

import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.outputs.answer import Geometry, TargetAnswer
from duplus_nnunet.outputs.world import find_affine

# About 215 x 215 x 215; a CT of 512 x 512 x 300 is shown at half its resolution along each axis.
MAX_VOXELS = 10_000_000
_LARGEST = np.iinfo(np.int16).max
# The fastest level; a higher one saves a few per cent of an image and costs several times the time.
_LEVEL = 1
# Spacings that differ by less are taken for one.
_ALIKE = 0.01
# Bytes of the header of a NIfTI file, with the four that say that no extension follows.
_HEADER = 352

Factors = tuple[int, int, int]
Values = NDArray[Any]


@dataclass(frozen=True)
class DisplayGrid:
    """The grid on which an image is shown.

    Attributes:
        shape: Voxels of the image along (z, y, x).
        factors: How many of them are shown as one, along the same axes.
        affine: (4, 4), from indices (z, y, x) of the image to world coordinates in mm (RAS).
        is_oriented: Whether the image has world coordinates; if not, left and right are not known.
    """

    shape: tuple[int, int, int]
    factors: Factors
    affine: NDArray[np.float64]
    is_oriented: bool

    @classmethod
    def of(cls, geometry: Geometry, max_voxels: int = MAX_VOXELS) -> "DisplayGrid":
        """Choose the grid for an image, of at most `max_voxels` voxels."""
        affine = find_affine(geometry)
        oriented = affine is not None
        if affine is None:
            affine = np.zeros((4, 4))
            # As in other pictures: x runs to the left, y to the back.
            affine[[2, 1, 0], [0, 1, 2]] = np.multiply(geometry.spacing, (1, -1, -1))
            affine[3, 3] = 1
        return cls(geometry.shape, choose_factors(geometry.shape, geometry.spacing, max_voxels), affine, oriented)

    @property
    def shown_shape(self) -> tuple[int, int, int]:
        """Voxels that are shown along (z, y, x)."""
        z, y, x = (-(-size // factor) for size, factor in zip(self.shape, self.factors, strict=True))
        return z, y, x

    @property
    def is_reduced(self) -> bool:
        """Whether fewer voxels are shown than the image has."""
        return self.factors != (1, 1, 1)

    def encode_image(self, values: Values) -> bytes:
        """Write an image (D, H, W) as the content of a .nii.gz file, in 16 bits.

        Values of another type than 16-bit integers are rounded to 65535 steps between the lowest and the highest.
        """
        return _encode(*_to_int16(_reduce_mean(values, self.factors)), self._find_affine((0, 0, 0)))

    def encode_mask(self, target: TargetAnswer) -> bytes:
        """Write a mask as the content of a .nii.gz file that holds its bounding box alone."""
        first, mask = reduce_mask(target, self.factors)
        return _encode(mask.astype(np.uint8), 1.0, 0.0, self._find_affine(first))

    def _find_affine(self, first: Sequence[int]) -> NDArray[np.float64]:
        """Return the affine of shown voxels from indices (x, y, z), of which the first one is at an index (z, y, x)."""
        # Centre of the first block of voxels.
        factors, offset = np.array(self.factors), np.array(first)
        centre = offset * factors + (factors - 1) / 2
        affine = self.affine.copy()
        affine[:3, 3] = self.affine[:3, :3] @ centre + self.affine[:3, 3]
        affine[:3, :3] = self.affine[:3, :3] * factors
        return affine[:, [2, 1, 0, 3]]


def choose_factors(shape: Sequence[int], spacing: Sequence[float], max_voxels: int) -> Factors:
    """Choose how many voxels along (z, y, x) are shown as one.

    The axis with the finest spacing is reduced first, so that shown voxels become as cubic as they can be.

    Args:
        shape: Voxels along (z, y, x).
        spacing: Their size, in mm.
        max_voxels: How many voxels may be shown.
    """
    factors = [1, 1, 1]
    while np.prod([-(-size // factor) for size, factor in zip(shape, factors, strict=True)]) > max_voxels:
        # An axis of one shown voxel cannot be reduced further.
        axes = [axis for axis in range(3) if factors[axis] < shape[axis]]
        if not axes:
            break
        sizes = {axis: spacing[axis] * factors[axis] for axis in axes}
        for axis in axes:
            # Axes of one spacing are reduced together, so that slices keep square voxels.
            factors[axis] += math.isclose(sizes[axis], min(sizes.values()), rel_tol=_ALIKE)
    z, y, x = factors
    return z, y, x


def reduce_mask(target: TargetAnswer, factors: Factors) -> tuple[tuple[int, int, int], NDArray[np.bool_]]:
    """Reduce the mask of a target.

    Returns:
        Index (z, y, x) of its first voxel on the grid that is shown, and the mask inside its box: true wherever any
        voxel of the full mask is.
    """
    z, y, x = (side.start // factor for side, factor in zip(target.box, factors, strict=True))
    before = [side.start % factor for side, factor in zip(target.box, factors, strict=True)]
    padded = np.pad(target.mask, [(count, 0) for count in before])
    reduced: NDArray[np.bool_] = _reduce(padded, factors, np.logical_or)
    return (z, y, x), reduced


def _reduce_mean(values: Values, factors: Factors) -> Values:
    if factors == (1, 1, 1):
        return values
    sums = _reduce(values.astype(np.float32), factors, np.add)
    for axis, (size, factor) in enumerate(zip(values.shape, factors, strict=True)):
        counts = np.minimum(factor, size - np.arange(0, size, factor)).astype(np.float32)
        sums /= counts.reshape([-1 if other == axis else 1 for other in range(3)])
    return np.rint(sums) if np.issubdtype(values.dtype, np.integer) else sums


def _reduce(values: Values, factors: Factors, operation: np.ufunc) -> Values:
    for axis, factor in enumerate(factors):
        if factor > 1:
            values = operation.reduceat(values, np.arange(0, values.shape[axis], factor), axis=axis)
    return values


def _to_int16(values: Values) -> tuple[NDArray[np.int16], float, float]:
    """Return an image as 16-bit integers, with the factor and the offset that give its values again."""
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, values[finite].min() if finite.any() else 0)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low >= -_LARGEST and high <= _LARGEST and (values == np.rint(values)).all():
        return values.astype(np.int16), 1.0, 0.0
    middle, step = low / 2 + high / 2, (high / 2 - low / 2) / _LARGEST or 1.0
    return np.rint((values.astype(np.float64) - middle) / step).astype(np.int16), step, middle


def _encode(values: Values, slope: float, offset: float, affine: NDArray[np.float64]) -> bytes:
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape[::-1])
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_slope_inter(slope, offset)
    header.set_xyzt_units("mm")
    header["magic"], header["vox_offset"] = b"n+1", _HEADER
    # The first axis of a NIfTI file, x, varies fastest; it is the last one of the array.
    content = header.binaryblock.ljust(_HEADER, b"\0") + np.ascontiguousarray(values).tobytes()
    return gzip.compress(content, _LEVEL, mtime=0)
