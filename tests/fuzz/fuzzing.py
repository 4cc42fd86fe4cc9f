"""Sends damaged files through the doors of the package, and counts what becomes of them.

A damaged file may be refused, by an error of this package with a message, or accepted, if what it says is valid. All
else is a fault: another exception ("trace"), a time-out ("hang"), code that ran ("executed"), or a value that is not
what the file says ("wrong").

    python -m pytest tests/fuzz                       a few inputs of each kind
    make fuzz INPUTS=1000 SEED=1                      a long run, with a table
"""

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DuplusError

from .doors import PAYLOAD, Door

FAULTS = ("trace", "hang", "executed", "wrong")
SECONDS = 20


class HangError(BaseException):
    """A reader took too long; no handler of ordinary errors may catch it."""


@dataclass
class Report:
    """What became of the inputs of one door.

    Attributes:
        counts: By outcome.
        faults: Number of the input and what happened.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, outcome: str, number: int, what: str) -> None:
        """Count one input; a fault is described."""
        self.counts[outcome] += 1
        if outcome in FAULTS:
            self.faults.append(f"input {number}: {outcome}: {what}")


@contextlib.contextmanager
def limit_time(seconds: int) -> Iterator[None]:
    """Raise HangError where a block takes longer."""

    def stop(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(door: Door, inputs: int, seed: int, keep: Path | None = None) -> Report:
    """Send a number of damaged files through a door.

    Args:
        door: The door.
        inputs: How many.
        seed: The same seed gives the same files.
        keep: Folder for the files that ended in a fault; None: they are not kept.
    """
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        door.prepare(folder)
        file = folder / door.file
        content = file.read_bytes()
        original = _read(door, file)
        for number in range(inputs):
            rng = random.Random(f"{door.name} {seed} {number}")
            file.write_bytes(door.mutate(content, rng))
            outcome, what = _try(door, file, original)
            report.add(outcome, number, what)
            if keep is not None and outcome in FAULTS:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, keep / f"{door.name}_{seed}_{number}{file.suffix}".replace(" ", "_"))
    return report


def _read(door: Door, file: Path) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return door.read(file)


def _try(door: Door, file: Path, original: Any) -> tuple[str, str]:
    """Read one file, and say what became of it."""
    PAYLOAD.unlink(missing_ok=True)
    try:
        with limit_time(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = _read(door, file)
            wrong = door.judge(file, value, original)
    except HangError:
        outcome = "hang", f"more than {SECONDS} s"
    except DuplusError as error:
        outcome = ("refused", "") if str(error).strip() else ("trace", f"{type(error).__name__} without a message")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome = "trace", f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})"[:300]
    else:
        outcome = ("wrong", wrong) if wrong else ("accepted", "")
    if PAYLOAD.exists():
        PAYLOAD.unlink()
        return "executed", outcome[1]
    return outcome


def format_report(reports: dict[str, Report]) -> str:
    """Return a table of all doors, and the faults below it."""
    columns = ("refused", "accepted", *FAULTS)
    lines = [f"{'':24}" + "".join(f"{name:>10}" for name in columns)]
    for name, report in reports.items():
        lines.append(f"{name:24}" + "".join(f"{report.counts[column]:>10}" for column in columns))
    totals = {column: sum(report.counts[column] for report in reports.values()) for column in columns}
    lines.append(f"{'all':24}" + "".join(f"{totals[column]:>10}" for column in columns))
    for name, report in reports.items():
        lines += [f"{name}, {fault}" for fault in report.faults]
    return "\n".join(lines) + "\n"


def write_progress(name: str, report: Report) -> None:
    """Report one door on stderr."""
    sys.stderr.write(f"{name}: {dict(report.counts)}\n")
