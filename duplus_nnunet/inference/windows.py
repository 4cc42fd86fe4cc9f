"""nnU-Net's sliding window for a text-steered network: one output channel per prompt, mirrored with sides exchanged."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from duplus_nnunet.networks import ConditionedUNet, Prompts, unwrap
from duplus_nnunet.networks.prompts import AdapterPrompts, join_parts
from duplus_nnunet.plans_form import as_form


class WindowPredictor(nnUNetPredictor):
    """nnU-Net's predictor for a network that is bound to prompts.

    Attributes:
        mirroring: Array axes of the mirror images that each adapter ("" is the base) was trained on; an adapter that
            is not listed uses the axes of the checkpoint.
        use_all_processors: Whether windows are predicted by all processors of this process; nnU-Net uses eight at most.
    """

    label_manager: Any  # nnU-Net's
    mirroring: Mapping[str, Sequence[int] | None] = MappingProxyType({})
    use_all_processors = False
    # Logits of the window before, which nnU-Net holds although it has added them to its sums; None outside of a case.
    _last_window: torch.Tensor | None = None
    _releases_windows = False

    @cached_property
    def left_right_axis(self) -> int | None:
        """Array axis from left to right; None if it is not known."""
        return as_form(self.plans_manager.plans).left_right_axis

    @property
    def conditioned_network(self) -> ConditionedUNet:
        """The network, inside DistributedDataParallel and torch.compile."""
        network: ConditionedUNet = unwrap(self.network)
        return network

    def predict_logits(self, data: torch.Tensor, prompts: Prompts) -> torch.Tensor:
        """Predict the logits of prompts, averaged over folds.

        Args:
            data: A preprocessed image, float32, shape (C, D, H, W).
            prompts: K prompts, to which the network stays bound.

        Returns:
            Shape (K, D, H, W), float16, on the CPU.
        """
        self.conditioned_network.bind(prompts)
        logits: torch.Tensor = nnUNetPredictor.predict_logits_from_preprocessed_data(self, data)
        return logits

    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        """Differs from nnU-Net: as many channels as bound prompts, on all processors if that was asked for."""
        # nnU-Net sizes its sums by the label manager; it asks for nothing else there.
        before, threads = self.label_manager, torch.get_num_threads()
        self.label_manager = SimpleNamespace(num_segmentation_heads=self.conditioned_network.prompts.count)
        self._releases_windows = self.device.type == "cpu"
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

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """Differs from nnU-Net: mirror images along the left-right axis exchange left and right prompts."""
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
            return predict_mirrored(self.network, network, x, axes[0], across)
        try:
            logits = []
            for part, own in zip(parts, axes, strict=True):
                network.bind(part.prompts)
                logits.append(predict_mirrored(self.network, network, x, own, across))
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
        Logits (1, K, D, H, W). Along `across`, partners' prompts change places; if they are not known, it is left out.
    """
    prompts = network.prompts
    if prompts.mirrored is None:
        axes = tuple(axis for axis in axes if axis != across)
    total = call(x)
    combinations = [some for count in range(len(axes)) for some in itertools.combinations(axes, count + 1)]
    try:
        for some in combinations:
            network.bind(prompts.mirrored if across in some and prompts.mirrored is not None else prompts)
            places = [axis + 2 for axis in some]
            total += call(x.flip(places)).flip(places)
    finally:
        network.bind(prompts)
    # In place: of many targets, a copy is the largest array there is.
    return total if not combinations else total.div_(len(combinations) + 1)
