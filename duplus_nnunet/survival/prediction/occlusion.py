"""Occlusion: recomputes the features of an image with one box at a time filled.

Only the sliding windows that overlap the box are predicted again; the others are reused.
Source: Zeiler and Fergus 2014, arXiv 1311.2901.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from duplus_nnunet.errors import DataError
from duplus_nnunet.networks.adaptation import compute_base_checksum
from duplus_nnunet.networks.pooling import Windows, find_region
from duplus_nnunet.survival.imaging.image_features import STEP, FeatureReader, Row

Box = tuple[slice, slice, slice]
# Logits (K, ...) of a base model, float16, by what they depend on and the start of the window.
BaseCalls = dict[tuple[str, tuple[int, int, int]], torch.Tensor]

# Default number of boxes along the longest side of the region of interest.
_ALONG = 8
_GROWTH = 1.05
_FOUND = 0.5
_SIGMA, _PEAK = 1 / 8, 10  # of nnU-Net's Gaussian weights of a window


@dataclass(frozen=True)
class Boxes:
    """A region of an image divided into boxes.

    Attributes:
        boxes: Adjacent boxes, in voxels of the preprocessed image.
        size: Side of the boxes in mm, before rounding to voxels.
        enlarged: Whether the side was increased to limit the number of boxes.
    """

    boxes: tuple[Box, ...]
    size: float
    enlarged: bool


def choose_boxes(region: Box, spacing: Sequence[float], size: float | None, most: int) -> Boxes:
    """Divide a region into boxes.

    Args:
        region: Region in voxels.
        spacing: Spacing of the voxels, in mm.
        size: Side of a box, in mm; None: an eighth of the longest side of the region.
        most: Maximum number of boxes; the boxes are enlarged to stay within it.

    Raises:
        DataError: The size is not above 0, or the number is below 1.
    """
    if most < 1 or (size is not None and not size > 0):
        raise DataError(f"The box size is {size} mm, with {most} boxes at most; expected a size above 0 and 1 or more.")
    side = size or max((axis.stop - axis.start) * width for axis, width in zip(region, spacing, strict=True)) / _ALONG
    pieces, current = _divide(region, spacing, side), side
    while math.prod(map(len, pieces)) > most:
        current *= _GROWTH
        pieces = _divide(region, spacing, current)
    boxes = tuple((z, y, x) for z, y, x in itertools.product(*pieces))
    return Boxes(boxes, current, current > side)


def _divide(region: Box, spacing: Sequence[float], size: float) -> list[list[slice]]:
    """Divide each axis of a region into pieces of a size in mm."""
    parts = []
    for axis, width in zip(region, spacing, strict=True):
        step = max(1, round(size / width))
        parts.append([slice(first, min(first + step, axis.stop)) for first in range(axis.start, axis.stop, step)])
    return parts


class WindowedImage:
    """Outputs of one network for one image, by sliding window.

    Args:
        reader: Computes the features of the image.
        image: Preprocessed image, (C, D, H, W).
        context: Its context.
        calls: Logits of base models on the windows of this image, shared by readers whose adapters have the same base;
            used and added to.
    """

    def __init__(
        self, reader: FeatureReader, image: torch.Tensor, context: str, calls: BaseCalls | None = None
    ) -> None:
        self._reader, self._image, self._context = reader, image, context
        self._base = self._identify_base()
        self._padded, self._inside = reader.pad(image)
        size = tuple(int(length) for length in reader.host.configuration.patch_size)
        steps = compute_steps_for_sliding_window(self._padded.shape[1:], size, STEP)
        self._size: tuple[int, int, int] = (size[0], size[1], size[2])
        self._starts = [(first, second, third) for first, second, third in itertools.product(*steps)]
        self._weight = compute_gaussian(size, _SIGMA, _PEAK, torch.float32, torch.device("cpu"))
        shared: BaseCalls = {} if calls is None else calls
        outputs = [self._predict(self._padded, start, shared) for start in self._starts]
        self._logits, self._maps = [output[0] for output in outputs], [output[1] for output in outputs]
        self._sum = torch.zeros((len(self._logits[0]), *self._padded.shape[1:]))
        self._weights = torch.zeros(self._padded.shape[1:])
        for start, logits in zip(self._starts, self._logits, strict=True):
            self._sum[(slice(None), *self._find(start))] += logits * self._weight
            self._weights[self._find(start)] += self._weight
        self.row = self._summarise(self._image, self._sum, self._maps)

    @property
    def windows(self) -> int:
        """Number of sliding windows."""
        return len(self._starts)

    def find_region(self) -> Box:
        """Return the region of interest: the surroundings of the predicted lesion, or the whole image."""
        logits = (self._sum / self._weights)[self._inside]
        lesion = self._reader.find_lesion(logits, self._context)
        mask = torch.zeros(self._image.shape[1:], dtype=torch.bool) if lesion is None else lesion > _FOUND
        return find_region(mask, self._reader.spacing(self._context))

    def read_without(self, box: Box, calls: BaseCalls | None = None) -> Row:
        """Compute the features with a box filled with the mean of the image, in each channel.

        Args:
            box: The box, in voxels of the image.
            calls: As for the whole image, but with this box filled.
        """
        shared: BaseCalls = {} if calls is None else calls
        image = self._image.clone()
        image[(slice(None), *box)] = image.mean(dim=(1, 2, 3))[:, None, None, None]
        padded, _ = self._reader.pad(image)
        filled = [slice(a.start + b.start, a.stop + b.start) for a, b in zip(box, self._inside[1:], strict=True)]
        total, maps = self._sum.clone(), list(self._maps)
        for number, start in enumerate(self._starts):
            if not all(a.start < b.stop and b.start < a.stop for a, b in zip(filled, self._find(start), strict=True)):
                continue
            logits, maps[number] = self._predict(padded, start, shared)
            total[(slice(None), *self._find(start))] += (logits - self._logits[number].float()) * self._weight
        return self._summarise(image, total, maps)

    def _find(self, start: Sequence[int]) -> Box:
        z, y, x = (slice(first, first + length) for first, length in zip(start, self._size, strict=True))
        return z, y, x

    def _identify_base(self) -> str:
        """Return what the base's logits depend on except the image: weights, lesions and precision."""
        reader = self._reader
        checksum = compute_base_checksum(reader.network.state_dict()) if reader.adapter else ""
        return f"{checksum} {self._context} {reader.lesions[self._context]} {reader.network.cpu_bfloat16}"

    def _predict(
        self, padded: torch.Tensor, start: tuple[int, int, int], calls: BaseCalls
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the base's logits (K, ...) in a window, float16, and the bottleneck for the features."""
        reader = self._reader
        window = padded[(slice(None), *self._find(start))][None].contiguous().to(reader.host.device)
        if not reader.adapter:
            return self._call_base(window)
        key = self._base, start
        if key not in calls:
            calls[key] = self._call_base(window)[0]
        with reader.prepare(self._context), torch.inference_mode():
            reader.network.default_adapter = reader.adapter
            return calls[key], reader.network.encode(window)[0].float().cpu()

    def _call_base(self, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (K, ...), float16, and bottleneck of the base in a window (1, C, ...)."""
        reader, maps = self._reader, list[torch.Tensor]()
        on_gpu = window.device.type == "cuda"
        hook = reader.network.encoder.register_forward_hook(lambda *call: maps.append(call[2][-1][0].float().cpu()))
        try:
            with reader.prepare(self._context), torch.inference_mode(), torch.autocast("cuda", enabled=on_gpu):
                logits = reader.network(window)[0].half().cpu()
        finally:
            hook.remove()
        return logits, maps[-1]

    def _summarise(self, image: torch.Tensor, total: torch.Tensor, maps: Sequence[torch.Tensor]) -> Row:
        logits = (total / self._weights)[self._inside]
        return self._reader.summarise(image, self._context, logits, Windows(maps, self._starts, self._size))


def spread(values: Sequence[float], boxes: Sequence[Box], shape: Sequence[int]) -> "np.ndarray[Any, Any]":
    """Return an array, float32 (D, H, W), with each value in its box; NaN outside the boxes."""
    filled = np.full(tuple(shape), np.nan, np.float32)
    for value, box in zip(values, boxes, strict=True):
        filled[box] = value
    return filled
