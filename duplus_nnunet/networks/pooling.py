"""Pools the bottlenecks of all windows of an image over the region of interest and over a predicted lesion.

A bottleneck voxel covers a block of the image; its weight is the mean of the weights in that block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from duplus_nnunet.errors import DataError

# Margin around a lesion in mm, so that the border of a tumour and the tissue it invades are included.
MARGIN = 10.0
# Probability above which a voxel belongs to the lesion.
_THRESHOLD = 0.5

Starts = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Windows:
    """The bottlenecks of all windows of an image.

    Attributes:
        maps: One bottleneck per window, (F, d, h, w).
        starts: Start of each window, in voxels of the padded image.
        size: Size of every window, in voxels.
    """

    maps: Sequence[torch.Tensor]
    starts: Starts
    size: tuple[int, int, int]


def pool_windows(windows: Windows, weights: torch.Tensor) -> torch.Tensor:
    """Average the bottlenecks of all windows, weighted by image voxels.

    Args:
        windows: Windows of one image; overlapping windows all count.
        weights: Non-negative weights, (D, H, W) of the padded image.

    Returns:
        Means (F), float64.

    Raises:
        DataError: All weights are 0, or the numbers of bottlenecks and windows differ.
    """
    if len(windows.maps) != len(windows.starts):
        raise DataError(f"{len(windows.maps)} bottlenecks for {len(windows.starts)} windows, expected one each.")
    total, weighted_sum = 0.0, torch.zeros(windows.maps[0].shape[0], dtype=torch.float64)
    for bottleneck, start in zip(windows.maps, windows.starts, strict=True):
        box = tuple(slice(first, first + length) for first, length in zip(start, windows.size, strict=True))
        depth, height, width = bottleneck.shape[1:]
        pooled = functional.adaptive_avg_pool3d(weights[box][None].double(), (depth, height, width))[0]
        weighted_sum += (bottleneck.double().cpu() * pooled).sum(dim=(1, 2, 3))
        total += float(pooled.sum())
    if total <= 0:
        raise DataError("All weights of the image are 0, so that its bottleneck cannot be averaged.")
    return weighted_sum / total


def find_region(mask: torch.Tensor, spacing: Sequence[float], margin: float = MARGIN) -> tuple[slice, slice, slice]:
    """Return the bounding box of a lesion plus a margin; the whole image if there is no lesion.

    Args:
        mask: Mask of the lesion, (D, H, W).
        spacing: Voxel size along the same axes, in mm.
        margin: Margin in mm.
    """
    indices = mask.nonzero()
    if len(indices) == 0:
        return slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2])
    first, last = indices.amin(0).tolist(), indices.amax(0).tolist()
    box = []
    for axis, width in enumerate(spacing):
        voxels = round(margin / width)
        box.append(slice(max(0, first[axis] - voxels), min(mask.shape[axis], last[axis] + 1 + voxels)))
    return box[0], box[1], box[2]


@dataclass(frozen=True)
class Lesion:
    """Measurements of the predicted lesion of one image.

    Attributes:
        volume: Volume in ml.
        means: Mean preprocessed intensity by channel; 0 if no lesion is predicted.
        maxima: Maximum preprocessed intensity by channel; 0 if no lesion is predicted.
        found: Whether a lesion is predicted.
    """

    volume: float
    means: tuple[float, ...]
    maxima: tuple[float, ...]
    found: bool


def measure_lesion(image: torch.Tensor, probability: torch.Tensor, spacing: Sequence[float]) -> Lesion:
    """Measure volume and intensities of a lesion.

    Args:
        image: Preprocessed image, (C, D, H, W).
        probability: Probability of the lesion, 0 to 1, (D, H, W).
        spacing: Voxel size along D, H and W, in mm.
    """
    mask = probability > _THRESHOLD
    count = int(mask.sum())
    if count == 0:
        zeros = (0.0,) * image.shape[0]
        return Lesion(0.0, zeros, zeros, found=False)
    voxel = spacing[0] * spacing[1] * spacing[2] / 1000
    inside = image[:, mask].double()
    return Lesion(count * voxel, tuple(inside.mean(1).tolist()), tuple(inside.amax(1).tolist()), found=True)


def compute_pooling_weights(
    probability: torch.Tensor | None, shape: Sequence[int], spacing: Sequence[float]
) -> list[torch.Tensor]:
    """Compute the weights for pooling over the region of interest, and over the lesion in it.

    Args:
        probability: Probability of the lesion, 0 to 1, (D, H, W); None if no target is a lesion.
        shape: Shape of the image, (D, H, W).
        spacing: Voxel size along D, H and W, in mm.

    Returns:
        Weights (D, H, W), 0 to 1: one map if no target is a lesion, else two. If no lesion is predicted, both are the
        same.
    """
    region = torch.zeros(tuple(shape), dtype=torch.float32)
    if probability is None:
        return [region.fill_(1.0)]
    mask = probability > _THRESHOLD
    region[find_region(mask, spacing)] = 1.0
    return [region, probability.float() * region if bool(mask.any()) else region]
