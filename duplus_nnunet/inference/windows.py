"""nnU-Net's sliding window for a text-steered network: one output channel per prompt, mirrored with sides exchanged."""

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

from duplus_nnunet.inference.kept_walk import Flips, KeptWalk, Window, call_mirrored, list_parts
from duplus_nnunet.inference.voxels import Voxels
from duplus_nnunet.inference.window_maps import CallMaps
from duplus_nnunet.networks import ConditionedUNet, Prompts, unwrap
from duplus_nnunet.networks.prompts import join_parts
from duplus_nnunet.plans_form import as_form


class WindowPredictor(nnUNetPredictor):
    """nnU-Net's predictor for a network that is bound to prompts.

    Attributes:
        mirroring: Array axes of the mirror images that each adapter ("" is the base) was trained on; an adapter that
            is not listed uses the axes of the checkpoint.
        processors: Number of processors by which windows are predicted on a CPU; 0: as nnU-Net does, eight at most.
    """

    label_manager: Any  # nnU-Net's, as is the network
    network: Any
    mirroring: Mapping[str, Sequence[int] | None] = MappingProxyType({})
    processors = 0
    # Logits of the window before, which nnU-Net holds although it has added them to its sums; None outside of a case.
    _last_window: torch.Tensor | None = None
    _releases_windows = False
    # What was kept of a prediction; None where no rivals will be asked.
    _maps: CallMaps | None = None
    # Number of the next window, and of all windows, while nnU-Net walks over them.
    _window, _windows = 0, 0
    # Instead of nnU-Net's walk, one over calls that were kept.
    _walk: KeptWalk | None = None

    @cached_property
    def left_right_axis(self) -> int | None:
        """Array axis from left to right; None if it is not known."""
        return as_form(self.plans_manager.plans).left_right_axis

    @property
    def conditioned_network(self) -> ConditionedUNet:
        """The network, inside DistributedDataParallel and torch.compile."""
        network: ConditionedUNet = unwrap(self.network)
        return network

    @property
    def keeps_calls(self) -> bool:
        """Whether calls can be kept: a compiled network is not looked into."""
        return self.network is self.conditioned_network

    def measure_calls(self, shape: Sequence[int], prompts: Prompts) -> int:
        """Return the bytes of what is kept of all calls on an image for some prompts, before compression.

        Args:
            shape: Of the preprocessed image, (D, H, W).
            prompts: K prompts.
        """
        network, patch = self.conditioned_network, self.configuration_manager.patch_size
        padded = [max(size, least) for size, least in zip(shape, patch, strict=True)]
        steps = compute_steps_for_sliding_window(padded, patch, self.tile_step_size)
        adapters = {network.default_adapter} if prompts.adapters is None else set(prompts.adapters)
        left_out = self.left_right_axis if prompts.mirrored is None else None
        mirrors = sum(2 ** len({*self._choose_axes(adapter)} - {left_out}) for adapter in adapters)
        is_half = self.device.type == "cuda" or network.cpu_bfloat16
        voxel = int(network.decoder.num_classes) * (2 if is_half else 4)
        calls = math.prod(map(len, steps)) * mirrors * len(self.list_of_parameters)
        return int(calls * math.prod(patch) * voxel)

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
        if maps is not None and self.keeps_calls:
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
            Shape (K, N), float16, on the CPU: at the N voxels in question, in C order, to the bit what `predict_logits`
            gives there.
        """
        patch = self.configuration_manager.patch_size
        padded = pad_nd_image(contested[None].byte(), patch, "constant", {"value": 0}, False)
        walk = KeptWalk(maps, Voxels.of(torch.as_tensor(padded)[0].bool().numpy()))
        return self._predict_logits(data, prompts, maps, walk)

    def predict_kept(self, data: torch.Tensor, prompts: Prompts, maps: CallMaps) -> torch.Tensor:
        """Predict the logits of prompts from what was kept of calls; the network is called where nothing was.

        Args:
            data: As given to `predict_logits`.
            prompts: K prompts, to which the network stays bound.
            maps: What was kept; the calls that are made now are kept, too.

        Returns:
            As `predict_logits`, to the bit.
        """
        network, compiled = self.conditioned_network, self.network
        # A compiled network is not looked into.
        self.network, network.on_maps = network, maps.keep
        try:
            return self._predict_logits(data, prompts, maps, KeptWalk(maps, None))
        finally:
            self.network, network.on_maps = compiled, None

    def _predict_logits(
        self, data: torch.Tensor, prompts: Prompts, maps: CallMaps | None, walk: KeptWalk | None
    ) -> torch.Tensor:
        self.conditioned_network.bind(prompts)
        self._maps, self._walk = maps, walk
        if maps is not None:
            maps.fold = -1
        try:
            logits: torch.Tensor = nnUNetPredictor.predict_logits_from_preprocessed_data(self, data)
            return logits
        finally:
            self._maps, self._walk = None, None

    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        """Differs from nnU-Net: as many channels as bound prompts, on all processors if that was asked for."""
        # nnU-Net sizes its sums by the label manager; it asks for nothing else there.
        before, threads = self.label_manager, torch.get_num_threads()
        self.label_manager = SimpleNamespace(num_segmentation_heads=self.conditioned_network.prompts.count)
        self._releases_windows = self.device.type == "cpu"
        if self._maps is not None:
            self._maps.fold += 1
        if self.processors and self.device.type == "cpu":
            torch.set_num_threads(self.processors)
        try:
            logits: torch.Tensor = super().predict_sliding_window_return_logits(input_image)
        finally:
            torch.set_num_threads(threads)
            self.label_manager, self._last_window, self._releases_windows = before, None, False
        if self._walk is not None and self._walk.found is not None:
            return self._walk.found
        if self.conditioned_network.on_image_logits is not None:
            self.conditioned_network.on_image_logits(logits)
        return logits

    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: list[Window], do_on_device: bool = True
    ) -> torch.Tensor:
        """Differs from nnU-Net: what was kept of calls is used, if there is any.

        It may be called a second time for the same image, after a lack of memory on the device.
        """
        if self._walk is not None:
            return self._walk.predict(self, data, slicers, self.device if do_on_device else torch.device("cpu"))
        self._window, self._windows = 0, len(slicers)
        walk: Callable[..., torch.Tensor] = super()._internal_predict_sliding_window_return_logits
        return walk(data, slicers, do_on_device)

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """Differs from nnU-Net: mirror images along the left-right axis exchange left and right prompts."""
        maps = self._maps
        if maps is not None:
            maps.begin_window(self._window, self._windows)
            self._window += 1
        if self._last_window is not None:
            self._last_window.untyped_storage().resize_(0)

        def call(flips: Flips) -> torch.Tensor:
            if maps is not None:
                maps.flips = flips
            return call_mirrored(self.network, x, flips)

        logits = self.predict_window(call)
        if self._releases_windows:
            self._last_window = logits
        return logits

    def predict_window(self, call: Callable[[Flips], torch.Tensor]) -> torch.Tensor:
        """Predict one window by the base and each adapter, each mirrored along its own axes.

        Args:
            call: Gives the logits of the bound prompts in the window, (1, K, ...), computed from its mirror image along
                some axes and brought back.
        """
        network = self.conditioned_network
        across, prompts = self.left_right_axis, network.prompts
        parts = list_parts(network)
        axes = [self._choose_axes(part.adapter) for part in parts]
        if len(set(axes)) == 1:
            return average_mirrored(call, network, axes[0], across)
        try:
            logits = []
            for part, own in zip(parts, axes, strict=True):
                network.bind(part.prompts)
                logits.append(average_mirrored(call, network, own, across))
        finally:
            network.bind(prompts)
        return join_parts(parts, logits)

    def _choose_axes(self, adapter: str) -> tuple[int, ...]:
        axes = self.mirroring.get(adapter, self.allowed_mirroring_axes)
        return tuple(axes or ()) if self.use_mirroring else ()


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
) -> torch.Tensor:
    """Average the logits of an image and of its mirror images.

    Args:
        call: The network as it is to be called, compiled perhaps.
        network: The same one, to bind.
        x: Shape (1, C, D, H, W).
        axes: Array axes along which the model was trained on mirror images.
        across: The axis from left to right, or None if it is not known.

    Returns:
        Logits (1, K, D, H, W); see `average_mirrored`.
    """
    return average_mirrored(lambda flips: call_mirrored(call, x, flips), network, axes, across)


def average_mirrored(
    call: Callable[[Flips], torch.Tensor], network: ConditionedUNet, axes: tuple[int, ...], across: int | None
) -> torch.Tensor:
    """Average the logits of an image and of its mirror images.

    Args:
        call: Gives the logits of the bound prompts, (1, K, ...), computed from the mirror image along some axes and
            brought back.
        network: The network, to bind.
        axes: Array axes along which the model was trained on mirror images.
        across: The axis from left to right, or None if it is not known.

    Returns:
        Logits (1, K, ...). Along `across`, partners' prompts change places; if they are not known, it is left out.
    """
    prompts = network.prompts
    if prompts.mirrored is None:
        axes = tuple(axis for axis in axes if axis != across)
    total = call(())
    combinations = [some for count in range(len(axes)) for some in itertools.combinations(axes, count + 1)]
    try:
        for some in combinations:
            network.bind(prompts.mirrored if across in some and prompts.mirrored is not None else prompts)
            total += call(some)
    finally:
        network.bind(prompts)
    # In place: of many targets, a copy is the largest array there is.
    return total if not combinations else total.div_(len(combinations) + 1)
