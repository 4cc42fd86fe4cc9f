"""The outcome type of the whole prognosis: event, time and delayed entry of N patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """Observed outcomes of N patients.

    Attributes:
        event: Whether the event was observed, bool (N).
        time: Days to the event or to censoring, (N).
        entry: Delayed entry in days, below `time`, (N); None: all patients are at risk from time 0.
        competing: Whether a competing event was observed instead, bool (N); never true where `event` is. None: no
            patient has one.
    """

    event: NDArray[np.bool_]
    time: Numbers
    entry: Numbers | None = None
    competing: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.time)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Outcome":
        """Select patients by their rows."""
        index = np.asarray(rows, np.int64)
        entry = None if self.entry is None else self.entry[index]
        competing = None if self.competing is None else self.competing[index]
        return Outcome(self.event[index], self.time[index], entry, competing)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Whether the event or a competing event was observed, bool (N); the others are censored."""
        return self.event if self.competing is None else self.event | self.competing

    @property
    def causes(self) -> NDArray[np.int64]:
        """0: censored, 1: the event, 2: a competing event, (N)."""
        competing = np.zeros(len(self), bool) if self.competing is None else self.competing
        return self.event + 2 * competing.astype(np.int64)

    def find_at_risk(self, times: Numbers) -> NDArray[np.bool_]:
        """Return the risk sets: who was under observation and free of the event just before each time, (N, times)."""
        at_risk: NDArray[np.bool_] = self.time[:, None] >= times[None, :]
        return at_risk if self.entry is None else at_risk & (self.entry[:, None] < times[None, :])

    def to_sksurv(self) -> Any:
        """Return scikit-survival's structured array, which cannot hold delayed entries."""
        return np.array(list(zip(self.event, self.time, strict=True)), dtype=[("event", "?"), ("time", "f8")])


def read_outcome(records: Sequence[Record]) -> Outcome:
    """Read the outcomes of records."""
    event, time = [record.event == SEEN for record in records], [record.time for record in records]
    entry = [record.entry for record in records]
    competing = [record.event not in (SEEN, CENSORED) for record in records]
    return Outcome(
        np.array(event, bool),
        np.array(time),
        np.array(entry, np.float64) if any(entry) else None,
        np.array(competing, bool) if any(competing) else None,
    )


def require_sksurv() -> Any:
    """Import scikit-survival.

    Raises:
        DataError: It is not installed.
    """
    try:
        import sksurv
    except ImportError as error:
        raise DataError(
            "The prognosis needs scikit-survival. Install it: pip install 'duplus-nnunet[survival]'"
        ) from error
    return sksurv
