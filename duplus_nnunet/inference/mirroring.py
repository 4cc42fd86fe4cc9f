"""nnU-Net's windows for a text-steered network: as many channels as prompts, mirrored with left and right exchanged."""

import functools
import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from duplus_nnunet.networks import ConditionedUNet, unwrap
from duplus_nnunet.networks.prompts import AdapterPrompts, join_parts
from duplus_nnunet.settings import PLANS_KEY


def find_network(predictor: Any) -> ConditionedUNet | None:
    """Return a predictor's network, from under torch.compile and DDP, if it is ours."""
    network = unwrap(predictor.network)
    return network if isinstance(network, ConditionedUNet) else None


def patch_windows(predictor: Any) -> None:
    """Let nnU-Net's predictor class handle our networks' channels and mirror images."""
    predictor.predict_sliding_window_return_logits = _wrap_sliding_window(
        predictor.predict_sliding_window_return_logits
    )
    predictor._internal_maybe_mirror_and_predict = _wrap_mirroring(predictor._internal_maybe_mirror_and_predict)


def _wrap_sliding_window(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def predict(self: Any, input_image: torch.Tensor) -> Any:
        network = find_network(self)
        if network is None:
            return original(self, input_image)
        # nnU-Net sizes its sums by the label manager; it asks for nothing else there.
        before, self.label_manager = self.label_manager, SimpleNamespace(num_segmentation_heads=network.prompts.count)
        self.duplus_window = None
        try:
            return original(self, input_image)
        finally:
            self.label_manager = before
            del self.duplus_window

    return predict


def _wrap_mirroring(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def predict(self: Any, x: torch.Tensor) -> torch.Tensor:
        network = find_network(self)
        if network is None:
            found: torch.Tensor = original(self, x)
            return found
        # nnU-Net has added the last window to its sums, and holds it all the same while the next one is predicted.
        last = getattr(self, "duplus_window", None)
        if last is not None:
            last.untyped_storage().resize_(0)
        answer = _answer_window(self, network, x)
        if hasattr(self, "duplus_window") and answer.device.type == "cpu":
            self.duplus_window = answer
        return answer

    return predict


def _answer_window(predictor: Any, network: ConditionedUNet, x: torch.Tensor) -> torch.Tensor:
    """Predict one window, a member of the model after the other, each mirrored along its own axes."""
    across = predictor.plans_manager.plans[PLANS_KEY].get("left_right_axis")
    prompts, allowed = network.prompts, getattr(predictor, "duplus_mirroring", {})
    parts = (AdapterPrompts(network.default_adapter, (), prompts),) if prompts.adapters is None else prompts.parts
    axes = [_choose_axes(predictor, allowed.get(part.adapter, predictor.allowed_mirroring_axes)) for part in parts]
    if len(set(axes)) == 1:
        return predict_mirrored(predictor.network, network, x, axes[0], across)
    try:
        logits = []
        for part, own in zip(parts, axes, strict=True):
            network.bind(part.prompts)
            logits.append(predict_mirrored(predictor.network, network, x, own, across))
    finally:
        network.bind(prompts)
    return join_parts(parts, logits)


def _choose_axes(predictor: Any, allowed: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(allowed or ()) if predictor.use_mirroring else ()


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
