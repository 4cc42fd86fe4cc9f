"""nnU-Net's sliding window for a text-steered network: one output channel per prompt, mirrored with sides exchanged."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from duplus_nnunet.inference.window_maps import CallMaps, flip_box, to_box
from duplus_nnunet.networks import ConditionedUNet, Prompts, unwrap
from duplus_nnunet.networks.prompts import AdapterPrompts, join_parts
from duplus_nnunet.outputs.answer import Box
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.reporting.surfaces import find_box

Window = tuple[slice, ...]


class WindowPredictor(nnUNetPredictor):
    """nnU-Net's predictor for a network that is bound to prompts.

    Attributes:
        mirroring: Array axes of the mirror images that each adapter ("" is the base) was trained on; an adapter that
            is not listed uses the axes of the checkpoint.
        use_all_processors: Whether windows are predicted by all processors of this process; nnU-Net uses eight at most.
    """

    label_manager: Any  # nnU-Net's, as is the network
    network: Any
    mirroring: Mapping[str, Sequence[int] | None] = MappingProxyType({})
    use_all_processors = False
    # Logits of the window before, which nnU-Net holds although it has added them to its sums; None outside of a case.
    _last_window: torch.Tensor | None = None
    _releases_windows = False
    # What was kept of a prediction; None where no rivals will be asked.
    _maps: CallMaps | None = None
    # Voxels in question, (D, H, W), while rivals are predicted; padded as nnU-Net pads the image.
    _region: torch.Tensor | None = None
    # Windows still to come: their numbers, the box in question of each, and how many there are in all.
    _coming: Iterator[tuple[int, Box | None, int]] = iter(())
    _box: Box | None = None

    @cached_property
    def left_right_axis(self) -> int | None:
        """Array axis from left to right; None if it is not known."""
        return as_form(self.plans_manager.plans).left_right_axis

    @property
    def conditioned_network(self) -> ConditionedUNet:
        """The network, inside DistributedDataParallel and torch.compile."""
        network: ConditionedUNet = unwrap(self.network)
        return network

    def predict_logits(self, data: torch.Tensor, prompts: Prompts, maps: CallMaps | None = None) -> torch.Tensor:
        """Predict the logits of prompts, averaged over folds.

        Args:
            data: A preprocessed image, float32, shape (C, D, H, W).
            prompts: K prompts, to which the network stays bound.
            maps: Keeps what `predict_rivals` needs; None if that is not going to be called.

        Returns:
            Shape (K, D, H, W), float16, on the CPU.
        """
        network = self.conditioned_network
        if maps is not None and self.network is network:  # a compiled network is not looked into
            network.on_maps = maps.keep
        try:
            return self._predict_logits(data, prompts, maps, None)
        finally:
            network.on_maps = None

    def predict_rivals(
        self, data: torch.Tensor, prompts: Prompts, maps: CallMaps, contested: torch.Tensor
    ) -> torch.Tensor:
        """Predict the logits of other prompts where it is in question who owns a voxel.

        Args:
            data: As given to `predict_logits`.
            prompts: K prompts, to which the network stays bound.
            maps: What `predict_logits` kept; the network is called again where that is not enough.
            contested: The voxels in question, boolean, (D, H, W).

        Returns:
            Shape (K, D, H, W), float16, on the CPU: where a voxel is in question, to the bit what `predict_logits`
            gives; elsewhere anything finite.
        """
        patch = self.configuration_manager.patch_size
        padded = pad_nd_image(contested[None].byte(), patch, "constant", {"value": 0}, False)
        return self._predict_logits(data, prompts, maps, torch.as_tensor(padded)[0].bool())

    def predict_kept(self, data: torch.Tensor, prompts: Prompts, maps: CallMaps) -> torch.Tensor:
        """Predict the logits of prompts from what was kept of calls; the network is called where nothing was.

        Args:
            data: As given to `predict_logits`.
            prompts: K prompts, to which the network stays bound.
            maps: What was kept; the calls that are made now are kept, too.

        Returns:
            As `predict_logits`, to the bit.
        """
        patch = self.configuration_manager.patch_size
        padded = pad_nd_image(torch.ones(1, *data.shape[1:], dtype=torch.uint8), patch, "constant", {"value": 1}, False)
        network, compiled = self.conditioned_network, self.network
        # A compiled network is not looked into.
        self.network, network.on_maps = network, maps.keep
        try:
            return self._predict_logits(data, prompts, maps, torch.as_tensor(padded)[0].bool())
        finally:
            self.network, network.on_maps = compiled, None

    def _predict_logits(
        self, data: torch.Tensor, prompts: Prompts, maps: CallMaps | None, region: torch.Tensor | None
    ) -> torch.Tensor:
        self.conditioned_network.bind(prompts)
        self._maps, self._region = maps, region
        if maps is not None:
            maps.fold = -1
        try:
            logits: torch.Tensor = nnUNetPredictor.predict_logits_from_preprocessed_data(self, data)
            return logits
        finally:
            self._maps, self._region, self._coming, self._box = None, None, iter(()), None

    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        """Differs from nnU-Net: as many channels as bound prompts, on all processors if that was asked for."""
        # nnU-Net sizes its sums by the label manager; it asks for nothing else there.
        before, threads = self.label_manager, torch.get_num_threads()
        self.label_manager = SimpleNamespace(num_segmentation_heads=self.conditioned_network.prompts.count)
        self._releases_windows = self.device.type == "cpu"
        if self._maps is not None:
            self._maps.fold += 1
        if self.use_all_processors and self.device.type == "cpu":
            torch.set_num_threads(count_processors())
        try:
            logits: torch.Tensor = super().predict_sliding_window_return_logits(input_image)
        finally:
            torch.set_num_threads(threads)
            self.label_manager, self._last_window, self._releases_windows = before, None, False
        if self.conditioned_network.on_image_logits is not None:
            self.conditioned_network.on_image_logits(logits)
        return logits

    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: list[Window], do_on_device: bool = True
    ) -> torch.Tensor:
        """Differs from nnU-Net: of rivals, only windows with voxels in question, and the part of the image they span.

        It may be called a second time for the same image, after a lack of memory on the device.
        """
        walk: Callable[..., torch.Tensor] = super()._internal_predict_sliding_window_return_logits
        if self._region is None:
            self._coming = ((number, None, len(slicers)) for number in range(len(slicers)))
            return walk(data, slicers, do_on_device)
        boxes = (find_box(self._region[slicer[1:]].numpy()) for slicer in slicers)
        chosen = [(number, to_box(box)) for number, box in enumerate(boxes) if box is not None]
        self._coming = iter([(number, box, len(chosen)) for number, box in chosen])
        windows = [slicers[number][1:] for number, _ in chosen]
        span = tuple(
            slice(min(part.start for part in axis), max(part.stop for part in axis))
            for axis in zip(*windows, strict=True)
        )
        covered = torch.zeros(data.shape[1:], dtype=torch.bool)
        for window in windows:
            covered[window] = True
        moved = [(slice(None), *_move(window, span)) for window in windows]
        inside = walk(data[(slice(None), *span)], moved, do_on_device)
        # nnU-Net divides by the weights of windows, which are 0 where there is none.
        inside.masked_fill_(~covered[span].to(inside.device), 0)
        logits = inside.new_zeros(len(inside), *data.shape[1:])
        logits[(slice(None), *span)] = inside
        return logits

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """Differs from nnU-Net: mirror images along the left-right axis exchange left and right prompts."""
        if self._maps is not None:
            number, self._box, count = next(self._coming)
            self._maps.begin_window(number, count)
        if self._last_window is not None:
            self._last_window.untyped_storage().resize_(0)
        logits = self._predict_window(x)
        if self._releases_windows:
            self._last_window = logits
        return logits

    def _predict_window(self, x: torch.Tensor) -> torch.Tensor:
        """Predict one window by the base and each adapter, each mirrored along its own axes."""
        network = self.conditioned_network
        across, prompts = self.left_right_axis, network.prompts
        parts = (AdapterPrompts(network.default_adapter, (), prompts),) if prompts.adapters is None else prompts.parts
        axes = [self._choose_axes(part.adapter) for part in parts]
        if len(set(axes)) == 1:
            return predict_mirrored(self._call, network, x, axes[0], across, self._note_flips)
        try:
            logits = []
            for part, own in zip(parts, axes, strict=True):
                network.bind(part.prompts)
                logits.append(predict_mirrored(self._call, network, x, own, across, self._note_flips))
        finally:
            network.bind(prompts)
        return join_parts(parts, logits)

    def _note_flips(self, axes: tuple[int, ...]) -> None:
        if self._maps is not None:
            self._maps.flips = axes

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        """Call the network; of rivals, use what was kept of a call, inside the box in question alone."""
        maps, network, shape = self._maps, self.conditioned_network, x.shape[2:]
        if maps is None or self._box is None:
            return self._call_network(x)
        box = flip_box(self._box, shape, maps.flips)
        prompts = network.prompts
        parts = (AdapterPrompts(network.default_adapter, (), prompts),) if prompts.adapters is None else prompts.parts
        kept = [maps.find(part.adapter, box) for part in parts]
        logits = []
        for part, own in zip(parts, kept, strict=True):
            if own is None:
                maps.calls_again += 1
                return self._call_network(x)
            cut, pooled = maps.cut(own, box).to(x.device), own.pooled.to(x.device)
            logits.append(network.apply_to_maps(cut, pooled, part.prompts, part.adapter))
        inside = join_parts(parts, logits)
        if inside.shape[2:] == shape:
            return inside
        whole = inside.new_zeros(1, inside.shape[1], *shape)
        whole[(slice(None), slice(None), *box)] = inside
        return whole

    def _call_network(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)
        return logits

    def _choose_axes(self, adapter: str) -> tuple[int, ...]:
        axes = self.mirroring.get(adapter, self.allowed_mirroring_axes)
        return tuple(axes or ()) if self.use_mirroring else ()


def _move(window: Window, span: Window) -> Window:
    return tuple(slice(own.start - part.start, own.stop - part.start) for own, part in zip(window, span, strict=True))


def count_processors() -> int:
    """Count the processors that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def predict_mirrored(
    call: Callable[[torch.Tensor], torch.Tensor],
    network: ConditionedUNet,
    x: torch.Tensor,
    axes: tuple[int, ...],
    across: int | None,
    note: Callable[[tuple[int, ...]], object] = lambda _: None,
) -> torch.Tensor:
    """Average the logits of an image and of its mirror images.

    Args:
        call: The network as it is to be called, compiled perhaps.
        network: The same one, to bind.
        x: Shape (1, C, D, H, W).
        axes: Array axes along which the model was trained on mirror images.
        across: The axis from left to right, or None if it is not known.
        note: Called before each call with the axes along which the image is mirrored.

    Returns:
        Logits (1, K, D, H, W). Along `across`, partners' prompts change places; if they are not known, it is left out.
    """
    prompts = network.prompts
    if prompts.mirrored is None:
        axes = tuple(axis for axis in axes if axis != across)
    note(())
    total = call(x)
    combinations = [some for count in range(len(axes)) for some in itertools.combinations(axes, count + 1)]
    try:
        for some in combinations:
            network.bind(prompts.mirrored if across in some and prompts.mirrored is not None else prompts)
            places = [axis + 2 for axis in some]
            note(some)
            total += call(x.flip(places)).flip(places)
    finally:
        network.bind(prompts)
    # In place: of many targets, a copy is the largest array there is.
    return total if not combinations else total.div_(len(combinations) + 1)
