"""Some voxels of a volume, where alone something is computed."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.outputs.answer import Box
from duplus_nnunet.reporting.surfaces import Mask, find_box


@dataclass(frozen=True)
class Voxels:
    """N voxels of a volume, at least one, in C order.

    Attributes:
        box: Smallest box that holds them.
        mask: Which voxels of the box they are.
    """

    box: Box
    mask: Mask

    @classmethod
    def of(cls, mask: Mask) -> "Voxels":
        """Return the voxels of a mask (D, H, W) that is not empty.

        Raises:
            ValueError: The mask is empty.
        """
        box = find_box(mask)
        if box is None:
            raise ValueError("The mask has no voxel; expected one or more.")
        d, h, w = box
        return cls((d, h, w), mask[d, h, w])

    @cached_property
    def count(self) -> int:
        """N, the number of voxels."""
        return int(np.count_nonzero(self.mask))

    def select(self, window: Box) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Find the voxels inside a window of the volume.

        Returns:
            Their numbers among all voxels, (n,), and where they lie in the window, (3, n); None if there are none.
        """
        common = [
            slice(max(own.start, part.start), min(own.stop, part.stop))
            for own, part in zip(self.box, window, strict=True)
        ]
        if any(part.start >= part.stop for part in common):
            return None
        inside = tuple(
            slice(part.start - own.start, part.stop - own.start) for part, own in zip(common, self.box, strict=True)
        )
        numbers = self._numbers[inside]
        flat = np.flatnonzero(numbers >= 0)
        if not len(flat):
            return None
        at = np.stack(np.unravel_index(flat, numbers.shape))
        at += np.array([[part.start - own.start] for part, own in zip(common, window, strict=True)])
        return numbers.reshape(-1)[flat].astype(np.int64), at

    def spread(self, values: NDArray[np.float16]) -> NDArray[np.float16]:
        """Return an array of the box with the values (N,) of the voxels, and 0 elsewhere."""
        whole = np.zeros(self.mask.shape, np.float16)
        whole[self.mask] = values
        return whole

    @cached_property
    def _numbers(self) -> NDArray[np.int32]:
        """Number of each voxel of the box among all voxels, -1 elsewhere."""
        numbers = np.full(self.mask.shape, -1, np.int32)
        numbers[self.mask] = np.arange(self.count, dtype=np.int32)
        return numbers
