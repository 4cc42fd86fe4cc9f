"""Runs one training as a task of a job, which continues after a time limit, a preemption or a lost node.

The module imports submitit, whose jobs hold the task; it is imported where jobs are sent and where they run.
"""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import submitit
from filelock import FileLock, Timeout

from duplus_nnunet.errors import HostError
from duplus_nnunet.locks import hold
from duplus_nnunet.submission.progress import TaskState, write_state
from duplus_nnunet.submission.trainings import continue_command

# Seconds between two looks at the training, and that it has to end after it was asked to.
_LOOK_S, _END_S = 0.5, 45.0
_WORKERS, _VISIBLE = "nnUNet_n_proc_DA", "CUDA_VISIBLE_DEVICES"
Variables: TypeAlias = dict[str, str]


@dataclass(frozen=True)
class Order:
    """What a task trains, and where.

    Attributes:
        command: The command of the training, without --c.
        output: Folder in nnUNet_results into which nnU-Net writes it.
        state_file: File that describes what the task is doing.
        workers: Processes that prepare the batches of one GPU (nnUNet_n_proc_DA), unless the job sets them.
        slots: Of tasks on this machine, how many train at the same time; 0: a scheduler decides.
        gpus: GPUs of each task, for tasks on this machine.
        devices: GPUs of this machine that the tasks share, by CUDA's names.
        variables: Variables of nnU-Net where the jobs were sent.
    """

    command: tuple[str, ...]
    output: Path
    state_file: Path
    workers: int
    slots: int
    gpus: int
    devices: tuple[str, ...]
    variables: Mapping[str, str]


class TrainingTask(submitit.helpers.Checkpointable):  # type: ignore[misc, unused-ignore]
    """Runs a training in a process of its own, and ends it before the job is queued again.

    Args:
        order: What it trains, and where.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Train, or continue the training.

        Raises:
            HostError: The training ended with an error.
            DataError: Another process trains the same model and fold.
        """
        if not _is_first():
            self._train({})
            return
        advice = "Wait for it, or end it first."
        self._note("waiting")
        try:
            with self._take_slot() as variables, hold(self.order.output, "training into", advice, "training"):
                self._train(variables)
        except Exception:
            self._note("failed")
            raise
        except KeyboardInterrupt:
            self._note("stopped")
            raise

    def checkpoint(self) -> Any:
        """End the training, whose last checkpoint stays, and return the task to be queued again."""
        self._end_training()
        self._note("queued again")
        return submitit.helpers.DelayedSubmission(TrainingTask(self.order))

    def _train(self, variables: Variables) -> None:
        order = self.order
        words = find_program(continue_command(order.command, order.output))
        environment = {**os.environ, **order.variables, **variables}
        environment.setdefault(_WORKERS, str(order.workers))
        self._note("running")
        # A session of its own: signals of the scheduler reach this process alone, which ends the training in order.
        self._child = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
        try:
            while (code := self._child.poll()) is None:
                time.sleep(_LOOK_S)
        finally:
            self._end_training()
        if code:
            raise HostError(f"`{' '.join(words)}` ended with exit status {code}; the log above says why.")
        self._note("finished")

    def _end_training(self) -> None:
        """End the training and the processes that it started, if they still run.

        A signal may have interrupted `poll`, which then holds a lock; the process is therefore only looked at here.
        """
        if self._child is None or self._child.returncode is not None:
            return
        for kind, seconds in ((signal.SIGTERM, _END_S), (signal.SIGKILL, 5.0)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, kind)
            if _wait(self._child.pid, seconds):
                break
        with suppress(ProcessLookupError, PermissionError):  # workers that outlived it
            os.killpg(self._child.pid, signal.SIGKILL)

    @contextmanager
    def _take_slot(self) -> Iterator[Variables]:
        """Wait until fewer than `slots` tasks train on this machine; yield variables that choose its GPUs."""
        order = self.order
        if not order.slots:
            yield {}
            return
        number, lock = _find_slot(order.state_file.parent, order.slots)
        chosen = order.devices[number * order.gpus : (number + 1) * order.gpus]
        try:
            yield {_VISIBLE: ",".join(chosen)} if order.devices else {_VISIBLE: ""}
        finally:
            lock.release()

    def _note(self, state: str) -> None:
        if _is_first():
            now = datetime.now(UTC).isoformat(timespec="seconds")
            write_state(self.order.state_file, TaskState(state, platform.node(), os.getpid(), now))


def find_program(words: list[str]) -> list[str]:
    """Find a program beside this Python, which may not be the first one of the PATH on another node."""
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    beside = shutil.which(words[0], path=str(Path(sys.executable).parent))
    return [beside or words[0], *words[1:]]


def _is_first() -> bool:
    """Whether this is the first process of a training; the others of several nodes only train."""
    return os.environ.get("SLURM_PROCID", "0") == "0" or os.environ.get("SUBMITIT_EXECUTOR") != "slurm"


def _find_slot(folder: Path, slots: int) -> tuple[int, FileLock]:
    while True:
        for number in range(slots):
            lock = FileLock(folder / f"slot_{number}.lock", timeout=0)
            with suppress(Timeout):
                lock.acquire()
                return number, lock
        time.sleep(1.0)


def _wait(pid: int, seconds: float) -> bool:
    """Wait until a child process has ended, and leave its exit status for others to read."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except ChildProcessError:
            return True
        time.sleep(0.1)
    return False
