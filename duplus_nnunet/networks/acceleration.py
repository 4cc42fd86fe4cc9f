"""Which of two ways a device computes the head and the loss's sums: by kernels of its own, or by matrix products."""

import warnings
from functools import lru_cache
from types import ModuleType

import torch


def find_kernels(device: torch.device) -> ModuleType | None:
    """Return the module of kernels for a device; None: there are none, or they cannot be built there.

    NVIDIA's GPUs have kernels where Triton, which PyTorch brings on Linux, finds a C compiler. They are tried once.
    """
    return _try_kernels(device) if device.type == "cuda" and torch.version.hip is None else None


@lru_cache
def _try_kernels(device: torch.device) -> ModuleType | None:
    try:
        from duplus_nnunet.networks import kernels

        kernels.compute_heads(torch.zeros(1, 1, 1, device=device), torch.zeros(1, 1, 7, device=device))
    except Exception as error:  # whatever is missing, there is another way
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        warnings.warn(
            f"No kernels can be built for {device} ({type(error).__name__}: {reason}); "
            "all is computed without them, which takes a training step on a GPU two to five times as long. They need "
            "the package triton and a C compiler, as torch.compile does: install gcc, or set CC.",
            stacklevel=2,
        )
        return None
    return kernels
