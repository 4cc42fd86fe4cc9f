"""nnU-Net's own commands, each in a process of its own, with a line that shows how far it has come.

In: the words a user would type. Out: nothing, or an error with the end of the log. What a command prints goes to
the log file.
"""

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

from duplus_nnunet.errors import HostError

_TAIL = 15
_PAUSE = 0.1  # s
_BAR = re.compile(r"(?P<share>\d+)%\|")


@dataclass(frozen=True)
class HostCommands:
    """Runs nnU-Net's commands for the demonstration.

    Attributes:
        environment: Variables of the processes.
        log: File that everything printed is added to.
        show: Takes a short text that says how far the running command has come.
        at_once: How many commands `run_side_by_side` has running at a time.
    """

    environment: Mapping[str, str]
    log: Path
    show: Callable[[str], None]
    at_once: int = 1
    _running: set["subprocess.Popen[str]"] = field(default_factory=set, init=False)

    def run(self, *words: str) -> float:
        """Run one command to its end.

        Args:
            words: The command and its arguments, such as `nnUNetv2_train`, `999`.

        Returns:
            Seconds it took.

        Raises:
            HostError: The command is not installed, or ends with an exit code that is not 0.
        """
        with self.log.open("a", encoding="utf-8", buffering=1) as log:
            return self._run(words, log.write)

    def run_side_by_side(self, calls: Sequence[Sequence[str]]) -> None:
        """Run commands that do not wait for one another, `at_once` at a time.

        What one of them prints is added to the log when it has ended, so that it stands together.

        Args:
            calls: As the words of `run`.

        Raises:
            HostError: As `run`; those that run already go on to their end, and no other one is begun.
        """
        with ThreadPoolExecutor(self.at_once) as pool:
            waiting = [pool.submit(self._run_aside, call) for call in calls]
            try:
                ended, _ = wait(waiting, return_when=FIRST_EXCEPTION)
            except BaseException:  # Ctrl-C, which the threads do not hear of
                pool.shutdown(wait=False, cancel_futures=True)
                self._end(waiting)
                raise
            pool.shutdown(wait=False, cancel_futures=True)
        for future in ended:
            future.result()

    def _end(self, waiting: Sequence["Future[None]"]) -> None:
        while not all(future.done() for future in waiting):  # one may be about to begin its process
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
        code, tail = self._follow(call, write)
        seconds = time.monotonic() - started
        if code != 0:
            raise HostError(
                f"`{' '.join(words)}` ended with exit code {code} after {seconds:.0f} s; expected 0. "
                f"Everything it printed is in {self.log}; the last lines are:\n" + "".join(tail)
            )
        return seconds

    def _follow(self, call: Sequence[str], write: Callable[[str], object]) -> tuple[int, deque[str]]:
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
                    self._report(line)
            except BaseException:  # Ctrl-C too: a training must not go on unseen
                process.terminate()
                raise
            finally:
                self._running.discard(process)
        return process.returncode, tail

    def _report(self, line: str) -> None:
        text = read_progress(line)
        if text:
            self.show(text)


def read_progress(line: str) -> str:
    """Find out from a line that nnU-Net printed how far it has come; empty if the line does not say."""
    epoch = re.search(r"Epoch (\d+) *$", line)
    if epoch:
        return f"epoch {int(epoch.group(1)) + 1}"
    bar = _BAR.search(line)
    if bar:
        return f"{bar.group('share')} %"
    case = re.search(r"[Pp]redicting (\S+?):? *$", line)
    return f"predicting {case.group(1)}" if case else ""


def find_command(name: str) -> str:
    """Find a command of this Python's environment, or else of the search path.

    Raises:
        HostError: It is in neither.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=beside) or shutil.which(name)
    if found is None:
        raise HostError(
            f"The command {name!r} was found neither in {beside} nor on the PATH; nnU-Net installs it. "
            "Run `duplus doctor`, and install with `pip install .` in the environment that runs `duplus`."
        )
    return found
