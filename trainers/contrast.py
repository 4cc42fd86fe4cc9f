"""Remaps the intensities of training images by random curves, so that one contrast imitates others.

Source of random non-linear maps: Zhou et al. 2019, arXiv 1908.06912; of random intensities by region: Billot et al.
2023, arXiv 2107.09559.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Labels = list[torch.Tensor] | torch.Tensor

# Number of knots of a curve: between two of them it is linear.
_KNOTS = 6
# The curve bends between these shares of an image's sorted values; it is constant beyond them.
_RANGE = 0.005, 0.995
# Values that shares are read from; sorting all values of a large patch would take longer than the remapping.
_MOST_SORTED = 1 << 14
# Label values with a random intensity of their own; higher values share them.
_REGIONS = 256
# Width in voxels over which the intensity of a region fades at its border, as by a scanner's blur.
_FADE = 3


@dataclass(frozen=True)
class Remapping:
    """The random parameters by which some images of a batch are remapped.

    Attributes:
        chosen: Which of the B images are remapped.
        knots: Positions of the knots, 0 to 1 of an image's range, (B, C, knots), ascending from 0 to 1.
        values: Value at each knot, (B, C, knots).
        regions: Intensity that is added in the region of each label value, in standard deviations of the image,
            (B, C, 256); 0 for the background.
    """

    chosen: tuple[bool, ...]
    knots: NDArray[np.float32]
    values: NDArray[np.float32]
    regions: NDArray[np.float32]


def draw_remapping(
    shape: Sequence[int], probability: float, spread: float, rng: np.random.Generator
) -> Remapping | None:
    """Draw which images of a batch are remapped, and how.

    Args:
        shape: B and C, the numbers of images and channels.
        probability: Probability, 0 to 1, that an image is remapped.
        spread: Standard deviation of the intensities by region, in standard deviations of the image; 0: none.
        rng: Draws everything; it is left alone if the probability is 0.

    Returns:
        None if no image is remapped.
    """
    batch, channels = shape[:2]
    chosen = tuple(bool(rng.random() < probability) for _ in range(batch)) if probability else ()
    if not any(chosen):
        return None
    size = batch, channels
    knots = np.sort(rng.random((*size, _KNOTS)), axis=-1)
    knots[..., 0], knots[..., -1] = 0.0, 1.0
    regions = rng.normal(size=(*size, _REGIONS)) * spread
    regions[..., 0] = 0.0
    return Remapping(
        chosen, knots.astype(np.float32), rng.random((*size, _KNOTS)).astype(np.float32), regions.astype(np.float32)
    )


def remap_images(
    data: torch.Tensor, labels: Labels, remapping: Remapping | None, ignore: int | None = None
) -> torch.Tensor:
    """Remap the chosen images; each channel keeps its mean and standard deviation, and label maps are only read.

    Args:
        data: Images, (B, C, D, H, W).
        labels: Label maps, (B, 1, D, H, W), or a list of them, finest first.
        remapping: What draw_remapping drew; None: the images are returned as they are.
        ignore: Label value of voxels that are not annotated; it is no region.

    Returns:
        Images of the same shape, type and device.
    """
    if remapping is None:
        return data
    finest = labels[0] if isinstance(labels, list) else labels
    images = list(data)
    for index, chosen in enumerate(remapping.chosen):
        if chosen:
            fields = _paint_regions(finest[index, 0], remapping.regions[index], ignore, data.device)
            channels = zip(data[index], remapping.knots[index], remapping.values[index], fields, strict=True)
            images[index] = torch.stack([_remap_channel(*parts) for parts in channels])
    return torch.stack(images)


def _remap_channel(
    image: torch.Tensor, knots: NDArray[np.float32], values: NDArray[np.float32], field: torch.Tensor
) -> torch.Tensor:
    """Remap one channel (D, H, W) by a curve, and add a field of the same shape; a constant channel stays."""
    x = image.float()
    low, high = _measure_range(x)
    deviation = x.std()
    if not bool(high > low):
        return image
    at, curve = (torch.from_numpy(part).to(x.device) for part in (knots, values))
    place = ((x - low) / (high - low)).clamp(0, 1)
    segment = torch.searchsorted(at, place.contiguous(), right=True).clamp(1, len(at) - 1)
    start, stop = at[segment - 1], at[segment]
    share = (place - start) / (stop - start).clamp_min(1e-6)
    mapped = torch.lerp(curve[segment - 1], curve[segment], share.clamp(0, 1))
    mapped = _standardise(mapped) + field
    return (_standardise(mapped) * deviation + x.mean()).to(image.dtype)


def _standardise(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean()) / x.std().clamp_min(1e-3)


def _measure_range(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values between which a curve bends."""
    flat = x.flatten()
    some = flat[:: max(1, len(flat) // _MOST_SORTED)].sort().values
    low, high = (some[round(share * (len(some) - 1))] for share in _RANGE)
    return low, high


def _paint_regions(
    labels: torch.Tensor, regions: NDArray[np.float32], ignore: int | None, device: torch.device
) -> torch.Tensor:
    """Paint each region (D, H, W) with its intensity in every channel, faded at the border: (C, D, H, W)."""
    table = torch.from_numpy(regions).to(device)
    values = labels.to(device, non_blocking=True).long().clamp_min(0)
    if ignore is not None:
        values = values.masked_fill(values == ignore, 0)
    shared = torch.where(values > 0, (values - 1) % (_REGIONS - 1) + 1, 0)
    fields: Any = table[:, shared]
    faded: torch.Tensor = functional.avg_pool3d(fields[None], _FADE, 1, _FADE // 2, count_include_pad=False)[0]
    return faded
