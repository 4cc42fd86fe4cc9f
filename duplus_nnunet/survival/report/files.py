"""Writes a study as tables, metrics.json, figures and a model card, all or nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

from duplus_nnunet.files import open_new_file
from duplus_nnunet.survival.evaluation.study import Design, Study
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.report.evidence_files import draw_evidence
from duplus_nnunet.survival.report.figures import draw_study
from duplus_nnunet.survival.report.metrics_json import to_plain
from duplus_nnunet.survival.report.model_card import write_card
from duplus_nnunet.table_files import write_csv

METRICS_NAME, PREDICTIONS_NAME, CURVES_NAME = "metrics.json", "predictions.csv", "survival_curves.csv"
CARD_NAME = "model_card.md"


def write_study(study: Study, design: Design, cohort: Cohort, folder: Path) -> list[Path]:
    """Write all files of a study; on an error none is written and earlier files are kept.

    Returns:
        The files written.
    """
    with open_new_file(folder / METRICS_NAME) as metrics:
        temporary = metrics.parent
        write_csv(temporary / PREDICTIONS_NAME, list_predictions(study))
        write_csv(temporary / CURVES_NAME, list_curves(study))
        figures = [*draw_study(study, temporary), *draw_evidence(study, cohort, temporary)]
        card = "\n".join(write_card(study, design, cohort)) + "\n"
        (temporary / CARD_NAME).write_text(card, encoding="utf-8", newline="\n")
        plain = json.dumps(to_plain(study, design, cohort.schema), indent=1, allow_nan=False)
        metrics.write_text(plain, encoding="utf-8", newline="\n")
    names = [METRICS_NAME, PREDICTIONS_NAME, CURVES_NAME, *(figure.name for figure in figures), CARD_NAME]
    return [folder / name for name in names]


def list_predictions(study: Study) -> Iterator[list[object]]:
    """List the predictions of every method for every held-out patient, heading first.

    The event is 1 where it was observed, 2 for a competing event, and 0 for censoring.
    """
    horizons = [f"survival at {horizon:g} days" for horizon in study.horizons]
    head = [
        "method",
        "seed",
        "fold",
        "patient",
        "time (days)",
        "event",
        "risk",
        *horizons,
        "median survival (days)",
        "risk group",
    ]
    yield [*head, "record values missing", "warnings"]
    for held in study.predictions:
        yield [
            *(held.method, held.seed, held.fold, held.patient),
            *(f"{held.time:g}", held.event + 2 * held.competing, f"{held.risk:.6g}"),
            *(f"{value:.6f}" for value in held.survival),
            *("" if held.median is None else f"{held.median:.1f}", held.group, held.missing),
            "; ".join(held.warnings),
        ]


def list_curves(study: Study) -> Iterator[list[object]]:
    """List the survival curves of the first method, heading first: a row for each patient and seed."""
    yield ["seed", "fold", "patient", *(f"{day:g} days" for day in study.curve_days)]
    for held in study.predictions:
        if held.method == study.methods[0]:
            yield [held.seed, held.fold, held.patient, *(f"{value:.5f}" for value in held.curve)]
