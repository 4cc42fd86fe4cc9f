"""Memory limit of a prediction: what a user allows, or half of what is free."""

import ctypes
import math
import re
import sys

import psutil

from duplus_nnunet.errors import DataError

GIB = 1 << 30
# Of glibc's mallopt: from which size on memory goes back to the system as soon as it is freed.
_MMAP_THRESHOLD, _LEAST_RETURNED = -3, 4 << 20
_UNITS = {"": GIB, "g": GIB, "gb": GIB, "gib": GIB, "m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20}


def read_memory(text: str | None) -> int:
    """Return how many bytes a prediction may use beside network and image.

    Args:
        text: Such as `8`, `8GB` or `500MB`, units of 1024; None is half of what is free.

    Raises:
        DataError: The text is not an amount of memory.

    Example:
        >>> read_memory("500MB"), read_memory("8")
        (524288000, 8589934592)
    """
    if text is None:
        return int(psutil.virtual_memory().available) // 2
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS or float(match[1]) == 0:
        raise DataError(f"--memory is {text!r}; expected an amount above 0 such as 8, 8GB or 500MB.")
    return int(float(match[1]) * _UNITS[match[2]])


def format_memory(amount: int) -> str:
    """Format a number of bytes for people."""
    return f"{amount / GIB:.2f} GiB" if amount >= GIB / 10 else f"{amount / (1 << 20):.1f} MiB"


def format_memory_option(amount: int) -> str:
    """Format a number of bytes as a value of `--memory`, rounded up."""
    mib = 1 << 20
    return f"{math.ceil(amount / GIB * 10) / 10:g}GB" if amount >= GIB else f"{math.ceil(amount / mib)}MB"


def return_freed_memory() -> bool:
    """Let this process give back the memory of large arrays as soon as they are freed, where its C library can (glibc).

    Without this, glibc keeps freed arrays of up to 32 MiB, some 150 MiB with a network of nnU-Net's size.

    Returns:
        Whether the C library supports it.
    """
    if not sys.platform.startswith("linux"):
        return False
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    return change is not None and bool(change(_MMAP_THRESHOLD, _LEAST_RETURNED))
