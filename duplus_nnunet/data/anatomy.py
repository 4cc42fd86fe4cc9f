"""Draws random abdominal anatomies: the positions, sizes and deformation of solids, without voxels or intensities.

Coordinates are in mm from the centre of the volume: x to the patient's right, y to the front, z to the head (RAS, the
world coordinates of NIfTI). The patient's left is negative x, whatever the orientation of an image.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]

LABELS = {
    "liver": 1,
    "spleen": 2,
    "left kidney": 3,
    "right kidney": 4,
    "stomach": 5,
    "aorta": 6,
    "spine": 7,
}

_ENDLESS = float("inf")
_TALLEST_BEND = 6.0
_SHORTEST_WAVE = 80.0
_BENDS = 6


@dataclass(frozen=True)
class Solid:
    """An ellipsoid of one tissue; a radius of infinity makes it a tube.

    Attributes:
        tissue: A label, or an unlabelled tissue such as `muscle`.
        centre: Centre, in mm.
        radii: Semi-axes before rotation, in mm.
        angles: Rotation about x, y and z, in degrees.
        gap: Width of the layer of fat around it, in mm, which separates it from its neighbours.
    """

    tissue: str
    centre: Triple
    radii: Triple
    angles: Triple = (0.0, 0.0, 0.0)
    gap: float = 0.0


@dataclass(frozen=True)
class Bend:
    """One plane wave of a smooth displacement field.

    Attributes:
        amplitude: Displacement along x, y and z, in mm.
        frequency: Waves per mm along x, y and z.
        phase: Phase, in radians.
    """

    amplitude: Triple
    frequency: Triple
    phase: float


@dataclass(frozen=True)
class Anatomy:
    """One patient: solids in the order in which they are painted (later ones on top), and a displacement field."""

    solids: tuple[Solid, ...]
    bends: tuple[Bend, ...] = ()


_BODY = (
    Solid("fat", (0.0, 0.0, 0.0), (119.0, 94.0, _ENDLESS)),
    Solid("muscle", (0.0, 0.0, 0.0), (109.0, 84.0, _ENDLESS)),
    Solid("fat", (0.0, 3.0, 0.0), (100.0, 74.0, _ENDLESS)),
)
_BACK_MUSCLES = (
    Solid("muscle", (32.0, -58.0, -30.0), (15.0, 17.0, _ENDLESS)),
    Solid("muscle", (-32.0, -58.0, -30.0), (15.0, 17.0, _ENDLESS)),
)
_KIDNEY = Solid("kidney", (57.0, -32.0, -36.0), (23.0, 21.0, 42.0), (0.0, 12.0, 0.0), gap=5.0)
_ORGANS = (
    Solid("liver", (53.0, 6.0, 38.0), (41.0, 54.0, 48.0), (0.0, 15.0, 0.0), gap=5.0),
    Solid("liver", (20.0, 38.0, 56.0), (52.0, 26.0, 24.0), (0.0, 20.0, -15.0), gap=5.0),
    Solid("stomach", (-42.0, 34.0, 24.0), (34.0, 27.0, 42.0), (0.0, -25.0, 15.0), gap=4.0),
    Solid("spleen", (-69.0, -16.0, 48.0), (24.0, 38.0, 34.0), (0.0, 0.0, -20.0), gap=5.0),
)
_MIDLINE = (
    Solid("aorta", (-12.0, -26.0, 0.0), (13.0, 13.0, _ENDLESS), gap=3.0),
    Solid("spine", (0.0, -60.0, 0.0), (23.0, 20.0, _ENDLESS)),
)


def mirror(solid: Solid) -> Solid:
    """Reflect a solid in the sagittal midplane, so that right becomes left."""
    x, y, z = solid.centre
    about_x, about_y, about_z = solid.angles
    return replace(solid, centre=(-x, y, z), angles=(about_x, -about_y, -about_z))


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient: the size of the body, and the position, size and rotation of each organ."""
    size = rng.uniform(0.92, 1.05)
    right = replace(_KIDNEY, tissue="right kidney")
    left = replace(mirror(_KIDNEY), tissue="left kidney")
    organs = (*_ORGANS, right, left, *_MIDLINE)
    solids = (
        *(_scale(solid, size) for solid in (*_BODY, *_BACK_MUSCLES)),
        *(_scale(solid, size) for solid in _draw_bowel(rng)),
        *(_vary(_scale(solid, size), rng) for solid in organs),
    )
    return Anatomy(solids, tuple(_draw_bend(rng) for _ in range(_BENDS)))


