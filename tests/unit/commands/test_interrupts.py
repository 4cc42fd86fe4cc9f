"""SIGTERM interrupts a command, and the previous handler is restored."""

import os
import signal
import threading

import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.commands.interrupts import end_like_interrupt


def test_a_request_to_end_interrupts_and_afterwards_all_is_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), end_like_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_that_fails_leaves_no_handler_behind(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["compose", "-o", "501", "-n", "Nothing", "/nowhere"]) == 1
    assert capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_nothing_is_set() -> None:
    seen = []

    def look() -> None:
        with end_like_interrupt():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
