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
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.errors import HostError

_TAIL = 15
_BAR = re.compile(r"(?P<share>\d+)%\|")


@dataclass(frozen=True)
class HostCommands:
    """Runs nnU-Net's commands for the demonstration.

    Attributes:
        environment: Variables of the processes.
        log: File that everything printed is added to.
        show: Takes a short text that says how far the running command has come.
    """

    environment: Mapping[str, str]
    log: Path
    show: Callable[[str], None]

    def run(self, *words: str) -> float:
        """Run one command to its end.

        Args:
            words: The command and its arguments, such as `nnUNetv2_train`, `999`.

        Returns:
            Seconds it took.

        Raises:
            HostError: The command is not installed, or ends with an exit code that is not 0.
        """
        started = time.monotonic()
        call = [find_command(words[0]), *words[1:]]
        with self.log.open("a", encoding="utf-8", buffering=1) as log:
            log.write(f"$ {' '.join(words)}\n")
            code, tail = self._follow(call, log.write)
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
            try:
                for line in process.stdout or ():
                    write(line)
                    tail.append(line)
                    self._report(line)
            except BaseException:  # Ctrl-C too: a training must not go on unseen
                process.terminate()
                raise
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
