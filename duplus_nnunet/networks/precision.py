"""Enables bfloat16 mixed precision on CPUs that support it, where nnU-Net has none."""

import contextlib
import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch


@functools.cache
def has_bfloat16() -> bool:
    """Check whether this CPU supports bfloat16 in hardware; others emulate it, slower than float32.

    False if PyTorch does not report the capabilities of the CPU.
    """
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))


def mix_precision(device: torch.device, enabled: bool) -> AbstractContextManager[Any]:
    """Return a context in which convolutions run in bfloat16, if enabled and supported by the CPU."""
    if enabled and device.type == "cpu" and has_bfloat16():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()
