"""A study as files: in comes what a cross-validation found, out come tables, metrics.json, pictures and a model card.

All of them are written aside first, and put in place together when all went well.
"""

import csv
import json
from pathlib import Path

from duplus_nnunet.outputs.files import open_new_file
from duplus_nnunet.survival.evaluation.study import Design, Study
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.report.metrics_json import to_plain
from duplus_nnunet.survival.report.model_card import write_card
from duplus_nnunet.survival.report.study_figures import draw_study

METRICS_NAME, PREDICTIONS_NAME, CURVES_NAME = "metrics.json", "predictions.csv", "survival_curves.csv"
CARD_NAME = "model_card.md"


def write_study(study: Study, design: Design, cohort: Cohort, folder: Path) -> list[Path]:
    """Write everything; on an error nothing is left, and what was there before stays.

    Returns:
        The files.
    """
    with open_new_file(folder / METRICS_NAME) as metrics:
        aside = metrics.parent
        _write_predictions(study, aside / PREDICTIONS_NAME)
        _write_curves(study, aside / CURVES_NAME)
        pictures = draw_study(study, aside)
        card = "\n".join(write_card(study, design, cohort)) + "\n"
        (aside / CARD_NAME).write_text(card, encoding="utf-8", newline="\n")
        plain = json.dumps(to_plain(study, design), indent=1, allow_nan=False)
        metrics.write_text(plain, encoding="utf-8", newline="\n")
    names = [METRICS_NAME, PREDICTIONS_NAME, CURVES_NAME, *(picture.name for picture in pictures), CARD_NAME]
    return [folder / name for name in names]


def _write_predictions(study: Study, file: Path) -> None:
    horizons = [f"survival at {horizon:g} days" for horizon in study.horizons]
    head = ["method", "seed", "fold", "patient", "risk", *horizons, "median survival (days)", "risk group"]
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*head, "EHR values missing", "warnings"])
        for one in study.predictions:
            writer.writerow(
                [
                    *(one.method, one.seed, one.fold, one.patient, f"{one.risk:.6g}"),
                    *(f"{value:.6f}" for value in one.survival),
                    *("" if one.median is None else f"{one.median:.1f}", one.group, one.missing),
                    "; ".join(one.warnings),
                ]
            )


def _write_curves(study: Study, file: Path) -> None:
    """Write the curves of the first method, a row a patient and seed, a column a time."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["seed", "fold", "patient", *(f"{day:g} days" for day in study.curve_days)])
        for one in study.predictions:
            if one.method == study.methods[0]:
                writer.writerow([one.seed, one.fold, one.patient, *(f"{value:.5f}" for value in one.curve)])
