"""Chooses the device that a network runs on."""

import torch

from duplus_nnunet.errors import HostError

_KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str | None) -> torch.device:
    """Choose a device.

    Args:
        name: cpu, cuda, cuda:1 or mps; None: cuda if there is one, else cpu.

    Raises:
        HostError: The device is not known, or not available.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        device = None
    if device is None or device.type not in _KINDS:
        raise HostError(f"The device {name!r} is not known; use {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[device.type]:
        raise HostError(f"The device {name!r} is not available to PyTorch; use cpu, or see `duplus doctor` for why.")
    return device
