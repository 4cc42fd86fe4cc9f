"""What a prediction found in one image: the combined label map, and each target inside the box where it can be.

Everything lies on the image's own grid, in the array order of nnU-Net's reader (z, y, x).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Geometry:
    """The grid of an image.

    Attributes:
        shape: Voxels along (z, y, x).
        spacing: Along the same axes, in mm.
        properties: What nnU-Net's reader said of the image; its writer needs them.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class TargetAnswer:
    """What was found of one target.

    Attributes:
        name: The target, or the user's own text.
        value: Its value in the combined label map.
        prompt: The sentence (T2) that asked for it.
        box: Where it can be at all; outside of it every logit is 0 or less. Empty (start = stop) if nowhere.
        mask: Its voxels inside the box, boolean; of targets that exclude one another a voxel has one owner.
        logits: Inside the box, float16; the probability is their sigmoid.
        presence: Probability, 0 to 1, that the target is in the image at all; None if the model was not calibrated.
    """

    name: str
    value: int
    prompt: str
    box: Box
    mask: NDArray[np.bool_]
    logits: NDArray[np.float16]
    presence: float | None = None


@dataclass(frozen=True)
class CaseAnswer:
    """What was found in one image.

    Attributes:
        case: nnU-Net's case identifier.
        context: The context it was predicted in.
        context_prompt: The sentence of that context (T1).
        geometry: The image's grid.
        labels: Combined label map, nnU-Net's way, shape `geometry.shape`, uint8 or uint16.
        targets: In the order asked for.
    """

    case: str
    context: str
    context_prompt: str
    geometry: Geometry
    labels: NDArray[Any]
    targets: tuple[TargetAnswer, ...]