def measure_depth(solid: Solid, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Estimate the distance of points from the surface of a solid.

    Args:
        solid: The solid.
        points: Coordinates in mm, shape (3, ...).

    Returns:
        Distances in mm to first order, negative inside, shape (...).
    """
    # The columns of the rotation matrix are the axes of the solid.
    turned = np.tensordot(rotation(solid.angles).T, points - _column(solid.centre, points), axes=1)
    inverse = (1.0 / _column(solid.radii, points)).astype(np.float32)
    scaled = turned * inverse
    level = np.sqrt((scaled**2).sum(axis=0))
    slope = np.sqrt(((scaled * inverse) ** 2).sum(axis=0))
    distance: NDArray[np.float32] = level * (level - 1.0) / np.maximum(slope, 1e-6)
    return distance


def bend_points(points: NDArray[np.float32], bends: tuple[Bend, ...]) -> NDArray[np.float32]:
    """Displace points by the sum of all plane waves; shapes (3, ...), in mm."""
    moved = points.copy()
    for bend in bends:
        angle = 2.0 * np.pi * (points * _column(bend.frequency, points)).sum(axis=0) + bend.phase
        moved += _column(bend.amplitude, points) * np.sin(angle)
    return moved


def rotation(angles: Triple) -> NDArray[np.float32]:
    """Build the matrix (3, 3) of rotations about x, then y, then z, given in degrees."""
    matrix = np.eye(3)
    for axis, degrees in enumerate(angles):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = cosine
        turn[first, second], turn[second, first] = -sine, sine
        matrix = turn @ matrix
    return matrix.astype(np.float32)


def _vary(solid: Solid, rng: np.random.Generator) -> Solid:
    tube = np.isinf(solid.radii[2])
    shift = rng.normal(0.0, 2.5 if tube else 5.0, 3)
    stretch = rng.uniform(0.86, 1.14, 3)
    turn = rng.normal(0.0, 2.0 if tube else 8.0, 3)
    return replace(
        solid,
        centre=_triple(np.add(solid.centre, shift)),
        radii=_triple(np.multiply(solid.radii, stretch)),
        angles=_triple(np.add(solid.angles, turn)),
    )


def _draw_bowel(rng: np.random.Generator) -> tuple[Solid, ...]:
    loops = []
    for _ in range(int(rng.integers(7, 11))):
        x, y, z = rng.uniform((-70.0, -5.0, -95.0), (70.0, 58.0, -25.0))
        radii = rng.uniform(9.0, 22.0, 3)
        loops.append(Solid("bowel", (x, y, z), _triple(radii), gap=4.0))
    return tuple(loops)


def _draw_bend(rng: np.random.Generator) -> Bend:
    amplitude = rng.uniform(-1.0, 1.0, 3) * _TALLEST_BEND / np.sqrt(_BENDS / 2)
    frequency = rng.uniform(-1.0, 1.0, 3) / _SHORTEST_WAVE
    return Bend(_triple(amplitude), _triple(frequency), float(rng.uniform(0.0, 2.0 * np.pi)))


def _scale(solid: Solid, size: float) -> Solid:
    return replace(solid, centre=_times(solid.centre, size), radii=_times(solid.radii, size))


def _times(values: Triple, factor: float) -> Triple:
    return values[0] * factor, values[1] * factor, values[2] * factor


def _triple(values: NDArray[np.float64]) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _column(values: Triple, points: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32).reshape((3,) + (1,) * (points.ndim - 1))
