"""Combines targets' logits, group by group, into the label map and the masks of a case, within a memory limit.

On the image's grid it holds no more than the targets so far, each in its box, and two numbers per voxel: the highest
logit, and the target that has it. Exclusive targets are also settled against rivals that were not asked for: these take
voxels away, and are not kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.memory import format_memory, format_memory_option
from duplus_nnunet.inference.resampling import NOWHERE, SLAB, Half, Logits, Resampler, exceeds, require_finite, to_half
from duplus_nnunet.inference.voxels import Voxels
from duplus_nnunet.outputs.answer import Box, TargetAnswer
from duplus_nnunet.reporting.surfaces import Mask, find_box

if TYPE_CHECKING:
    from duplus_nnunet.planners.label_manager import DuPLUSLabelManager

_HALF = 2
_SINGLE = 4
# nnU-Net looks for infinite logits: a copy of the sums and a mark for each.
_CHECK = _HALF + 1
# An array that is gathered, its neighbour, what they were gathered from, and the indices and rest of one slab.
_SLABS = 4
# nnU-Net's own function makes coordinates in double precision: three integer grids, two sets of numbers, the result.
_HOST_TARGET = 80
_HOST_SOURCE = 8


@dataclass(frozen=True)
class Rule:
    """How targets share the voxels of a label map.

    Attributes:
        values: Label value of each target, in the order of the network's channels.
        exclusive: Whether a voxel belongs to the most probable target only; if not, later ones are written over
            earlier ones.
        dtype: Of the label map.
        unseen: Number of targets, the last ones, that were not seen in training.
        trained_first: Whether those get only what the trained targets leave; if not, they are targets like others.
    """

    values: tuple[int, ...]
    exclusive: bool
    dtype: type[np.uint8] | type[np.uint16]
    unseen: int = 0
    trained_first: bool = True

    @property
    def trained(self) -> int:
        """Number of trained targets, the first ones."""
        return len(self.values) - self.unseen


def read_rule(manager: "DuPLUSLabelManager", unseen: int = 0, trained_first: bool = True) -> Rule:
    """Read what a label manager would do, down to the type that nnU-Net's export chooses."""
    dtype = np.uint8 if len(manager.foreground_labels) < 255 else np.uint16
    values = tuple(int(value) for value in manager.regions_class_order)
    return Rule(values, manager.exclusive, dtype, unseen, trained_first)


