"""Observed outcomes of patients: event, time and delayed entry, the type that the whole prognosis uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.table import SEEN, Record

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What became of patients.

    Attributes:
        event: Whether the event was seen, bool (N).
        time: Days to it or to the end of follow-up, (N).
        entry: Days at which each came under observation, below `time`, (N); None: all from the start.
    """

    event: NDArray[np.bool_]
    time: Numbers
    entry: Numbers | None = None

    def __len__(self) -> int:
        """Count the patients."""
        return len(self.time)

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> "Outcome":
        """Choose some patients."""
        chosen = np.asarray(places, np.int64)
        return Outcome(self.event[chosen], self.time[chosen], None if self.entry is None else self.entry[chosen])

    def find_at_risk(self, times: Numbers) -> NDArray[np.bool_]:
        """Say who was under observation just before each of some times, without the event till then, (N, times)."""
        at_risk: NDArray[np.bool_] = self.time[:, None] >= times[None, :]
        return at_risk if self.entry is None else at_risk & (self.entry[:, None] < times[None, :])

    def to_sksurv(self) -> Any:
        """Return it as scikit-survival wants it; it has no place for entries."""
        return np.array(list(zip(self.event, self.time, strict=True)), dtype=[("event", "?"), ("time", "f8")])


def read_outcome(records: Sequence[Record]) -> Outcome:
    """Return outcomes; a competing event counts as the end of follow-up."""
    event, time = [record.event == SEEN for record in records], [record.time for record in records]
    entry = [record.entry for record in records]
    return Outcome(np.array(event, bool), np.array(time), np.array(entry, np.float64) if any(entry) else None)


def require_sksurv() -> Any:
    """Import scikit-survival.

    Raises:
        DataError: It is not installed.
    """
    try:
        import sksurv
    except ImportError as error:
        raise DataError("Survival needs scikit-survival. Install it: pip install 'duplus-nnunet[survival]'") from error
    return sksurv
