"""Windows that hold nothing but air are not looked at: in come a preprocessed image and windows, out come fewer.

A window is left out if nothing in it is brighter, in any channel, than the darkest voxel of the image by more than
8 % of the image's range. So air goes; lung, fat, and whatever an image leaves around the patient, stay.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from duplus_nnunet.inference.mirroring import find_network
from duplus_nnunet.networks.conditioned_unet import LARGEST_LOGIT

Window = tuple[slice, ...]

_SHARE = 0.08
_BRIGHTEST = 0.995
# Enough to know a quantile by.
_SAMPLES = 1_000_000


def find_body(image: torch.Tensor, windows: Sequence[Window]) -> list[Window]:
    """Return the windows that hold more than air.

    Args:
        image: Preprocessed, shape (C, D, H, W).
        windows: Of that image, channel axis included.
    """
    flat = image.flatten(1)
    sampled = flat[:, :: max(1, flat.shape[1] // _SAMPLES)].float()
    lowest = flat.amin(1).float()
    limits = lowest + _SHARE * (torch.quantile(sampled, _BRIGHTEST, dim=1) - lowest)
    bright = (image > limits.to(image.dtype).view(-1, 1, 1, 1)).any(0)
    return [window for window in windows if bool(bright[window[1:]].any())]


def patch_skipping(predictor: Any) -> None:
    """Let nnU-Net's predictor class look at the windows of our models that hold more than air."""
    predictor._internal_predict_sliding_window_return_logits = _wrap_windows(
        predictor._internal_predict_sliding_window_return_logits
    )


def _wrap_windows(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def predict(self: Any, data: torch.Tensor, slicers: list[Window], do_on_device: bool = True) -> Any:
        network = find_network(self)
        if network is None or not getattr(self, "duplus_skips_air", True):
            return original(self, data, slicers, do_on_device)
        kept = find_body(data, slicers)
        if len(kept) == len(slicers):
            return original(self, data, slicers, do_on_device)
        if not kept:
            return torch.full((network.prompts.count, *data.shape[1:]), -LARGEST_LOGIT, dtype=torch.half)
        logits = original(self, data, kept, do_on_device)
        seen = torch.zeros(data.shape[1:], dtype=torch.bool, device=logits.device)
        for window in kept:
            seen[window[1:]] = True
        return logits.masked_fill_(~seen, -LARGEST_LOGIT)

    return predict
