"""Simulated scanners for phantoms: contrast, noise, sharpness and grid, with presets for CT, MR and PET."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Scan:
    """The properties of a scanner.

    Attributes:
        channel: Channel name in dataset.json, such as `CT`.
        intensities: Mean value of each tissue (HU for CT, SUV for PET, no unit for MR).
        noise: Standard deviation of the noise, in the unit of the intensities.
        grain: Strength of the counting noise, whose variance is the square of this times the intensity; 0 for none.
        blur: Standard deviation of the point spread, in mm.
        shape: Number of voxels along left-right, front-back, head-foot.
        spacing: Size of a voxel along the same axes, in mm.
        shading: Strength of a smooth change of brightness across the image (a bias field); 0 for none.
        gain: Largest factor by which a whole image may be brighter or darker than its intensities; 1 for none.
        floor: Smallest value that the scanner stores.
        orientation: Directions of the stored axes, such as `LPS` (first axis to the patient's left).
    """

    channel: str
    intensities: Mapping[str, float]
    noise: float
    blur: float
    shape: tuple[int, int, int] = (40, 40, 32)
    spacing: tuple[float, float, float] = (6.6, 6.6, 6.6)
    grain: float = 0.0
    shading: float = 0.0
    gain: float = 1.0
    floor: float = float("-inf")
    orientation: str = "LPS"


_KIDNEYS = ("left kidney", "right kidney")
_ALIKE = ("liver", "spleen", *_KIDNEYS)

CT = Scan(
    channel="CT",
    intensities={
        "air": -1000.0,
        "fat": -100.0,
        "muscle": 55.0,
        "bowel": 15.0,
        **dict.fromkeys(_ALIKE, 120.0),
        "stomach": 35.0,
        "aorta": 210.0,
        "spine": 340.0,
    },
    noise=22.0,
    blur=3.0,
    floor=-1024.0,
)
# As in a T2-weighted image with fat suppression: water is bright, and flowing blood gives no signal.
MR = Scan(
    channel="MRI",
    intensities={
        "air": 0.0,
        "fat": 110.0,
        "muscle": 170.0,
        "bowel": 330.0,
        "liver": 240.0,
        "spleen": 420.0,
        **dict.fromkeys(_KIDNEYS, 620.0),
        "stomach": 500.0,
        "aorta": 30.0,
        "spine": 200.0,
    },
    noise=22.0,
    blur=2.5,
    shape=(42, 36, 25),
    spacing=(6.0, 6.0, 8.0),
    shading=0.3,
    gain=3.0,
    floor=0.0,
)
PET = Scan(
    channel="PET",
    intensities={
        "air": 0.0,
        "fat": 0.3,
        "muscle": 0.7,
        "bowel": 1.1,
        "liver": 2.4,
        "spleen": 2.0,
        **dict.fromkeys(_KIDNEYS, 3.4),
        "stomach": 1.5,
        "aorta": 1.8,
        "spine": 1.3,
    },
    noise=0.05,
    blur=5.5,
    shape=(34, 28, 28),
    spacing=(8.0, 8.0, 8.0),
    grain=0.3,
    gain=1.25,
    floor=0.0,
)
