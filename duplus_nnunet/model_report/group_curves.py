"""Draws up the Kaplan-Meier curves of risk groups from the times and events in predictions.csv."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.errors import DataError
from duplus_nnunet.table_files import read_csv

_COLUMNS = ("method", "seed", "time (days)", "event", "risk group")
_ADVICE = "Run duplus survival evaluate -o FOLDER again."


@dataclass(frozen=True)
class GroupCurve:
    """Kaplan-Meier curve of a group.

    Attributes:
        days: Days at which somebody had the event, ascending, (T).
        survival: Survival from each of them on, 0 to 1, (T).
        at_risk: Number of patients under observation just before each of them, (T).
        censored: Days at which patients were censored.
    """

    days: Sequence[float]
    survival: Sequence[float]
    at_risk: Sequence[int]
    censored: Sequence[float]

    @property
    def last(self) -> float:
        """Last day on which a patient was followed; 0 if there are no patients."""
        return max([*self.days, *self.censored], default=0.0)

    def at(self, day: float) -> float:
        """Return the survival at a day."""
        passed = [value for step, value in zip(self.days, self.survival, strict=True) if step <= day]
        return passed[-1] if passed else 1.0


def estimate_curve(followed: Sequence[tuple[float, bool]]) -> GroupCurve:
    """Estimate the survival of a group by the product-limit method; no delayed entry, no competing events.

    Source: Kaplan and Meier 1958, Journal of the American Statistical Association 53:457-481.

    Args:
        followed: Time in days and whether the event was seen then, for each patient.
    """
    days, survival, at_risk, current = list[float](), list[float](), list[int](), 1.0
    for day in sorted({time for time, event in followed if event}):
        risk = sum(time >= day for time, _ in followed)
        current *= 1 - sum(event and time == day for time, event in followed) / risk
        days.append(day)
        survival.append(current)
        at_risk.append(risk)
    return GroupCurve(days, survival, at_risk, sorted(time for time, event in followed if not event))


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
    followed: dict[str, list[tuple[float, bool]]] = {}
    for row in table.rows:
        try:
            of_method, of_seed, time, event, group = (row.cells[place] for place in places)
            if of_method == method and int(of_seed) == seed and group:
                followed.setdefault(group, []).append((float(time), int(event) == 1))
        except (IndexError, ValueError) as error:
            raise DataError(f"Line {row.line} of {file} cannot be read ({error}). {_ADVICE}") from error
    return {group: estimate_curve(patients) for group, patients in followed.items()}, ""
