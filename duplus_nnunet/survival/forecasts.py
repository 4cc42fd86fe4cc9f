"""What is foretold of patients, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.scores import Numbers, Outcome
from duplus_nnunet.survival.table import SEEN, Record


@dataclass(frozen=True)
class Forecast:
    """What was predicted of N patients.

    Attributes:
        risk: Higher is worse, (N).
        survival: Probability to be free of the event at each time, (N, T).
        notes: What a reader has to know.
        cut: Risk above which a patient is of the high-risk group, as training patients say; None if it was not chosen.
    """

    risk: Numbers
    survival: Numbers
    notes: tuple[str, ...] = ()
    cut: float | None = None


def read_outcome(records: Sequence[Record]) -> Outcome:
    """Return outcomes; a competing event counts as the end of follow-up."""
    return Outcome(
        np.array([record.event == SEEN for record in records], bool), np.array([record.time for record in records])
    )
