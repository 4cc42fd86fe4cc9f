"""The state of a task follows from its own note and from what the scheduler says."""

import os
import platform
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.submission.progress import (
    TaskState,
    count_epochs,
    judge,
    read_last_lines,
    read_state,
    write_state,
)

# Above the largest number of a process.
NO_PROCESS = 1 << 30


def note(state: str, pid: int = NO_PROCESS, host: str = "elsewhere") -> TaskState:
    return TaskState(state, host, pid, "2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("noted", "scheduler", "state"),
    [
        (None, "", "waiting"),
        (None, "PENDING", "waiting"),
        (None, "CANCELLED by 1000", "lost (cancelled)"),
        (note("running"), "RUNNING", "running"),
        (note("running"), "", "running"),
        (note("running"), "OUT_OF_MEMORY", "lost (out of memory)"),
        (note("running"), "NODE_FAIL", "lost (node fail)"),
        (note("running"), "PENDING", "waiting"),
        (note("queued again"), "RUNNING", "queued again"),
        (note("finished"), "COMPLETED", "finished"),
        (note("failed"), "FAILED", "failed"),
        (note("running", host=platform.node()), "", "lost"),
        (note("running", os.getpid(), platform.node()), "", "running"),
        (note("queued again", host=platform.node()), "", "waiting"),
    ],
)
def test_the_state_is_judged(noted: TaskState | None, scheduler: str, state: str) -> None:
    assert judge(noted, scheduler) == state


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "tasks" / "task_0.json"
    assert read_state(file) is None
    write_state(file, note("running", 7))
    assert read_state(file) == note("running", 7)
    file.write_text('{"state": "running"}')
    with pytest.raises(DataError, match="task_0"):
        read_state(file)


def test_epochs_are_those_of_the_newest_log_that_has_some(tmp_path: Path) -> None:
    assert count_epochs(tmp_path) is None
    for name, text, age in (("a", "Epoch 0\nEpoch 8", 0), ("b", "Epoch 3\nEpoch 4 \nEpoch time: 7", 9), ("c", "", 20)):
        log = tmp_path / f"training_log_{name}.txt"
        log.write_text(text)
        os.utime(log, (age, age))
    assert count_epochs(tmp_path) == 4
    (tmp_path / "checkpoint_final.pth").touch()
    assert count_epochs(tmp_path) == 5


def test_the_last_lines_of_a_log_are_read_whatever_their_encoding(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_last_lines(log, 2) == []
    log.write_bytes(b"one\n\ntwo \n\xff three\n\n")
    assert read_last_lines(log, 2) == ["two", "\ufffd three"]
