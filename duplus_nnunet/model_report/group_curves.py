"""Estimates the event-free survival of risk groups from the times and events in predictions.csv."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.competing_hazard import find_jumps
from duplus_nnunet.survival.records.outcome import Outcome
from duplus_nnunet.table_files import read_csv

_COLUMNS = ("method", "seed", "time (days)", "event", "risk group")
_ADVICE = "Run duplus survival evaluate -o FOLDER again."
# Codes of predictions.csv; 0 is censored.
_EVENT, _COMPETING = 1, 2


@dataclass(frozen=True)
class GroupCurve:
    """Curves of a group: Kaplan-Meier, or with competing events those of Aalen and Johansen.

    Attributes:
        days: Days at which a patient had an event of any kind, ascending, (T).
        survival: Probability of being free of the event from each of them on, 0 to 1, (T): 1 - cumulative incidence.
        competing: Cumulative incidence of competing events from each of them on, (T); empty: no patient had one.
        at_risk: Number of patients under observation just before each of them, (T).
        censored: Days at which patients were censored.
    """

    days: Sequence[float]
    survival: Sequence[float]
    at_risk: Sequence[int]
    censored: Sequence[float]
    competing: Sequence[float] = ()

    @property
    def last(self) -> float:
        """Last day on which a patient was followed; 0 if there are no patients."""
        return max([*self.days, *self.censored], default=0.0)

    def at(self, day: float) -> float:
        """Return the event-free survival at a day."""
        passed = [value for step, value in zip(self.days, self.survival, strict=True) if step <= day]
        return passed[-1] if passed else 1.0


def estimate_curve(followed: Sequence[tuple[float, int]]) -> GroupCurve:
    """Estimate the curves of a group; no delayed entry.

    Args:
        followed: Time in days, and 1 for the event, 2 for a competing event or 0 for censoring, for each patient.
    """
    times, codes = np.array([time for time, _ in followed]), np.array([int(code) for _, code in followed])
    competing = codes == _COMPETING
    outcome = Outcome(codes == _EVENT, times, None, competing if competing.any() else None)
    jumps = find_jumps(outcome)
    others = np.cumsum(jumps.before * (jumps.ended - jumps.had) / jumps.at_risk) if competing.any() else np.zeros(0)
    return GroupCurve(
        jumps.times.tolist(),
        (1 - jumps.values).tolist(),
        jumps.at_risk.astype(int).tolist(),
        sorted(times[~outcome.ended].tolist()),
        others.tolist(),
    )


def read_group_curves(file: Path, method: str, seed: int) -> tuple[dict[str, GroupCurve] | None, str]:
    """Read the curves of the risk groups of a method and seed.

    Returns:
        The curves by group, or None and the reason: the file does not have times and events, as of earlier versions.

    Raises:
        DataError: The file is damaged.
    """
    if not file.is_file():
        return None, f"The curves are not drawn: there is no {file.name}."
    table = read_csv(file, _ADVICE)
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        return None, f"The curves are not drawn: {file.name} has no column {missing[0]!r}. {_ADVICE}"
    places = [table.columns.index(name) for name in _COLUMNS]
    followed: dict[str, list[tuple[float, int]]] = {}
    for row in table.rows:
        try:
            of_method, of_seed, time, event, group = (row.cells[place] for place in places)
            if of_method == method and int(of_seed) == seed and group:
                followed.setdefault(group, []).append((float(time), int(event)))
        except (IndexError, ValueError) as error:
            raise DataError(f"Line {row.line} of {file} cannot be read ({error}). {_ADVICE}") from error
    return {group: estimate_curve(patients) for group, patients in followed.items()}, ""
