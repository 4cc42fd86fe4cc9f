"""Where a network runs: in comes a word of a user, out comes a device that is there."""

import torch

from duplus_nnunet.errors import HostError

_KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str | None) -> torch.device:
    """Choose a device.

    Args:
        name: cpu, cuda, cuda:1 or mps; None: cuda if there is one, else cpu.

    Raises:
        HostError: There is no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        device = None
    if device is None or device.type not in _KINDS:
        raise HostError(f"The device {name!r} is not known; use {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.")
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device.type]:
        raise HostError(f"The device {name!r} is not there, as torch sees it; use cpu, or ask `duplus doctor` why.")
    return device
