"""Masks of a slice as closed contours, and contours as masks.

A voxel belongs to a contour if its centre lies inside. Contours are drawn around each face-connected region by marching
squares. Holes are joined to the outer contour by a channel without width (keyhole), as DICOM asks for contours of the
type CLOSED_PLANAR (PS3.3, C.8.8.6.3); readers that fill contours by the even-odd rule and readers that fill and join
them see the same voxels.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
# Corners (row, column), of a closed line; the first is not repeated.
Contour = NDArray[np.float64]

# Marching squares at this level run 0.49 voxels from the centre of the last voxel inside. Readers that round corners to
# whole voxels, as rt-utils does, then round to the voxel inside; at 0.5 they round half of them outwards.
_LEVEL = 0.51
# Keyholes run beside the centres of voxels, in voxels: no centre lies on them, and rounding keeps them inside.
_BESIDE = 0.005
_STRAIGHT = 1e-9


def trace_contours(mask: Mask) -> Iterator[Contour]:
    """Draw the contours of a mask (rows, columns), one around each face-connected region, in voxels."""
    from scipy.ndimage import find_objects, label

    regions, _ = label(mask)
    for number, box in enumerate(find_objects(regions), 1):
        region = np.pad(regions[box] == number, 1)
        yield _trace_region(region) + np.array([box[0].start - 1, box[1].start - 1])


def fill_contours(contours: Iterable[Contour], shape: tuple[int, int]) -> Mask:
    """Fill contours (row, column) by the even-odd rule: a voxel is inside if its centre is.

    Args:
        contours: Closed contours of one slice; inner ones cut holes, and so do keyholes.
        shape: Rows and columns.

    Returns:
        Shape (rows, columns).
    """
    crossings = np.zeros((shape[0], shape[1] + 1), np.int64)
    for contour in contours:
        if len(contour) > 2:
            _count_crossings(contour, crossings)
    inside: Mask = np.cumsum(crossings[:, :-1], axis=1) % 2 == 1
    return inside


def _count_crossings(contour: Contour, crossings: NDArray[np.int64]) -> None:
    """Count, in each row, the edges that cross it, at the first voxel to the right of the crossing."""
    rows, columns = crossings.shape
    for (row, column), (next_row, next_column) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
        low, high = min(row, next_row), max(row, next_row)
        # The lower end belongs to an edge and the upper one does not, so that a corner is counted once.
        crossed = np.arange(max(int(np.ceil(low)), 0), min(int(np.ceil(high)), rows))
        if len(crossed):
            at = column + (crossed - row) * ((next_column - column) / (next_row - row))
            np.add.at(crossings, (crossed, np.clip(np.ceil(at), 0, columns - 1).astype(int)), 1)


def _trace_region(region: Mask) -> Contour:
    """Draw one contour around a connected region that does not touch the border; holes are joined by keyholes."""
    from skimage.measure import find_contours

    rings = [ring[:-1] for ring in find_contours(region.astype(np.float32), _LEVEL)]
    rings.sort(key=lambda ring: float(np.ptp(ring[:, 0]) * np.ptp(ring[:, 1])), reverse=True)
    while len(rings) > 1:
        _join_hole(rings)
    return _drop_straight(rings[0])


def _join_hole(rings: list[Contour]) -> None:
    """Join the last hole to the ring on its right by two edges upon one another."""
    hole = rings.pop()
    line = np.rint(hole[np.argmax(hole[:, 1]), 0]) + _BESIDE
    start = max(_cross(hole, line), key=lambda crossing: crossing[1])
    others = [(index, edge, at) for index, ring in enumerate(rings) for edge, at in _cross(ring, line) if at > start[1]]
    index, edge, at = min(others, key=lambda crossing: crossing[2])
    around_hole = _start_at(hole, start[0], (line, start[1]))
    around_ring = _start_at(rings[index], edge, (line, at))
    rings[index] = np.vstack([around_ring, around_ring[:1], around_hole, around_hole[:1]])


def _cross(ring: Contour, line: float) -> list[tuple[int, float]]:
    """List the edges of a ring that cross a row, by the number of their first corner, with the column."""
    (rows, columns), (next_rows, next_columns) = ring.T, np.roll(ring, -1, axis=0).T
    edges = np.flatnonzero((rows < line) != (next_rows < line))
    share = (line - rows[edges]) / (next_rows[edges] - rows[edges])
    at = columns[edges] + share * (next_columns[edges] - columns[edges])
    return list(zip(edges.tolist(), at.tolist(), strict=True))


def _start_at(ring: Contour, edge: int, point: tuple[float, float]) -> Contour:
    """Return a ring that starts at a point on one of its edges."""
    return np.vstack([point, ring[edge + 1 :], ring[: edge + 1]])


def _drop_straight(ring: Contour) -> Contour:
    """Leave out corners at which a line goes straight on; those at which it turns back stay."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    kept: Contour = ring[(np.abs(turn) > _STRAIGHT) | ((before * after).sum(axis=1) < 0)]
    return kept