class Assembly:
    """Collects the targets of a case, one group after another.

    Args:
        resampler: Brings logits to the image's grid.
        rule: How targets share one label map.
        asked: Name and target prompt of each target, in the order of the rule's values.
        floor: Logit, 0 or less, that a voxel must exceed to be kept in a target's box; -4.6 leaves out what has less
            than 1 %, minus infinity nothing.

    Raises:
        DataError: The floor is above 0, or there are not as many targets as label values.
    """

    def __init__(self, resampler: Resampler, rule: Rule, asked: Sequence[tuple[str, str]], floor: float = 0.0) -> None:
        if not floor <= 0:
            raise DataError(f"The floor is {floor}; expected a logit of 0 or less, so that a target's voxels are kept.")
        if len(asked) != len(rule.values):
            raise DataError(f"{len(asked)} targets were asked for; the labels declare {len(rule.values)} of them.")
        self._resampler, self._rule, self._asked, self._floor = resampler, rule, tuple(asked), floor
        self._targets: list[tuple[Box, Half]] = []
        # Of large arrays of zeros, the system gives memory only to what is written: where targets are.
        self._owner = np.zeros(resampler.shape, np.min_scalar_type(len(asked)))
        self._best = np.zeros(resampler.shape if rule.exclusive else (0, 0, 0), np.int16)
        self._settled = 0
        self._claimed = np.zeros(resampler.source if rule.exclusive else (0, 0, 0), np.bool_)

    @property
    def nbytes(self) -> int:
        """Memory of the targets so far, in bytes, with the masks that they will have."""
        return sum(values.nbytes + values.size for _, values in self._targets)

    def add(self, logits: Logits) -> None:
        """Take the next targets, shape (k, d, h, w), float16.

        Raises:
            DataError: They are more than were asked for, or on another grid.
            ModelError: They are not all finite.
        """
        if len(self._targets) + len(logits) > len(self._asked):
            raise DataError(
                f"{len(self._targets)} + {len(logits)} targets were predicted; expected {len(self._asked)} in all."
            )
        for channel in logits:
            box, values = self._resampler.resample(channel, self._floor)
            trained = len(self._targets) < self._rule.trained
            self._targets.append((box, values))
            if trained and self._rule.exclusive:
                self._claimed |= exceeds(to_half(channel), 0.0)
            if trained or not self._rule.trained_first:
                self._settle()

    @property
    def contested(self) -> Mask | None:
        """Voxels of the network's grid on which it depends whether a rival takes a voxel; None if there are none."""
        if not self._claimed.any():
            return None
        if self._resampler.axes is None:  # other functions may reach anywhere
            return np.ones_like(self._claimed)
        # A voxel of the image is made of a cell of 2x2x2 voxels at most, one of which is claimed.
        contested = np.zeros_like(self._claimed)
        around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in find_box(self._claimed) or ())
        contested[around] = maximum_filter(self._claimed[around], size=3)
        return contested

    def contest(self, logits: Logits, voxels: Voxels, before: Sequence[int]) -> None:
        """Take voxels of trained targets away where a rival is more probable. All asked targets are added before.

        Args:
            logits: Rivals at the N contested voxels, shape (k, N), float16.
            voxels: The contested voxels.
            before: For each rival, the number of asked targets that stand before it, and keep voxels that are equal.

        Raises:
            DataError: Targets are missing.
            ModelError: The logits are not all finite.
        """
        self._require_all()
        boxes = ((index, self._find_owned(index)) for index in range(self._rule.trained))
        owned = [(index, box) for index, box in boxes if box is not None]
        for channel, first in zip(logits, before, strict=True):
            values = to_half(channel)
            require_finite(values)
            inside = voxels.spread(values)
            resampled = self._resampler.resample_inside(inside, voxels.box, [box for _, box in owned])
            for (index, _), found in zip(owned, resampled, strict=True):
                if found is not None:
                    self._take_away(index, found[0], found[1].view(np.int16), later=index >= first)

    def _find_owned(self, index: int) -> Box | None:
        """Find the box of the voxels that a target owns so far; None if there are none."""
        box = self._targets[index][0]
        inner = find_box(self._owner[box] == index + 1)
        if inner is None:
            return None
        z, y, x = (slice(b.start + i.start, b.start + i.stop) for b, i in zip(box, inner, strict=True))
        return z, y, x

    def _take_away(self, index: int, box: Box, bits: NDArray[np.int16], later: bool) -> None:
        """Take from one target what a rival wins; of equals, the one that stands first keeps the voxel."""
        owner, best = self._owner[box], self._best[box]
        wins = (bits >= best) if later else (bits > best)
        np.copyto(owner, 0, where=wins & (owner == index + 1))

    def _settle(self) -> None:
        """Assign voxels to the next target in order, where it wins them."""
        box, values = self._targets[self._settled]
        self._settled += 1
        if self._rule.exclusive:
            # Logits above 0 are in the order of their bits; of equal ones, the first keeps the voxel.
            best, bits = self._best[box], values.view(np.int16)
            wins = bits > best
            np.maximum(best, bits, out=best)
        else:
            wins = exceeds(values, 0.0)
            if self._settled > self._rule.trained and self._rule.trained_first:
                wins &= self._is_free(box)
        np.copyto(self._owner[box], self._settled, where=wins)

    def _is_free(self, box: Box) -> Mask:
        """Say where no trained target owns a voxel."""
        owner = self._owner[box]
        free: Mask = (owner == 0) | (owner > self._rule.trained)
        return free

    def _settle_unseen(self) -> None:
        """Give the targets that were not seen in training what the trained ones leave."""
        if self._rule.exclusive and self._settled < len(self._targets):
            # No logit is as high as this: what is owned stays so.
            self._best.fill(np.iinfo(np.int16).max)
            self._best[self._owner == 0] = 0
        while self._settled < len(self._targets):
            self._settle()

    def finish(self) -> tuple[NDArray[Any], tuple[TargetAnswer, ...]]:
        """Return the combined label map, shape (z, y, x) of the image, and each target's answer, in their order.

        Raises:
            DataError: Targets are missing.
        """
        self._require_all()
        self._settle_unseen()
        return self._make_labels(), tuple(self._make_answer(index) for index in range(len(self._targets)))

    def _require_all(self) -> None:
        if len(self._targets) != len(self._asked):
            raise DataError(
                f"{len(self._targets)} targets were predicted; expected {len(self._asked)}. Add the others."
            )

    def _make_labels(self) -> NDArray[Any]:
        placement = self._resampler.placement
        values = np.array([0, *self._rule.values], self._rule.dtype)
        labels = np.zeros(placement.shape, self._rule.dtype)
        crop = zip(placement.start, self._resampler.shape, strict=True)
        inside = labels[tuple(slice(start, start + size) for start, size in crop)]
        # Of both arrays, the system gives memory only to what is touched: where targets are.
        boxes = [box for box, _ in self._targets if box != NOWHERE]
        if boxes:
            z, y, x = (
                slice(min(part.start for part in axis), max(part.stop for part in axis))
                for axis in zip(*boxes, strict=True)
            )
            for plane, owner in zip(inside[z], self._owner[z], strict=True):
                plane[y, x] = values[owner[y, x]]
        return placement.turn(labels)

    def _make_answer(self, index: int) -> TargetAnswer:
        (box, values), rule = self._targets[index], self._rule
        seen = index < rule.trained
        if rule.exclusive:
            mask = self._owner[box] == index + 1
        else:
            mask = exceeds(values, 0.0)
            if not seen and rule.trained_first:
                mask &= self._is_free(box)
        placement, (name, prompt) = self._resampler.placement, self._asked[index]
        moved, turn = placement.move(box), placement.turn
        return TargetAnswer(name, rule.values[index], prompt, moved, turn(mask), turn(values), seen=seen)


