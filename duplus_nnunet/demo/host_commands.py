"""Runs nnU-Net's commands in separate processes, writes their output to a log file, and reports their progress."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from duplus_nnunet.demo import one_process
from duplus_nnunet.errors import HostError
from duplus_nnunet.progress import describe_duration

_TAIL = 15
_PAUSE = 0.1  # s
# What a prediction reports of each case: `case 3 of 10: liver, 1.2 s, about 8 s left`.
_CASE = re.compile(r"^(case \d+ of \d+):.*?(, about [^,]+ left)$")
_BAR = re.compile(r"(?P<share>\d+)%\|")


@dataclass(frozen=True)
class HostCommands:
    """Runs nnU-Net's commands for the demonstration.

    Attributes:
        environment: Environment variables of the processes.
        log: File to which their output is appended.
        show: Called with a short text on the progress of the running command.
        at_once: Largest number of processes of `run_in_parallel` at a time.
        epochs: Number of epochs of a training, for the time left; 0 if it is not known.
    """

    environment: Mapping[str, str]
    log: Path
    show: Callable[[str], None]
    at_once: int = 1
    epochs: int = 0
    _running: set["subprocess.Popen[str]"] = field(default_factory=set, init=False)

    def run(self, *words: str) -> float:
        """Run one command and wait for its end.

        Args:
            words: The command and its arguments, such as `nnUNetv2_train`, `999`.

        Returns:
            Duration in s.

        Raises:
            HostError: The command is not installed, or ends with an exit code that is not 0.
        """
        with self.log.open("a", encoding="utf-8", buffering=1) as log:
            return self._run(words, log.write)

    def run_in_parallel(self, calls: Sequence[Sequence[str]]) -> None:
        """Run independent commands in parallel, at most `at_once` at a time.

        The output of each command is appended to the log when the command ends, so that outputs do not mix.

        Args:
            calls: The words of each command, as for `run`.

        Raises:
            HostError: As for `run`; commands that are running continue to their end, and no other one is started.
        """
        with ThreadPoolExecutor(self.at_once) as pool:
            waiting = [pool.submit(self._run_aside, call) for call in calls]
            try:
                ended, _ = wait(waiting, return_when=FIRST_EXCEPTION)
            except BaseException:  # Ctrl-C, of which the threads are not notified
                pool.shutdown(wait=False, cancel_futures=True)
                self._end(waiting)
                raise
            pool.shutdown(wait=False, cancel_futures=True)
        for future in ended:
            future.result()

    def run_in_few_processes(self, calls: Sequence[Sequence[str]]) -> None:
        """Run independent console scripts in `at_once` parallel processes, each of which imports nnU-Net only once.

        Args:
            calls: The words of each command, as for `run`.

        Raises:
            HostError: As for `run`; the commands of other processes continue to their end.
        """
        groups = [list(map(list, calls[first :: self.at_once])) for first in range(min(self.at_once, len(calls)))]
        self.run_in_parallel([("python", "-m", one_process.__name__, json.dumps(group)) for group in groups])

    def _end(self, waiting: Sequence["Future[None]"]) -> None:
        while not all(future.done() for future in waiting):  # a thread may be about to start its process
            for process in tuple(self._running):
                process.terminate()
            wait(waiting, timeout=_PAUSE)

    def _run_aside(self, words: Sequence[str]) -> None:
        lines: list[str] = []
        try:
            self._run(words, lines.append)
        finally:
            with self.log.open("a", encoding="utf-8") as log:
                log.write("".join(lines))

    def _run(self, words: Sequence[str], write: Callable[[str], object]) -> float:
        started = time.monotonic()
        call = [find_command(words[0]), *words[1:]]
        write(f"$ {' '.join(words)}\n")
        code, tail = self._follow(call, write, started)
        seconds = time.monotonic() - started
        if code != 0:
            raise HostError(
                f"`{' '.join(words)}` ended with exit code {code} after {seconds:.0f} s; expected 0. "
                f"Its complete output is in {self.log}; the last lines are:\n" + "".join(tail)
            )
        return seconds

    def _follow(self, call: Sequence[str], write: Callable[[str], object], started: float) -> tuple[int, deque[str]]:
        tail: deque[str] = deque(maxlen=_TAIL)
        with subprocess.Popen(  # noqa: S603
            call,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            self._running.add(process)
            try:
                for line in process.stdout or ():
                    write(line)
                    tail.append(line)
                    self._report(line, time.monotonic() - started)
            except BaseException:  # also for Ctrl-C: a training must not continue in the background
                process.terminate()
                raise
            finally:
                self._running.discard(process)
        return process.returncode, tail

    def _report(self, line: str, seconds: float) -> None:
        text = read_progress(line, self.epochs, seconds)
        if text:
            self.show(text)


def read_progress(line: str, epochs: int = 0, seconds: float = 0.0) -> str:
    """Extract the progress from a line of nnU-Net's output; empty if the line has none.

    Args:
        line: The line.
        epochs: Number of epochs of a training; 0 if it is not known.
        seconds: Time since the command was started, in s.
    """
    epoch = re.search(r"Epoch (\d+) *$", line)
    if epoch:
        done = int(epoch.group(1))
        text = f"epoch {done + 1}{f' of {epochs}' if epochs else ''}"
        left = seconds / done * (epochs - done) if done else 0.0
        return f"{text}, about {describe_duration(left)} left" if left > 0 else text
    predicted = _CASE.search(line)
    if predicted:
        return predicted.group(1) + predicted.group(2)
    bar = _BAR.search(line)
    if bar:
        return f"{bar.group('share')} %"
    case = re.search(r"[Pp]redicting (\S+?):? *$", line)
    return f"predicting {case.group(1)}" if case else ""


def find_command(name: str) -> str:
    """Find a command in the environment of this Python, or else on the PATH.

    Raises:
        HostError: The command is in neither.
    """
    folder = str(Path(sys.executable).parent)
    command = shutil.which(name, path=folder) or shutil.which(name)
    if command is None:
        raise HostError(
            f"The command {name!r} of nnU-Net was found neither in {folder} nor on the PATH. "
            "Run `duplus doctor`, and install with `pip install .` in the environment that runs `duplus`."
        )
    return command
