"""Reads how far the trainings of jobs are: what each task notes, nnU-Net's logs, and the end of the job's own log."""

import json
import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text
from duplus_nnunet.text_files import load_json

_EPOCH = re.compile(r"Epoch (\d+)\s*$", re.MULTILINE)
# Bytes at the end of a log that are read.
_TAIL = 1 << 18
# Of the states that SLURM reports, those of a job that will not run again by itself.
_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "PREEMPTED", "CONFIGURING")


@dataclass(frozen=True)
class TaskState:
    """What a task was doing when it last noted it.

    Attributes:
        state: "waiting", "running", "queued again", "finished", "failed" or "stopped".
        host: Name of its node.
        pid: Its process there.
        since: Time of the note, ISO 8601, UTC.
    """

    state: str
    host: str
    pid: int
    since: str


def write_state(file: Path, state: TaskState) -> None:
    """Write the state of a task atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(state)))


def read_state(file: Path) -> TaskState | None:
    """Read the state of a task; None if it has not begun.

    Raises:
        DataError: The file is damaged.
    """
    if not file.is_file():
        return None
    try:
        return TaskState(**load_json(file))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{file} is not the state of a task: {error}. Remove it, and send the training again."
        ) from error


def judge(noted: TaskState | None, scheduler: str) -> str:
    """Decide on the state of a task from its own note and the scheduler's report.

    Args:
        noted: What the task noted.
        scheduler: SLURM's state of the job, such as "CANCELLED by 1000"; empty or "UNKNOWN": there is none.

    Returns:
        One of the states of a task, or "lost": it ended without noting why, as when its node failed.
    """
    word = scheduler.partition(" ")[0].rstrip("+")
    if noted is not None and noted.state in ("finished", "failed", "stopped"):
        return noted.state
    if word in _ENDED:
        return f"lost ({word.lower().replace('_', ' ')})"
    if noted is None or word in _WAITING:
        return "waiting"
    if word in ("", "UNKNOWN") and noted.host == platform.node() and not _is_alive(noted.pid):
        # Tasks on this machine are started again by their controller, within a moment.
        return "waiting" if noted.state == "queued again" else "lost"
    return noted.state


def count_epochs(output: Path) -> int | None:
    """Count the epochs that a training has completed, from nnU-Net's newest log; None if there is none.

    Args:
        output: Folder of the fold in nnUNet_results.
    """
    logs = sorted(output.glob("training_log_*.txt"), key=lambda file: file.stat().st_mtime, reverse=True)
    for log in logs:
        begun = _EPOCH.findall(read_end(log))
        if begun:
            return int(begun[-1]) + (1 if (output / "checkpoint_final.pth").is_file() else 0)
    return None


def read_end(file: Path, size: int = _TAIL) -> str:
    """Read the end of a log as text; bytes that are no UTF-8 are replaced."""
    with file.open("rb") as log:
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - size))
        return log.read().decode("utf-8", errors="replace")


def read_last_lines(file: Path, count: int) -> list[str]:
    """Read the last lines of a log that are not empty; none if there is no such file."""
    if not file.is_file():
        return []
    return [line.rstrip() for line in read_end(file, 1 << 14).splitlines() if line.strip()][-count:]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