def spread_probabilities(targets: Sequence[TargetAnswer], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Lay targets' probabilities out over the whole image, as nnU-Net's `--save_probabilities` does.

    Args:
        targets: With a floor of minus infinity this is what nnU-Net writes; with another one, 0 stands where the
            probability is below it.
        shape: Voxels of the image along (z, y, x).

    Returns:
        Shape (K, z, y, x), float32, 0 outside of nnU-Net's crop.
    """
    spread = np.zeros((len(targets), *shape), np.float32)
    for whole, target in zip(spread, targets, strict=True):
        whole[target.box] = torch.from_numpy(target.logits).float().sigmoid_().numpy()
    return spread


@dataclass(frozen=True)
class Memory:
    """Most memory that predicting a case needs, in bytes, beside its image and the network.

    Attributes:
        fixed: Independent of the number of targets.
        network: Each target of a group, while the group is predicted.
        kept: Each target's result, to the end, if its box is the whole image.
    """

    fixed: int
    network: int
    kept: int

    def measure(self, group: int, targets: int, share: float = 1.0) -> int:
        """Return the bytes that groups of some size take; see `choose_group`."""
        return self.fixed + group * self.network + math.ceil(targets * self.kept * share)


def estimate_memory(resampler: Resampler, rule: Rule, patch: Sequence[int], folds: int = 1) -> Memory:
    """Estimate what a case takes.

    Args:
        resampler: Of the case.
        rule: How targets share one label map.
        patch: The network's patch size; nnU-Net pads smaller images to it.
        folds: Number of models whose logits are averaged; the sums of two are held at once.
    """
    padded = _pad(resampler.source, patch)
    source, crop = math.prod(resampler.source), math.prod(resampler.shape)
    owner = np.min_scalar_type(len(rule.values)).itemsize
    running = crop * (owner + (_HALF if rule.exclusive else 0))
    labels = math.prod(resampler.placement.shape) * np.dtype(rule.dtype).itemsize
    # A target in work: which voxels exceed the floor, on both grids, which ones it wins, and its logits before the cut.
    target = source + crop * (_HALF + 2)
    if resampler.axes is None:
        target += crop * _HOST_TARGET + source * _HOST_SOURCE
    # What one slab is made of is at most two planes deeper.
    slab = _SLABS * _SINGLE * (SLAB + 2 * max(math.prod(resampler.shape[1:]), math.prod(resampler.source[1:])))
    counts = padded * _HALF
    # Where trained targets are claimed, the voxels around it and their numbers, and the logits of one rival there.
    claimed = (2 + 1 + _SINGLE + _HALF) * source if rule.exclusive else 0
    fixed = counts + running + labels + target + slab + claimed
    return Memory(fixed, padded * (_HALF * min(folds, 2) + _CHECK), crop * (_HALF + 1))


def _pad(source: Sequence[int], patch: Sequence[int]) -> int:
    """Count the voxels of a grid after nnU-Net padded it to the patch; a 2d patch leaves the first axis alone."""
    sizes = [1] * (len(source) - len(patch)) + list(patch)
    return math.prod(max(size, least) for size, least in zip(source, sizes, strict=True))


def choose_group(limit: int, memory: Memory, targets: int, share: float = 1.0) -> int:
    """Choose how many targets are predicted at a time.

    Args:
        limit: Bytes that may be taken.
        memory: What the case takes.
        targets: How many were asked for.
        share: Part of the image that a target's box fills on the mean, 0 to 1; only 1 is certain.

    Returns:
        1 to `targets`.

    Raises:
        DataError: Even one target at a time needs more; the message gives the smallest sufficient limit.
    """
    least = memory.measure(1, targets, share)
    if limit < least:
        raise DataError(
            f"A memory limit of {format_memory(limit)} is too little for {targets} target(s) in an image of this size. "
            f"Set --memory to {format_memory_option(least)} or more, ask for fewer targets, or check its voxel size."
        )
    return max(1, min(targets, 1 + (limit - least) // memory.network))
