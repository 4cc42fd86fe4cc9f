"""Looks at contours of one structure for what their file leaves open: overlaps in part, and slices without contours."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from duplus_nnunet.dicom.contours import Contour, fill_contours

# Contours whose overlap is in doubt by more than this share of the smaller one are refused.
_DOUBTFUL = 0.1


def find_overlaps(contours: Mapping[int, Sequence[Contour]], shape: tuple[int, int]) -> tuple[str, bool]:
    """Find contours that overlap in part, of which the file does not say whether they cut holes or join.

    A contour within another one cuts a hole, and one beside another one is a part of its own. In between, the voxels in
    doubt are those shared, or those not shared, whichever are fewer.

    Args:
        contours: Contours (row, column) by the index of their slice, in voxels.
        shape: Rows and columns.

    Returns:
        A description, empty if there are none; and whether more than a tenth of a contour is in doubt.
    """
    doubtful, severe = 0, False
    slices = []
    for index, shapes in sorted(contours.items()):
        for voxels, smaller in _measure_pairs(shapes, shape):
            doubtful += voxels
            severe |= voxels > max(1, _DOUBTFUL * smaller)
            slices.append(index)
    if not slices:
        return "", False
    return (
        f"contours overlap in part in {len(set(slices))} slices (the first is {slices[0] + 1}), {doubtful} voxels are "
        "in doubt; those within an odd number of contours are inside",
        severe,
    )


def _measure_pairs(shapes: Sequence[Contour], shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the voxels in doubt of each pair of contours that has some, and the voxels of the smaller contour."""
    masks = [fill_contours([one], shape) for one in shapes] if len(shapes) > 1 else []
    for one, other in combinations(masks, 2):
        shared = int(np.count_nonzero(one & other))
        smaller = int(min(np.count_nonzero(one), np.count_nonzero(other)))
        if 0 < shared < smaller:
            yield min(shared, smaller - shared), smaller


def describe_gaps(drawn: Sequence[int]) -> str:
    """Say how many slices between the first and the last contour have none; empty if all have one.

    Args:
        drawn: Indices of the slices that have contours.
    """
    if len(drawn) < 2:
        return ""
    steps = np.diff(np.sort(drawn))
    span = int(steps.sum()) + 1
    missing = span - len(drawn)
    if not missing:
        return ""
    regular = f", which has contours on every {_count(int(steps[0]))} slice" if np.ptp(steps) == 0 else ""
    return (
        f"{missing} of the {span} slices from the first contour to the last have none ({missing / span:.0%}){regular}; "
        "nothing is interpolated, these slices are background"
    )


def _count(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
