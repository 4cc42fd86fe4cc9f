"""Shows on a terminal how far an epoch has come."""

import sys
from typing import Any

from tqdm import tqdm


class EpochProgress:
    """A bar over the steps of an epoch; nothing is shown where the output is no terminal, such as in a log file.

    Args:
        shown: Whether this process shows it: one of several ranks does.
    """

    def __init__(self, shown: bool = True) -> None:
        self.shown = shown
        self._bar: tqdm[Any] | None = None

    def start(self, epoch: int, steps: int) -> None:
        """Begin an epoch of so many steps of training and validation."""
        self.close()
        if self.shown:
            self._bar = tqdm(
                total=steps, desc=f"epoch {epoch}", unit="step", leave=False, disable=None, file=sys.stderr
            )

    def advance(self) -> None:
        """Count a step."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
