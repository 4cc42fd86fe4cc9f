"""A prediction as files: in comes what is foretold of patients, out come tables and what they were made by.

All of them are written aside first, and put in place together when all went well.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.outputs.files import open_new_file
from duplus_nnunet.survival.evaluation.attribution import tabulate_effects
from duplus_nnunet.survival.prediction.rows import CohortPrediction, PatientPrediction

PREDICTIONS_NAME, CURVES_NAME = "predictions.csv", "survival_curves.csv"
ABOUT_NAME, EXPLANATION_NAME = "survival_prediction.json", "explanation.csv"
VERSION = 1
MEANINGS = {
    "risk": "higher is worse: standard deviations above the mean risk of the training patients, mean over folds",
    "survival": "probability to be free of the event, 0 to 1, mean over folds; lower is worse",
    "median survival": "days by which it has fallen to one half; empty: not by the end of the follow-up",
    "risk group": "high: above the median risk of the training patients, mean over folds",
    "effect on risk": "risk less risk with that input presented as missing; above 0: what is known raised the risk",
    "occlusion": "risk less risk with a box filled by the image's mean; above 0: what is there raises the risk; NaN: "
    "not looked at",
}


def write_prediction(found: CohortPrediction, about: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write everything; on an error nothing is left, and what was there before stays.

    Args:
        found: What is foretold.
        about: What it was made by, as plain data.
        folder: Where.

    Returns:
        The files.
    """
    names = [PREDICTIONS_NAME, CURVES_NAME, ABOUT_NAME]
    with open_new_file(folder / ABOUT_NAME) as file:
        aside = file.parent
        write_rows(aside / PREDICTIONS_NAME, _list_predictions(found))
        write_rows(aside / CURVES_NAME, _list_curves(found))
        if found.effects is not None:
            write_rows(aside / EXPLANATION_NAME, tabulate_effects(found.effects))
            names.append(EXPLANATION_NAME)
        # What an earlier prediction left in the folder is none of this one's.
        content = {"version": VERSION, **about, **_describe(found), "files": names}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        file.write_text(text + "\n", encoding="utf-8", newline="\n")
    return [folder / name for name in names]


def write_rows(file: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a table as CSV, its head first."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def _describe(found: CohortPrediction) -> dict[str, Any]:
    return {
        "patients": len(found.patients),
        "horizons_days": list(found.horizons),
        "meanings": MEANINGS,
        "failed_images": dict(found.failures),
        "notes": list(found.notes),
    }


def _list_predictions(found: CohortPrediction) -> list[list[object]]:
    horizons = [f"survival at {horizon:g} days" for horizon in found.horizons]
    head = ["patient", "risk", *horizons, "median survival (days)", "risk group", "images used", "EHR values missing"]
    return [[*head, "warnings"], *(_list_values(one) for one in found.patients)]


def _list_values(one: PatientPrediction) -> list[object]:
    median = "" if one.median is None else f"{one.median:.1f}"
    survival = [f"{value:.6f}" for value in one.survival]
    images, warnings = "; ".join(one.images), "; ".join(one.warnings)
    return [one.patient, f"{one.risk:.6g}", *survival, median, one.group, images, one.missing, warnings]


def _list_curves(found: CohortPrediction) -> list[list[object]]:
    rows: list[list[object]] = [["patient", *(f"{day:g} days" for day in found.days)]]
    return rows + [[one.patient, *(f"{value:.5f}" for value in one.curve)] for one in found.patients]
