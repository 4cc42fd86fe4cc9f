"""Writes the calibration of predictions to calibration.json and calibration.csv, reads it back, and formats it."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text
from duplus_nnunet.reporting.bootstrap import DRAWS, LEVEL, SEED
from duplus_nnunet.reporting.calibration import (
    NEIGHBOURHOOD_MM,
    CalibrationReport,
    Estimate,
    PresenceScore,
    Reliability,
    TargetCalibration,
)
from duplus_nnunet.table_files import format_csv
from duplus_nnunet.text_files import load_json
from duplus_nnunet.text_table import format_table

JSON_NAME = "calibration.json"
CSV_NAME = "calibration.csv"
VERSION = 1

_NEAR, _ALL = "near the target", "all"
# Brier scores of all voxels are small.
_DIGITS = 9
_COLUMNS = (
    *("source", "target", "voxels of", "cases", "patients", "voxels", "observed_share"),
    *("ece", "ece_low", "ece_high", "mce", "ece_equal_mass", "ece_equal_mass_low", "ece_equal_mass_high"),
    *("mce_equal_mass", "brier", "brier_low", "brier_high"),
    *(
        f"presence_{name}"
        for name in ("cases", "present", "brier", "sensitivity", "specificity", "auc", "auc_low", "auc_high")
    ),
)


def write_calibration(report: CalibrationReport, folder: Path) -> tuple[Path, Path]:
    """Write calibration.json and calibration.csv into a folder, each atomically; returns both files."""
    text = json.dumps(to_plain(report), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / JSON_NAME, text + "\n")
    write_text(folder / CSV_NAME, format_csv([_COLUMNS, *_list_rows(report)]))
    return folder / JSON_NAME, folder / CSV_NAME


def to_plain(report: CalibrationReport) -> dict[str, Any]:
    """Convert a calibration to plain data for JSON; NaN becomes None."""
    return {
        "version": VERSION,
        "neighbourhood_mm": NEIGHBOURHOOD_MM,
        "interval": {"level": LEVEL, "by": "patient bootstrap", "draws": DRAWS, "seed": SEED},
        "rows": [_to_plain(asdict(row)) for row in report.rows],
        "notes": list(report.notes),
    }


def read_calibration_report(file: Path) -> CalibrationReport:
    """Read a calibration.json.

    Raises:
        DataError: The file is missing or malformed.
    """
    advice = "Run `duplus evaluate --calibration` again."
    try:
        content = load_json(file)
        if content.get("version") != VERSION:
            raise DataError(f"{file} has format version {content.get('version')!r}, expected {VERSION}. {advice}")
        rows = TypeAdapter(tuple[TargetCalibration, ...]).validate_python(_from_plain(content["rows"]))
        return CalibrationReport(rows, tuple(content.get("notes", ())))
    except (OSError, ValidationError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a valid {JSON_NAME}: {error}. {advice}") from error


def format_calibration(report: CalibrationReport) -> Iterator[str]:
    """Yield a line for each target and kind of voxels, then one for the presence of each target."""
    yield ""
    yield (
        "Calibration of the probabilities, in ten bins of equal width. Near: voxels at most "
        f"{NEIGHBOURHOOD_MM:g} mm along each axis from the reference or from where the probability is above 0.5."
    )
    rows: list[tuple[str, ...]] = [("", "voxels", "cases", "ECE", "MCE", "Brier")]
    for row in report.rows:
        for name, found in ((_NEAR, row.near), (_ALL, row.all)):
            if found is not None:
                cells = _format(found.equal_width.ece, 4), f"{found.equal_width.mce:.3f}", _format(found.brier, 4)
                rows.append((f"{row.source}, {row.target}", name, str(found.cases), *cells))
    yield from format_table(rows, align="<<>")
    presences = [(row, row.presence) for row in report.rows if row.presence is not None]
    if presences:
        yield ""
        yield "Presence of targets in images; sensitivity and specificity at a probability of 0.5."
        table: list[tuple[str, ...]] = [("", "cases", "present", "Brier", "sensitivity", "specificity", "AUC")]
        for row, score in presences:
            numbers = (score.brier, score.sensitivity, score.specificity, score.auc)
            counts = str(score.cases), str(score.present)
            table.append((f"{row.source}, {row.target}", *counts, *map(_format, numbers)))
        yield from format_table(table, align="<>>")


def _list_rows(report: CalibrationReport) -> Iterator[list[Any]]:
    for row in report.rows:
        for name, found in ((_NEAR, row.near), (_ALL, row.all)):
            if found is not None or (name == _ALL and row.presence is not None):
                cells: dict[str, Any] = {"source": row.source, "target": row.target, "voxels of": name}
                cells |= {} if found is None else _flatten(found)
                cells |= {} if row.presence is None else _flatten_presence(row.presence)
                yield [_to_cell(cells.get(column)) for column in _COLUMNS]


def _flatten(found: Reliability) -> dict[str, Any]:
    plain = {name: getattr(found, name) for name in ("cases", "patients", "voxels", "observed_share")}
    plain |= {"mce": found.equal_width.mce, "mce_equal_mass": found.equal_mass.mce}
    estimates = {"ece": found.equal_width.ece, "ece_equal_mass": found.equal_mass.ece, "brier": found.brier}
    return plain | _flatten_estimates(estimates)


def _flatten_presence(found: PresenceScore) -> dict[str, Any]:
    names = ("brier", "sensitivity", "specificity", "auc")
    plain = {"presence_cases": found.cases, "presence_present": found.present}
    return plain | _flatten_estimates({f"presence_{name}": getattr(found, name) for name in names})


def _flatten_estimates(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    cells = {}
    for name, estimate in estimates.items():
        cells[name] = estimate.value
        if estimate.interval is not None:
            cells[f"{name}_low"], cells[f"{name}_high"] = estimate.interval
    return cells


def _to_cell(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, _DIGITS)
    return value


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(part) for part in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, _DIGITS)
    return value


_NUMBERS = frozenset({"value", "mce", "mean_probability", "observed_share", "low", "high"})


def _from_plain(value: Any) -> Any:
    """Undo `_to_plain`: numbers that are None become NaN."""
    if isinstance(value, dict):
        return {key: math.nan if part is None and key in _NUMBERS else _from_plain(part) for key, part in value.items()}
    return [_from_plain(part) for part in value] if isinstance(value, list) else value


def _format(estimate: Estimate, digits: int = 3) -> str:
    if math.isnan(estimate.value):
        return "-"
    if estimate.interval is None:
        return f"{estimate.value:.{digits}f}"
    low, high = estimate.interval
    return f"{estimate.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
