"""Keeps what the network computed, so that the answer for further targets needs no second pass.

A call of the network is one window of one fold, mirrored or not, by one adapter. Kept are its projected map, or a part
of it, and its pooled bottleneck: the heads of any other targets give there, to the bit, the logits of a call with these
targets.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from duplus_nnunet.outputs.answer import Box
from duplus_nnunet.reporting.surfaces import find_box

# Where a window is below it, at a probability of 0.7 %, other windows seldom find the target.
NEAR_LOGIT = -5.0


@dataclass(frozen=True)
class KeptMap:
    """A part of one call.

    Attributes:
        box: The part, in voxels of the window as it was given to the network.
        maps: Projected map inside it, (1, F, d, h, w).
        pooled: Pooled bottleneck of the whole window, (1, C).
    """

    box: Box
    maps: torch.Tensor
    pooled: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory of the map, in bytes."""
        return self.maps.numel() * self.maps.element_size()


# Fold, window, mirrored axes and adapter of a call.
CallKey = tuple[int, int, tuple[int, ...], str]


@dataclass
class CallMaps(ABC):
    """The calls of a prediction, in the order in which nnU-Net walks over folds and windows.

    Attributes:
        budget: Bytes that may be kept in memory.
        fold: Number of the current fold.
        window: Number of the current window among all windows of the image.
        flips: Axes along which the current window is mirrored.
        calls_again: Number of calls of which nothing was kept when it was needed.
    """

    budget: int
    fold: int = field(default=-1, init=False)
    window: int = field(default=-1, init=False)
    flips: tuple[int, ...] = field(default=(), init=False)
    calls_again: int = field(default=0, init=False)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that are kept in memory."""

    def key_of(self, adapter: str) -> CallKey:
        """Return what names the current call, by an adapter; "" is the base."""
        return self.fold, self.window, self.flips, adapter

    def begin_window(self, window: int, windows: int) -> None:
        """Note the next window of the current fold, of all windows that will be walked over."""
        self.window = window

    @abstractmethod
    def keep(self, adapter: str, maps: torch.Tensor, pooled: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep the current call, or a part of it, if it can be.

        Args:
            adapter: Adapter of the call, "" for the base.
            maps: Projected map, (1, F, D, H, W).
            pooled: Pooled bottleneck, (1, C).
            logits: Of the asked targets, (1, K, D, H, W).
        """

    @abstractmethod
    def find(self, adapter: str, box: Box) -> KeptMap | None:
        """Return what was kept of the current call; None if it does not cover a box of the window."""


@dataclass
class WindowMaps(CallMaps):
    """Keeps the part of each call where an asked target comes close to a probability of one half, for its rivals.

    Calls that do not fit into the budget are made again.
    """

    _kept: dict[CallKey, KeptMap] = field(default_factory=dict)
    _bytes: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self._bytes

    def keep(self, adapter: str, maps: torch.Tensor, pooled: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep a part of the current call, if there is something close and memory for it."""
        near = find_box((logits[0].amax(0) > NEAR_LOGIT).cpu().numpy())
        if near is None:
            return
        key = self.key_of(adapter)
        before = self._kept.get(key)
        box = near if before is None else _join(near, before.box)
        held = 0 if before is None else before.nbytes
        part = maps[(slice(None), slice(None), *box)]
        size = part.numel() * part.element_size()
        if self._bytes - held + size > self.budget:
            return
        self._kept[key] = KeptMap(to_box(box), part.to("cpu", copy=True).contiguous(), pooled.to("cpu", copy=True))
        self._bytes += size - held

    def find(self, adapter: str, box: Box) -> KeptMap | None:
        """Return what was kept of the current call; None if it does not cover a box of the window."""
        kept = self._kept.get(self.key_of(adapter))
        return kept if kept is not None and _covers(kept.box, box) else None


def flip_box(box: Box, shape: Sequence[int], flips: Sequence[int]) -> Box:
    """Return a box as it lies in the mirror image along some axes of an image."""
    return to_box([
        slice(size - part.stop, size - part.start) if axis in flips else part
        for axis, (part, size) in enumerate(zip(box, shape, strict=True))
    ])  # fmt: skip


def _covers(outer: Box, inner: Box) -> bool:
    return all(own.start <= part.start and part.stop <= own.stop for own, part in zip(outer, inner, strict=True))


def _join(one: Sequence[slice], other: Sequence[slice]) -> Box:
    return to_box([slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)])


def to_box(parts: Sequence[slice]) -> Box:
    """Return three slices as a box."""
    d, h, w = parts
    return d, h, w
