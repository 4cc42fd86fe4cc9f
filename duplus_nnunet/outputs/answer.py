"""Holds the prediction of one image: the combined label map, and mask and logits of each target.

Everything lies on the image's own grid, in the array order of nnU-Net's reader (z, y, x).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]

# What marks a target that the model was not trained on, in file names and in names that people read.
UNSEEN_FILE, UNSEEN_MARK = "UNSEEN_", " (not seen in training)"


@dataclass(frozen=True)
class Geometry:
    """The grid of an image.

    Attributes:
        shape: Voxels along (z, y, x).
        spacing: Voxel size along the same axes, in mm.
        properties: The image properties returned by nnU-Net's reader; nnU-Net's writer needs them.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class TargetAnswer:
    """The prediction of one target.

    Attributes:
        name: Name of the target, or the user's own text.
        value: Its value in the combined label map.
        prompt: The target prompt that was used.
        box: Bounding box of the voxels whose logit may exceed 0. Empty (start = stop) if there are none.
        mask: Boolean mask inside the box; masks of mutually exclusive targets do not overlap.
        logits: Logits inside the box, float16; their sigmoid is the probability.
        presence: Probability, 0 to 1, that the image contains the target; None if the model was not calibrated.
        seen: Whether the target was seen in training; if not, it is a text of the user's own.
    """

    name: str
    value: int
    prompt: str
    box: Box
    mask: NDArray[np.bool_]
    logits: NDArray[np.float16]
    presence: float | None = None
    seen: bool = True

    @property
    def title(self) -> str:
        """Name for people: marked if the target was not seen in training."""
        return self.name if self.seen else self.name + UNSEEN_MARK

    @property
    def file_title(self) -> str:
        """Name that a file's name is made of: marked if the target was not seen in training."""
        return self.name if self.seen else UNSEEN_FILE + self.name


@dataclass(frozen=True)
class Removal:
    """What was removed from the mask of a target, because it was asked for.

    Attributes:
        target: Name of the target.
        components: Number of connected components.
        voxels: Number of voxels.
        volume_ml: Their volume, in ml.
    """

    target: str
    components: int
    voxels: int
    volume_ml: float


@dataclass(frozen=True)
class CaseAnswer:
    """The prediction of one image.

    Attributes:
        case: nnU-Net's case identifier.
        context: Name of the context that was used.
        context_prompt: The context prompt that was used.
        geometry: The image's grid.
        labels: Combined label map as nnU-Net writes it, shape `geometry.shape`, uint8 or uint16.
        targets: Predictions of the targets, in the requested order.
        file_name: Name of the case's files, without ending; empty: as outputs.naming.name_case gives it.
        rivals: Which targets each voxel was settled among: `all` of the context, or those `asked` for; None if targets
            do not exclude one another.
        removed: What was removed from the masks, by the options keep_largest and remove_small.
    """

    case: str
    context: str
    context_prompt: str
    geometry: Geometry
    labels: NDArray[Any]
    targets: tuple[TargetAnswer, ...]
    file_name: str = ""
    rivals: str | None = None
    removed: tuple[Removal, ...] = ()
