"""Reads the online Dice of each epoch from nnU-Net's training logs, and when trainings started to find their targets.

The log has one Dice for each target (and source), computed from random patches of held-out cases.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEVER = -1
_NAMES = re.compile(r"Pseudo dice is of: (.*)")
_EPOCH = re.compile(r"Epoch (\d+)\s*$")
_DICE = re.compile(r"Pseudo dice \[(.*)\]")
_NUMBER = re.compile(r"nan|\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class OnlineDice:
    """Online Dice of a training; NaN, of an epoch without that target, is above no threshold.

    Attributes:
        names: What each column is of; numbers in stock nnU-Net's logs, which have no names.
        rows: Dice in each epoch, by column; NaN where nothing was scored.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    def find_start(self, threshold: float, length: int) -> int:
        """Return the number of iterations after which all columns are above a threshold; NEVER if they are not.

        Args:
            threshold: Dice, 0 to 1.
            length: Iterations in an epoch.
        """
        return _find_first([bool(row) and all(value > threshold for value in row) for row in self.rows], length)

    def list_starts(self, threshold: float, length: int) -> dict[str, int]:
        """Return the number of iterations after which each column first exceeded a threshold; NEVER if it did not."""
        columns = enumerate(self.names)
        return {name: _find_first([row[column] > threshold for row in self.rows], length) for column, name in columns}


def summarise(starts: Sequence[int]) -> dict[str, Any]:
    """Summarise iterations until targets were found: each, and their median, for which NEVER is the largest."""
    ordered = sorted(math.inf if start == NEVER else start for start in starts)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return {"median": NEVER if math.isinf(middle) else middle, "each": list(starts), "never": list(starts).count(NEVER)}


def read_fold(fold: Path) -> OnlineDice:
    """Read all logs of a fold's folder."""
    logs = sorted(fold.glob("training_log_*.txt"), key=lambda file: _list_numbers(file.name))
    return parse_log("\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs))


def parse_log(text: str) -> OnlineDice:
    """Read the log of a training, or of several parts; an epoch that was repeated counts once, as it was last."""
    names, epoch, rows = None, -1, {}
    for line in text.splitlines():
        if found := _NAMES.search(line):
            names = tuple(found[1].strip().split("; "))
        elif found := _EPOCH.search(line):
            epoch = int(found[1])
        elif found := _DICE.search(line):
            numbers = re.sub(r"np\.float\d+", "", found[1])
            rows[epoch] = tuple(float(value) for value in _NUMBER.findall(numbers))
    ordered = tuple(rows[number] for number in sorted(rows))
    width = len(ordered[0]) if ordered else 0
    return OnlineDice(names or tuple(str(number + 1) for number in range(width)), ordered)


def _list_numbers(name: str) -> list[int]:
    """List the numbers in a file's name: nnU-Net writes days and months without a leading zero."""
    return [int(number) for number in re.findall(r"\d+", name)]


def _find_first(passed: Sequence[bool], length: int) -> int:
    """Return the number of iterations at the end of the first epoch that passed."""
    return (list(passed).index(True) + 1) * length if any(passed) else NEVER
