"""Ways of scanning a phantom: contrast, noise, sharpness and grid, with presets like CT, MR and PET.

In: nothing. Out: `Scan`; another scanner is one of these with some values replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Scan:
    """How an anatomy is turned into an image.

    Attributes:
        channel: Channel name in dataset.json, such as `CT`.
        intensities: Mean value of each tissue (in HU for CT).
        noise: Standard deviation of the noise, in the unit of the intensities.
        blur: Standard deviation of the point spread, in mm.
        shape: Voxels along left-right, front-back, head-foot.
        spacing: Size of a voxel along the same axes, in mm.
        shading: Relative strength of a smooth change of brightness across the image, 0 for none.
        orientation: Directions in which the stored axes run, such as `LPS` (first axis to the patient's left).
    """

    channel: str
    intensities: Mapping[str, float]
    noise: float
    blur: float
    shape: tuple[int, int, int] = (40, 40, 32)
    spacing: tuple[float, float, float] = (6.6, 6.6, 6.6)
    shading: float = 0.0
    orientation: str = "LPS"


_ALIKE = ("liver", "spleen", "left kidney", "right kidney")

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
)
MR = Scan(
    channel="MRI",
    intensities={
        "air": 0.0,
        "fat": 620.0,
        "muscle": 190.0,
        "bowel": 330.0,
        **dict.fromkeys(_ALIKE, 420.0),
        "stomach": 260.0,
        "aorta": 60.0,
        "spine": 520.0,
    },
    noise=30.0,
    blur=3.0,
    shading=0.3,
)
PET = Scan(
    channel="PET",
    intensities={
        "air": 0.0,
        "fat": 0.3,
        "muscle": 0.7,
        "bowel": 1.2,
        **dict.fromkeys(_ALIKE, 2.6),
        "stomach": 1.6,
        "aorta": 2.0,
        "spine": 1.4,
    },
    noise=0.15,
    blur=5.0,
)
