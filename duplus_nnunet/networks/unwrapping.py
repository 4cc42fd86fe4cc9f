"""Finds the network inside the wrappers that PyTorch puts around it."""

from typing import Any


def unwrap(network: Any) -> Any:
    """Return the module inside DistributedDataParallel and torch.compile, or the module itself."""
    network = getattr(network, "module", network)
    return getattr(network, "_orig_mod", network)
