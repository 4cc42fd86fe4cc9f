"""Mixed precision on a CPU, where nnU-Net has none: for processors that multiply in bfloat16 themselves."""

import contextlib
import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch


@functools.cache
def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; others imitate it, slower than float32.

    A PyTorch that does not tell what the processor can do is taken for a no.
    """
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16"))


def mix_precision(device: torch.device, wanted: bool) -> AbstractContextManager[Any]:
    """Return a context in which convolutions run in bfloat16 if that is wanted and the device is a CPU that has it."""
    if wanted and device.type == "cpu" and has_bfloat16():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()
