"""Reads the output folder of `duplus survival predict` back, with the outcomes that the table gave, to validate it."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.cross_validation import HIGH, LOW
from duplus_nnunet.survival.evaluation.validation import Predictions, choose_validation_times
from duplus_nnunet.survival.records.outcome import Numbers, Outcome
from duplus_nnunet.survival.records.table import join_names
from duplus_nnunet.survival.report.validation_files import Subject
from duplus_nnunet.table_files import read_csv, read_json

_PREDICTIONS, _CURVES, _ABOUT = "predictions.csv", "survival_curves.csv", "survival_prediction.json"
_ADVICE = "Give the output folder of `duplus survival predict`."
_TRAINED = re.compile("trained on in|fitted to a patient of this ID")
_RECALIBRATED = re.compile("recalibrated in a patient of this ID")
_ENTRY = "entry (days)"
_DAYS = re.compile(r"(?:survival at )?([\d.eE+-]+) days")
_NEEDED = ("patient", "time (days)", "event", "risk", "risk group", "warnings")


def read_predictions(folder: Path, horizons: Sequence[float] = ()) -> tuple[Predictions, Subject]:
    """Read the predictions of the patients whose outcome is given.

    Survival between the days of the curves is interpolated linearly.

    Args:
        folder: Output folder of `duplus survival predict`.
        horizons: Days at which survival is validated; empty: those that were predicted.

    Raises:
        DataError: A file cannot be read, the outcomes are not given, or no horizon can be validated.
    """
    rows = _read_rows(folder / _PREDICTIONS, _NEEDED)
    days, curves = _read_curves(folder / _CURVES, [row["patient"] for row in rows])
    about = read_json(folder / _ABOUT, _ADVICE)
    known = [number for number, row in enumerate(rows) if row["time (days)"] and row["event"]]
    chosen, curves = [rows[number] for number in known], curves[known]
    if not chosen:
        raise DataError(f"{folder / _PREDICTIONS} has no outcomes. Predict from a table that has time and event.")
    outcome = _read_outcome(chosen, folder / _PREDICTIONS)
    predicted = [float(horizon) for horizon in about.get("horizons_days", ())]
    kept, grid, left_out = choose_validation_times(outcome, sorted({*horizons}) or predicted, float(days[-1]))
    at_times = np.stack([np.interp(np.concatenate([kept, grid]), days, curve) for curve in curves])
    for index, horizon in enumerate(kept):
        name = f"survival at {horizon:g} days"
        if name in chosen[0]:  # more exact than between the days of the curve
            at_times[:, index] = [_read_number(row, name, folder / _PREDICTIONS) for row in chosen]
    at_horizons, on_grid = np.split(at_times, [len(kept)], axis=1)
    patients, groups = (tuple(row[name] for row in chosen) for name in ("patient", "risk group"))
    risk = np.array([_read_number(row, "risk", folder / _PREDICTIONS) for row in chosen])
    groups = tuple(group if group in (HIGH, LOW) else "" for group in groups)
    notes = _list_notes(rows, chosen, left_out)
    subject = Subject(str(about.get("model", folder.name)), str(about.get("method", "images and records")),
                      folder.resolve().name, notes, about.get("endpoint"))  # fmt: skip
    return Predictions(outcome, patients, risk, kept, at_horizons, grid, on_grid, groups), subject


def _list_notes(
    rows: Sequence[dict[str, str]], chosen: Sequence[dict[str, str]], left_out: Sequence[float]
) -> tuple[str, ...]:
    notes = []
    trained = [row["patient"] for row in chosen if _TRAINED.search(row["warnings"])]
    if trained:
        notes.append(f"The model was fitted to {len(trained)} of the patients, so that scores are too good: "
                     f"{join_names(trained)}.")  # fmt: skip
    recalibrated = [row["patient"] for row in chosen if _RECALIBRATED.search(row["warnings"])]
    if recalibrated:
        notes.append(f"The model was recalibrated in {len(recalibrated)} of the patients, so that its calibration is "
                     f"too good: {join_names(recalibrated)}.")  # fmt: skip
    if len(chosen) < len(rows):
        notes.append(f"{len(rows) - len(chosen)} of {len(rows)} patients have no outcome and are left out.")
    if left_out:
        listed = ", ".join(f"{horizon:g}" for horizon in left_out)
        notes.append(f"Not validated at {listed} days, which are not within the events and the follow-up.")
    return tuple(notes) if _ENTRY in rows[0] else (*notes, "All patients are taken to be at risk from time 0.")


def _read_rows(file: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    table = read_csv(file, _ADVICE)
    absent = [name for name in needed if name not in table.columns]
    if absent:
        reason = " The table of the prediction had no outcomes." if "event" in absent else ""
        raise DataError(f"{file} has no column {absent[0]!r}.{reason} {_ADVICE}")
    short = [row.line for row in table.rows if len(row.cells) != len(table.columns)]
    if short:
        raise DataError(f"Line {short[0]} of {file} does not have {len(table.columns)} cells. {_ADVICE}")
    return [dict(zip(table.columns, row.cells, strict=True)) for row in table.rows]


def _read_curves(file: Path, patients: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Return the days, ascending, (T), and the curve of each patient, (N, T)."""
    rows = _read_rows(file, ("patient",))
    if [row["patient"] for row in rows] != list(patients) or not rows:
        raise DataError(f"{file} has other patients than {_PREDICTIONS}. Predict again.")
    names = [name for name in rows[0] if _DAYS.fullmatch(name)]
    days = np.array([float(_DAYS.sub(r"\1", name)) for name in names])
    if len(days) < 2 or (np.diff(days) <= 0).any():
        raise DataError(f"{file} has no columns of ascending days. {_ADVICE}")
    return days, np.array([[_read_number(row, name, file) for name in names] for row in rows])


def _read_outcome(rows: Sequence[dict[str, str]], file: Path) -> Outcome:
    times = np.array([_read_number(row, "time (days)", file) for row in rows])
    causes = np.array([_read_number(row, "event", file) for row in rows])
    if not np.isin(causes, (0, 1, 2)).all() or (times <= 0).any():
        raise DataError(f"{file} has an event other than 0, 1 and 2, or a time that is not above 0. {_ADVICE}")
    entry = np.array([_read_number(row, _ENTRY, file) for row in rows]) if _ENTRY in rows[0] else np.zeros(len(rows))
    if (entry < 0).any() or (entry >= times).any():
        raise DataError(f"{file} has an entry below 0, or not before the time. {_ADVICE}")
    return Outcome(causes == 1, times, entry if entry.any() else None, causes == 2 if (causes == 2).any() else None)


def _read_number(row: dict[str, str], name: str, file: Path) -> float:
    try:
        number = float(row[name])
    except ValueError as error:
        raise DataError(f"{file}: {name!r} of {row['patient']!r} is {row[name]!r}; expected a number.") from error
    if not np.isfinite(number):
        raise DataError(f"{file}: {name!r} of {row['patient']!r} is {row[name]!r}; expected a finite number.")
    return number
