"""Numbers of one image: in come the bottlenecks of its windows and where the lesion was predicted, out come averages.

A bottleneck's voxel covers a block of the image; it counts as much as what is looked at covers of that block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from duplus_nnunet.errors import DataError

# What surrounds a lesion by this much, in mm, is looked at too: the border of a tumour, and what it grows into.
MARGIN = 10.0
# Probability from which a voxel is of the lesion.
_FOUND = 0.5

Starts = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Windows:
    """Bottlenecks of all windows of an image.

    Attributes:
        maps: One a window, (F, d, h, w).
        starts: Where each window starts, in voxels of the padded image.
        size: Of every window, in voxels.
    """

    maps: Sequence[torch.Tensor]
    starts: Starts
    size: tuple[int, int, int]


def pool_windows(windows: Windows, weights: torch.Tensor) -> torch.Tensor:
    """Average the bottlenecks of all windows, weighted voxel by voxel of the image.

    Args:
        windows: Of one image; where they overlap, both count.
        weights: Not negative, (D, H, W) of the padded image.

    Returns:
        Means (F), float64.

    Raises:
        DataError: All weights are 0, or there are fewer windows than starts.
    """
    if len(windows.maps) != len(windows.starts):
        raise DataError(f"{len(windows.maps)} bottlenecks of {len(windows.starts)} windows; expected one each.")
    total, top = 0.0, torch.zeros(windows.maps[0].shape[0], dtype=torch.float64)
    for bottleneck, start in zip(windows.maps, windows.starts, strict=True):
        box = tuple(slice(first, first + length) for first, length in zip(start, windows.size, strict=True))
        depth, height, width = bottleneck.shape[1:]
        part = functional.adaptive_avg_pool3d(weights[box][None].double(), (depth, height, width))[0]
        top += (bottleneck.double().cpu() * part).sum(dim=(1, 2, 3))
        total += float(part.sum())
    if total <= 0:
        raise DataError("Nothing of the image has any weight, so that there is no average.")
    return top / total


def find_region(found: torch.Tensor, spacing: Sequence[float], margin: float = MARGIN) -> tuple[slice, slice, slice]:
    """Return the box around a lesion, grown by a margin; the whole image if there is no lesion.

    Args:
        found: The lesion's mask, (D, H, W).
        spacing: Size of a voxel along the same axes, in mm.
        margin: In mm.
    """
    places = found.nonzero()
    if len(places) == 0:
        return slice(0, found.shape[0]), slice(0, found.shape[1]), slice(0, found.shape[2])
    first, last = places.amin(0).tolist(), places.amax(0).tolist()
    box = []
    for axis, width in enumerate(spacing):
        grown = round(margin / width)
        box.append(slice(max(0, first[axis] - grown), min(found.shape[axis], last[axis] + 1 + grown)))
    return box[0], box[1], box[2]


@dataclass(frozen=True)
class Lesion:
    """What was predicted of a lesion in one image.

    Attributes:
        volume: In ml.
        means: Mean intensity in it, as preprocessed, by channel; 0 if none was found.
        maxima: Largest intensity in it, likewise.
        found: Whether there is one at all.
    """

    volume: float
    means: tuple[float, ...]
    maxima: tuple[float, ...]
    found: bool


def measure_lesion(image: torch.Tensor, probability: torch.Tensor, spacing: Sequence[float]) -> Lesion:
    """Measure a lesion.

    Args:
        image: As preprocessed, (C, D, H, W).
        probability: Of the lesion, 0 to 1, (D, H, W).
        spacing: Size of a voxel along D, H and W, in mm.
    """
    mask = probability > _FOUND
    count = int(mask.sum())
    if count == 0:
        nothing = (0.0,) * image.shape[0]
        return Lesion(0.0, nothing, nothing, found=False)
    voxel = spacing[0] * spacing[1] * spacing[2] / 1000
    inside = image[:, mask].double()
    return Lesion(count * voxel, tuple(inside.mean(1).tolist()), tuple(inside.amax(1).tolist()), found=True)


def weigh(probability: torch.Tensor | None, shape: Sequence[int], spacing: Sequence[float]) -> list[torch.Tensor]:
    """Say what counts for the averages of an image: the region of interest, and in it the lesion.

    Args:
        probability: Of the lesion, 0 to 1, (D, H, W); None if no target is a lesion.
        shape: Of the image, (D, H, W).
        spacing: Size of a voxel along D, H and W, in mm.

    Returns:
        Weights (D, H, W), 0 to 1: one map without a lesion's target, two with one. If none was found, the second is
        the first.
    """
    region = torch.zeros(tuple(shape), dtype=torch.float32)
    if probability is None:
        return [region.fill_(1.0)]
    mask = probability > _FOUND
    region[find_region(mask, spacing)] = 1.0
    return [region, probability.float() * region if bool(mask.any()) else region]
