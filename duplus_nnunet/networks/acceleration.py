"""Finds GPU kernels for the dynamic head and the sums of the loss; without them, PyTorch operations are used."""

import warnings
from functools import lru_cache
from types import ModuleType

import torch


def find_kernels(device: torch.device) -> ModuleType | None:
    """Return the module of Triton kernels for a device; None if there are none or they cannot be compiled.

    Kernels need an NVIDIA GPU, Triton (a dependency of PyTorch on Linux) and a C compiler. The result is cached.
    """
    return _try_kernels(device) if device.type == "cuda" and torch.version.hip is None else None


@lru_cache
def _try_kernels(device: torch.device) -> ModuleType | None:
    try:
        from duplus_nnunet.networks import kernels

        kernels.compute_heads(torch.zeros(1, 1, 1, device=device), torch.zeros(1, 1, 7, device=device))
    except Exception as error:  # whatever is missing, PyTorch operations replace the kernels
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        warnings.warn(
            f"GPU kernels cannot be compiled for {device} ({type(error).__name__}: {reason}). Computation continues "
            "without them; a training step takes two to five times as long. Like torch.compile, they need the package "
            "triton and a C compiler: install gcc, or set CC.",
            stacklevel=2,
        )
        return None
    return kernels
