"""Chooses the device that a network runs on, by one rule in all commands.

Without a choice, the GPU is used if there is one, else the CPU, which is said in one line. A device that was asked for
and is not available is an error.
"""

import itertools
import sys
from collections.abc import Sequence

import torch

from duplus_nnunet.errors import HostError

_KINDS = ("cpu", "cuda", "mps")
_OPTION, _SHORTEST = "-device", "-de"


def choose_device(name: str | None) -> torch.device:
    """Choose a device; on stderr, say so if it is the CPU for want of a GPU.

    Args:
        name: cpu, cuda, cuda:1 or mps; None: cuda if there is one, else cpu.

    Raises:
        HostError: The device is not known, or not available.
    """
    if name is None and not torch.cuda.is_available():
        other = f" ({_OPTION} mps is available)" if torch.backends.mps.is_available() else ""
        sys.stderr.write(f"note: PyTorch finds no CUDA GPU, so the CPU is used{other}.\n")
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


def add_device(words: Sequence[str]) -> list[str]:
    """Return a command line of nnU-Net, whose default is `-device cuda`, with a device that is available.

    Args:
        words: The words after the command.

    Raises:
        HostError: The device that they name is not known, or not available.
    """
    words = list(words)
    if {"-h", "--help"} & set(words):
        return words
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if len(name) >= len(_SHORTEST) and _OPTION.startswith(name):  # the parser takes abbreviations
            choose_device(value if equals else following)
            return words
    device = choose_device(None)
    return words if device.type == "cuda" else [*words, _OPTION, device.type]
