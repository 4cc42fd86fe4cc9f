"""Restricts PyTorch to one thread while small networks are trained.

Their steps take microseconds. With several threads, a step waits for all of them, and on a machine that has other
work a training takes up to a hundred times as long. With one, it is also the same to the bit for any number of
processors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Let PyTorch use one thread inside the block, or inside a function that this decorates.

    Example:
        >>> with use_one_thread():
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
