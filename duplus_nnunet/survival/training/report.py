"""Writes the predictions of a fold's model for its held-out patients: predictions.csv and survival.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet.files import write_text
from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.models.forecasts import Forecast
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.table import SEEN, Record
from duplus_nnunet.table_files import format_csv

PREDICTIONS_NAME, REPORT_NAME = "predictions.csv", "survival.json"
_VERSION = 1


@dataclass(frozen=True)
class FoldReport:
    """Model of a fold and its predictions.

    Attributes:
        dataset: nnU-Net's name of the dataset.
        fold: nnU-Net's fold.
        records: Records of N patients.
        held_out: Whether they were held out; False for the fold "all", which has training patients only.
        horizons: Days at which survival is reported, (T).
        forecast: Predictions for the same patients; risk: higher is worse.
        images: Image features of the patients.
        details: Description of the model, as plain data.
    """

    dataset: str
    fold: int | str
    records: Sequence[Record]
    held_out: bool
    horizons: Sequence[float]
    forecast: Forecast
    images: FeatureTable
    details: dict[str, Any]


def describe_training(trainer: Any) -> dict[str, Any]:
    """Describe the training of a DuPLUSSurvivalTrainer as plain data."""
    stage = {
        "epochs": trainer.num_epochs,
        "loss_of_inner_held_out": trainer.losses,
        "inner_held_out_patients": len(trainer.inner.held_out) if trainer.inner else 0,
    }
    return {
        "lesion_targets": {context: list(names) for context, names in trainer.lesions.items()},
        "encoder": trainer.settings.survival.encoder,
        "uses_images": trainer.model.code is not None,
        "lora": None if trainer.scratch else {"kept": trainer.kept, **stage},
        "scratch": {"best_epoch": trainer.best.epoch, **stage} if trainer.scratch else None,
        "base": trainer.base_file,
        "trained_on": [record.patient for record in trainer.cohort.train],
        "notes": [*trainer.notes, *trainer.model.notes],
    }


def list_imaged(images: FeatureTable, patient: str) -> list[str]:
    """List the contexts in which a patient has images."""
    row = images.take([patient])[0]
    known = [context for context, value in zip(images.contexts, row, strict=True) if not np.isnan(value)]
    return list(dict.fromkeys(known))


def measure_concordance(records: Sequence[Record], forecast: Forecast) -> float | None:
    """Return Harrell's concordance index, higher is better; None if there is no comparable pair."""
    index = pool([concordance(read_outcome(records), forecast.risk)])
    return None if np.isnan(index) else index


def measure_patch_concordance(records: Sequence[Record], outputs: Sequence[Mapping[str, Any]]) -> float | None:
    """Return Harrell's concordance index of the mean risk of the patches of each patient, higher is better.

    Args:
        records: Records of all patients; those without patches are left out.
        outputs: Batches of patches, each with "patient" and "risk".
    """
    risks: dict[str, list[float]] = {}
    for output in outputs:
        for patient, risk in zip(output["patient"], output["risk"], strict=True):
            risks.setdefault(patient, []).append(float(risk))
    imaged = [record for record in records if record.patient in risks]
    mean = np.array([np.mean(risks[record.patient]) for record in imaged])
    return measure_concordance(imaged, Forecast(mean, np.zeros((len(imaged), 0))))


def write_report(report: FoldReport, folder: Path) -> tuple[Path, Path]:
    """Write predictions.csv and survival.json; returns both files."""
    predictions, about = folder / PREDICTIONS_NAME, folder / REPORT_NAME
    write_text(predictions, _list_predictions(report))
    events = sum(record.event == SEEN for record in report.records)
    content = {
        "version": _VERSION,
        "dataset": report.dataset,
        "fold": str(report.fold),
        "patients": len(report.records),
        "events": events,
        "held_out": report.held_out,
        "risk": "higher is worse; comparable within this fold only",
        "horizons_days": [float(horizon) for horizon in report.horizons],
        "Harrell's C": measure_concordance(report.records, report.forecast) if report.held_out else None,
        **report.details,
        "notes": list(dict.fromkeys([*report.details.get("notes", ()), *report.forecast.notes])),
    }
    write_text(about, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return predictions, about


def _list_predictions(report: FoldReport) -> str:
    horizons = [f"survival at {horizon:g} days" for horizon in report.horizons]
    head: list[object] = [
        "patient",
        "fold",
        "held out",
        "risk",
        *horizons,
        "images",
        "missing in record",
        "time (days)",
        "event",
    ]
    table = [head]
    rows = zip(report.records, report.forecast.risk, report.forecast.survival, strict=True)
    for record, risk, curve in rows:
        imaged = "; ".join(list_imaged(report.images, record.patient))
        missing = "; ".join(name for name, value in record.values.items() if value is None)
        outcome = [f"{record.time:g}", record.event]
        values = [f"{risk:.6g}", *(f"{value:.6f}" for value in curve)]
        held = "yes" if report.held_out else "no"
        table.append([record.patient, report.fold, held, *values, imaged, missing, *outcome])
    return format_csv(table)
