"""How a command is asked to end from outside."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def end_like_interrupt() -> Iterator[None]:
    """Answer a request to end (SIGTERM) like Ctrl-C, so that nothing half-written stays; then as before.

    A process that is forked while a handler of Python's stands may lose the signal by which a pool ends its workers,
    and wait for ever, so that the handler must not outlive the command. Other threads than the main one cannot set any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
