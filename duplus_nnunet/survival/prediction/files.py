"""Writes the predictions for new patients as tables and a JSON description, all or nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duplus_nnunet.files import open_new_file
from duplus_nnunet.survival.evaluation.attribution import tabulate_effects
from duplus_nnunet.survival.prediction.rows import CohortPrediction, PatientPrediction
from duplus_nnunet.survival.records.table import CENSORED, SEEN
from duplus_nnunet.table_files import write_csv

PREDICTIONS_NAME, CURVES_NAME = "predictions.csv", "survival_curves.csv"
ABOUT_NAME, EXPLANATION_NAME = "survival_prediction.json", "explanation.csv"
OUTCOME, ENTRY = ("time (days)", "event"), "entry (days)"
VERSION = 1
MEANINGS = {
    "risk": "higher is worse: standard deviations above the mean risk of the training patients, mean over folds",
    "survival": "event-free probability, 0 to 1, mean over folds; lower is worse",
    "median survival": "days until the event-free probability falls to one half, interpolated between the days of "
    "survival_curves.csv; empty: not within the follow-up",
    "event": "as given: 1 the event, 2 a competing event, 0 censored; empty: not given",
    "risk group": "high: above the median risk of the training patients, mean over folds",
    "effect on risk": "risk minus risk with that input set to missing; above 0: the input raises the risk",
    "occlusion": "risk minus risk with a box filled with the image mean; above 0: what is in the box raises the risk; "
    "NaN: not tested",
}


def write_prediction(prediction: CohortPrediction, about: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write all files of a prediction; on an error none is written and earlier files are kept.

    Args:
        prediction: Predictions for all patients.
        about: Description of model and settings, as plain data.
        folder: Output folder.

    Returns:
        The files written.
    """
    names = [PREDICTIONS_NAME, CURVES_NAME, ABOUT_NAME]
    with open_new_file(folder / ABOUT_NAME) as file:
        temporary = file.parent
        write_csv(temporary / PREDICTIONS_NAME, _list_predictions(prediction))
        write_csv(temporary / CURVES_NAME, _list_curves(prediction))
        if prediction.effects is not None:
            write_csv(temporary / EXPLANATION_NAME, tabulate_effects(prediction.effects))
            names.append(EXPLANATION_NAME)
        # The folder may still have files of an earlier prediction.
        content = {"version": VERSION, **about, **_describe(prediction), "files": names}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        file.write_text(text + "\n", encoding="utf-8", newline="\n")
    return [folder / name for name in names]


def _describe(prediction: CohortPrediction) -> dict[str, Any]:
    return {
        "patients": len(prediction.patients),
        "horizons_days": list(prediction.horizons),
        "meanings": {**MEANINGS, **prediction.meanings},
        "failed_images": dict(prediction.failures),
        "notes": list(prediction.notes),
    }


def _list_predictions(prediction: CohortPrediction) -> list[list[object]]:
    horizons = [f"survival at {horizon:g} days" for horizon in prediction.horizons]
    known = any(row.event for row in prediction.patients)
    late = known and any(row.entry for row in prediction.patients)
    head = [
        "patient",
        *(OUTCOME if known else ()),
        *((ENTRY,) if late else ()),
        "risk",
        *horizons,
        "median survival (days)",
        "risk group",
        "images used",
        "record values missing",
    ]
    return [[*head, "warnings"], *(_list_values(row, known, late) for row in prediction.patients)]


def _list_values(row: PatientPrediction, known: bool, late: bool) -> list[object]:
    median = "" if row.median is None else f"{row.median:.1f}"
    survival = [f"{value:.6f}" for value in row.survival]
    images, warnings = "; ".join(row.images), "; ".join(row.warnings)
    outcome: list[object] = []
    if known:
        code = {SEEN: 1, CENSORED: 0}.get(row.event, 2)
        outcome = [f"{row.time:g}", code] if row.event else ["", ""]
    if late:
        outcome.append(f"{row.entry:g}" if row.event else "")
    return [row.patient, *outcome, f"{row.risk:.6g}", *survival, median, row.group, images, row.missing, warnings]


def _list_curves(prediction: CohortPrediction) -> list[list[object]]:
    rows: list[list[object]] = [["patient", *(f"{day:g} days" for day in prediction.days)]]
    return rows + [[row.patient, *(f"{value:.5f}" for value in row.curve)] for row in prediction.patients]
