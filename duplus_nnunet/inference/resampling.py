"""Resamples a target's logits from the network's grid to the image's, inside the box where the target can be.

nnU-Net resamples every target over the whole volume. Linear interpolation averages neighbours, so that no voxel exceeds
a threshold unless one of its neighbours does: voxels outside the box need not be computed. Resampling functions other
than nnU-Net's default are called as the plans name them.

Source: resample_data_or_seg_to_shape of nnU-Net, whose results are reproduced (order 1; order 0 across thick slices).
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from duplus_nnunet.data.orientations import NO_REORIENTATION, Reorientation, read_turn
from duplus_nnunet.errors import DataError, HostError, ModelError
from duplus_nnunet.outputs.answer import Box
from duplus_nnunet.reporting.surfaces import Mask, find_box

Logits: TypeAlias = "torch.Tensor | NDArray[Any]"
Half: TypeAlias = NDArray[np.float16]
Shape = tuple[int, int, int]

NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))

_HOST_FUNCTION = "resample_data_or_seg_to_shape"
_HOST_DEFAULTS = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False}
_THRESHOLD = "separate_z_anisotropy_threshold"
# Voxels that are resampled at once: few enough for a processor's cache, many enough for a plane of a large image.
SLAB = 2**20
# Bits of infinite numbers; among numbers of the same sign, only NaN has larger ones.
_INFINITE = np.float16(np.inf).view(np.int16)
_MINUS_INFINITE = np.float16(-np.inf).view(np.uint16)


@dataclass(frozen=True)
class Axis:
    """How one axis is resampled.

    Attributes:
        low: For each voxel of the result, the source's voxel before it.
        high: The source's voxel after it; the same at the edges.
        weight: Share of `high`, 0 to 1, float32; None where `low` is simply taken.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: NDArray[np.float32] | None

    def cut(self, part: slice) -> tuple[slice, "Axis"]:
        """Return the part of the source that a part of the result needs, and how it is made of that."""
        low, high = self.low[part], self.high[part]
        weight = None if self.weight is None else self.weight[part]
        first = int(low[0])
        return slice(first, int(high[-1]) + 1), Axis(low - first, high - first, weight)

    def spread(self, part: slice) -> slice:
        """Return the part of the result that a part of the source has a share in."""
        touched = np.flatnonzero((self.high >= part.start) & (self.low < part.stop))
        return slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else slice(0, 0)

    def apply(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Resample an array along one of its axes."""
        if self.weight is None and np.array_equal(self.low, np.arange(values.shape[axis])):
            return values
        near: NDArray[np.float32] = np.take(values, self.low, axis)
        if self.weight is None:
            return near
        # Three plain steps and no fused one, whose last bit would depend on where in the array a voxel lies.
        far: NDArray[np.float32] = np.take(values, self.high, axis)
        far -= near
        far *= self.weight.reshape([-1 if other == axis else 1 for other in range(3)])
        far += near
        return far


def interpolate_axis(source: int, target: int) -> Axis:
    """Resample an axis from `source` to `target` voxels by linear interpolation between voxel centres."""
    if source == target:
        return _copy(np.arange(source))
    positions = np.clip(_find_positions(source, target), 0, source - 1)
    low = np.floor(positions).astype(np.intp)
    return Axis(low, np.minimum(low + 1, source - 1), (positions - low).astype(np.float32))


def pick_axis(source: int, target: int) -> Axis:
    """Resample an axis from `source` to `target` voxels by nearest neighbour; the later of two equally near."""
    positions = np.clip(_find_positions(source, target), 0, source - 1)
    return _copy(np.floor(positions + 0.5).astype(np.intp))


def _find_positions(source: int, target: int) -> NDArray[np.float64]:
    scale = np.float64(source) / target
    return scale * (np.arange(target, dtype=np.float64) + 0.5) - 0.5


def _copy(index: NDArray[np.intp]) -> Axis:
    return Axis(index, index, None)


@dataclass(frozen=True)
class Placement:
    """Where nnU-Net's crop lies in the image.

    Attributes:
        start: First voxel of the crop, in nnU-Net's order of axes.
        shape: Voxels of the whole image, in that order.
        backward: nnU-Net's `transpose_backward`, which leads from that order to that before it.
        back: What leads from there to the image's own orientation, in the reader's (z, y, x).
    """

    start: Shape
    shape: Shape
    backward: Shape
    back: Reorientation = NO_REORIENTATION

    def move(self, box: Box) -> Box:
        """Return a box of the crop as one of the image; an empty one stays as it is."""
        if box == NOWHERE:
            return NOWHERE
        z, y, x = (self._shift(box[axis], self.start[axis]) for axis in self.backward)
        return self.back.apply_to_box((z, y, x), [self.shape[axis] for axis in self.backward])

    def turn(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an array of the crop with its axes in the image's order and directions."""
        return self.back.apply(values.transpose(self.backward))

    @staticmethod
    def _shift(part: slice, offset: int) -> slice:
        return slice(part.start + offset, part.stop + offset)


@dataclass(frozen=True)
class Resampler:
    """Resamples the logits of one target after another from the network's grid to the image's.

    Attributes:
        source: Voxels of the network's grid, (d, h, w).
        shape: Voxels of the crop on the image's grid, axes in nnU-Net's order.
        placement: Where the crop lies in the image.
        axes: How each axis is resampled; None if `host` does it.
        host: The plans' own function: of one channel (1, d, h, w) it makes one of the shape (1, *shape).
    """

    source: Shape
    shape: Shape
    placement: Placement
    axes: tuple[Axis, Axis, Axis] | None
    host: Callable[[torch.Tensor], Any]

    def resample(self, logits: Logits, floor: float = 0.0) -> tuple[Box, Half]:
        """Resample one target.

        Args:
            logits: Shape `source`; taken as float16, which is what nnU-Net's predictor gives.
            floor: Logit that a voxel must exceed to be of interest, itself rounded to float16; 0 is a probability of
                one half, minus infinity keeps all.

        Returns:
            The smallest box of the crop that holds every voxel above the floor, `NOWHERE` if there is none, and the
            logits inside it, as float16 like nnU-Net's.

        Raises:
            DataError: The logits have another shape.
            ModelError: They are not all finite.
            HostError: The plans' own function made another shape than it was asked for.
        """
        values = to_half(logits)
        self._check(values)
        box = self._find_candidates(values, floor)
        if box == NOWHERE:
            return NOWHERE, np.zeros((0, 0, 0), np.float16)
        resampled = self._call_host(values) if self.axes is None else self._fill(values, box)
        inner = find_box(exceeds(resampled, floor))
        if inner is None:
            return NOWHERE, np.zeros((0, 0, 0), np.float16)
        z, y, x = (slice(b.start + i.start, b.start + i.stop) for b, i in zip(box, inner, strict=True))
        # A mere view would keep what was left out in memory.
        return (z, y, x), resampled if resampled[inner].shape == resampled.shape else resampled[inner].copy()

    def resample_inside(self, logits: Half, part: Box, boxes: Sequence[Box]) -> Iterator[tuple[Box, Half] | None]:
        """Resample what is known of one target inside some boxes of the crop, where it can exceed 0.

        Args:
            logits: Inside a part of the network's grid, float16; finite.
            part: That part; it holds all that the boxes are made of.
            boxes: Boxes of the crop.

        Yields:
            For each box the smaller one in which the target can exceed 0, and its logits there, float16; None if it
            cannot.

        Raises:
            HostError: The plans' own function made another shape than it was asked for.
        """
        if self.axes is None:  # other functions may overshoot, and reach anywhere
            whole = np.zeros(self.source, np.float16)
            whole[part] = logits
            resampled = self._call_host(whole)
            yield from ((box, np.ascontiguousarray(resampled[box])) for box in boxes)
            return
        inside = find_box(exceeds(logits, 0.0))
        if inside is None:
            yield from (None for _ in boxes)
            return
        start = tuple(own.start for own in part)
        reach = [
            axis.spread(slice(own.start + first, own.stop + first))
            for axis, own, first in zip(self.axes, inside, start, strict=True)
        ]
        for box in boxes:
            z, y, x = (
                slice(max(own.start, one.start), min(own.stop, one.stop)) for own, one in zip(box, reach, strict=True)
            )
            met = all(one.start < one.stop for one in (z, y, x))
            yield ((z, y, x), self._fill(logits, (z, y, x), start)) if met else None

    def interpolate(self, logits: Half, box: Box, start: Sequence[int] = (0, 0, 0)) -> NDArray[np.float32]:
        """Resample inside a box of the crop, nowhere else; each voxel is to the bit what it is in any other box.

        Args:
            logits: A part of the network's grid that holds all that the box is made of.
            box: The box.
            start: First voxel of that part.
        """
        reach, axes = zip(*(axis.cut(part) for axis, part in zip(self._require_axes(), box, strict=True)), strict=True)
        own = tuple(slice(part.start - first, part.stop - first) for part, first in zip(reach, start, strict=True))
        values: NDArray[np.float32] = _from_half(logits[own])
        for axis in self._order:
            values = axes[axis].apply(values, axis)
        return values

    @property
    def _order(self) -> list[int]:
        """Axes that lose voxels come first and those that gain most last; it must not depend on the box."""
        return sorted(range(3), key=lambda axis: (self.shape[axis] / self.source[axis], -axis))

    def _find_candidates(self, values: Half, floor: float) -> Box:
        if self.axes is None:  # other functions may overshoot
            d, h, w = self.shape
            return slice(0, d), slice(0, h), slice(0, w)
        inside = find_box(exceeds(values, floor))
        if inside is None:
            return NOWHERE
        z, y, x = (axis.spread(part) for axis, part in zip(self.axes, inside, strict=True))
        return NOWHERE if any(part.start == part.stop for part in (z, y, x)) else (z, y, x)

    def _fill(self, values: Half, box: Box, start: Sequence[int] = (0, 0, 0)) -> Half:
        """Resample inside a box, some planes at a time; see `interpolate`."""
        filled = np.empty([part.stop - part.start for part in box], np.float16)
        planes = max(1, SLAB // self._measure_plane(box))
        for plane in range(0, len(filled), planes):
            into = filled[plane : plane + planes]
            first = box[0].start + plane
            made = self.interpolate(values, (slice(first, first + len(into)), box[1], box[2]), start)
            torch.from_numpy(into).copy_(torch.from_numpy(made))
        return filled

    def _measure_plane(self, box: Box) -> int:
        """Count the voxels that one plane of the result takes in work, at most."""
        wide = [axis.cut(part)[0] for axis, part in zip(self._require_axes()[1:], box[1:], strict=True)]
        before = int(np.prod([part.stop - part.start for part in wide]))
        after = int(np.prod([part.stop - part.start for part in box[1:]]))
        return int(np.ceil(max(before, after) * max(1.0, self.source[0] / self.shape[0])))

    def _require_axes(self) -> tuple[Axis, Axis, Axis]:
        if self.axes is None:
            raise HostError("The plans name a resampling function of their own, which knows no boxes. Use `resample`.")
        return self.axes

    def _call_host(self, values: Half) -> Half:
        # Where there is nothing to resample, it returns its input: the network's own sums.
        resampled = np.array(to_half(self.host(torch.from_numpy(np.ascontiguousarray(values))[None])[0]))
        if resampled.shape != self.shape:
            raise HostError(
                f"The plans' function for resampling probabilities made the shape {resampled.shape}; expected "
                f"{self.shape}. Set 'resampling_fn_probabilities' to {_HOST_FUNCTION!r} in the plans."
            )
        return resampled

    def _check(self, values: Half) -> None:
        if values.shape != self.source:
            raise DataError(f"A target's logits have the shape {values.shape}; expected {self.source}, the network's.")
        require_finite(values)


def require_finite(values: Half) -> None:
    """Check that logits are finite.

    Raises:
        ModelError: They are not.
    """
    if values.view(np.int16).max() >= _INFINITE or values.view(np.uint16).max() >= _MINUS_INFINITE:
        raise ModelError(
            "The network gave logits that are not finite (infinite, or no number). Predict without half precision or "
            "with another checkpoint; if that does not help, the training went wrong."
        )


def to_half(logits: Logits) -> Half:
    """Give logits as a NumPy array of float16, without a copy where they are that already."""
    if isinstance(logits, torch.Tensor):
        half: Half = logits.detach().to("cpu", torch.float16).numpy()
        return half
    with np.errstate(over="ignore"):  # what becomes infinite is reported as such
        return np.asarray(logits, np.float16)


def exceeds(values: Half, floor: float) -> Mask:
    """Say where float16 values are above a floor, itself rounded to float16.

    The bits of such numbers are in order as whole numbers are, which are compared a hundred times as fast.
    """
    bound = np.float16(floor)
    if bound >= 0:
        return values.view(np.int16) > max(bound.view(np.int16), np.int16(0))
    return values.view(np.uint16) < bound.view(np.uint16)


def _from_half(values: Half) -> NDArray[np.float32]:
    single: NDArray[np.float32] = torch.from_numpy(values).float().numpy()
    return single


def make_resampler(configuration: Any, plans: Any, properties: Mapping[str, Any], shape: Sequence[int]) -> Resampler:
    """Read how a case's logits come back to its image.

    Args:
        configuration: nnU-Net's configuration manager.
        plans: nnU-Net's plans manager.
        properties: What nnU-Net's preprocessing noted of the case.
        shape: Voxels of the network's grid, (d, h, w).

    Raises:
        DataError: What was noted of the crop contradicts itself.
    """
    d, h, w = (int(size) for size in shape)
    target = _to_shape(properties["shape_after_cropping_and_before_resampling"])
    spacing = read_turn(properties).sort(properties["spacing"])
    wanted = [spacing[axis] for axis in plans.transpose_forward]
    current = list(configuration.spacing)
    if len(current) < len(target):  # a 2d configuration leaves the first axis alone
        current = [wanted[0], *current]
    return Resampler(
        (d, h, w),
        target,
        _read_placement(plans, properties, target),
        _read_axes(configuration.configuration, ((d, h, w), target), (current, wanted)),
        functools.partial(_resample_with_host, configuration, target, current, wanted),
    )


def _resample_with_host(
    configuration: Any, target: Shape, current: ArrayLike, wanted: ArrayLike, channel: torch.Tensor
) -> Any:
    """Call the function that the plans name, for which nnU-Net searches its folders."""
    return configuration.resampling_fn_probabilities(channel, target, current, wanted)


def _read_axes(
    configuration: Mapping[str, Any], shapes: tuple[Shape, Shape], spacings: tuple[ArrayLike, ArrayLike]
) -> tuple[Axis, Axis, Axis] | None:
    """Read how each axis is resampled; None if it is not by order 1, and order 0 across thick slices."""
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    given, function = (configuration["resampling_fn_probabilities" + ending] for ending in ("_kwargs", ""))
    if function != _HOST_FUNCTION or not set(given) <= {*_HOST_DEFAULTS, _THRESHOLD}:
        return None
    settings = {**_HOST_DEFAULTS, **given}
    threshold = [settings[_THRESHOLD]] if _THRESHOLD in settings else []
    _, thick = determine_do_sep_z_and_axis(settings["force_separate_z"], *spacings, *threshold)
    if settings["is_seg"] or settings["order"] != 1 or (thick is not None and settings["order_z"] != 0):
        return None
    sizes = zip(*shapes, strict=True)
    z, y, x = (pick_axis(*pair) if axis == thick else interpolate_axis(*pair) for axis, pair in enumerate(sizes))
    return z, y, x


def _read_placement(plans: Any, properties: Mapping[str, Any], target: Shape) -> Placement:
    whole = _to_shape(properties["shape_before_cropping"])
    crop = [(int(start), int(stop)) for start, stop in properties["bbox_used_for_cropping"]]
    sizes = [stop - start for start, stop in crop]
    outside = any(start < 0 or stop > size for (start, stop), size in zip(crop, whole, strict=True))
    if sizes != list(target) or outside:
        raise DataError(
            f"The crop {crop} of an image of {whole} voxels does not fit the {target} voxels that preprocessing kept. "
            "Preprocess the case again."
        )
    start, back = _to_shape([start for start, _ in crop]), read_turn(properties).invert()
    return Placement(start, whole, _to_shape(plans.transpose_backward), back)


def _to_shape(sizes: Sequence[int]) -> Shape:
    d, h, w = (int(size) for size in sizes)
    return d, h, w
