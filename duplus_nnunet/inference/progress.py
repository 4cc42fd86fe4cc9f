"""Reports how far a prediction of many cases is, and how long it may still take."""

import time
from dataclasses import dataclass, field

from duplus_nnunet.progress import describe_duration


@dataclass
class Progress:
    """The cases of a run.

    Attributes:
        total: Number of cases that are to be predicted; 0 if it is not known.
        kept: Number of cases that were complete before.
        complete: Number of cases that this run has completed.
        failed: Number of cases that failed.
    """

    total: int = 0
    kept: int = 0
    complete: int = 0
    failed: int = 0
    _started: float = field(default_factory=time.perf_counter)

    def expect(self, cases: int, kept: int) -> None:
        """Add cases that are to be predicted, and those that are complete already."""
        self.total += cases
        self.kept += kept

    def report(self, text: str, seconds: float) -> str:
        """Count a completed case, and describe it in one line.

        Args:
            text: What was found in the case.
            seconds: How long it took, in s.
        """
        self.complete += 1
        finished = self.complete + self.failed
        line = f"case {finished}{f' of {self.total}' if self.total else ''}: {text}, {seconds:.1f} s"
        remaining = (time.perf_counter() - self._started) / finished * (self.total - finished)
        return f"{line}, about {describe_duration(remaining)} left" if remaining > 0 else line

    def describe_rest(self) -> str:
        """Say how many cases are complete, how many are not, and how to go on."""
        done = self.complete + self.kept
        missing = f", {self.total - self.complete} are missing" if self.total else ""
        return f"{done} case(s) are complete{missing}; predict the rest with --continue_prediction."
