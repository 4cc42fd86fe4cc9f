"""Handles the termination signal of long commands."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def end_like_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that no incomplete files are left; restore the previous handler at the end.

    A process that is forked while a Python handler is installed may lose the signal by which a pool ends its workers,
    and wait forever; the handler must therefore not outlive the command. Only the main thread can install handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
