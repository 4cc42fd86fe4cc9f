"""Writes the table over a cohort as CSV, a row an image, and as JSON; and formats its summary for a terminal."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duplus_nnunet.files import write_text
from duplus_nnunet.outputs.naming import to_valid_text
from duplus_nnunet.saved_predictions.cohort import Cohort
from duplus_nnunet.saved_predictions.cohort_flags import LARGEST_Z, LEAST_CASES, LEAST_SHARE, Flag
from duplus_nnunet.saved_predictions.cohort_rows import CaseRow, TargetRow
from duplus_nnunet.table_files import write_csv
from duplus_nnunet.text_table import format_table

CSV_NAME = "cohort.csv"
VERSION = 1

_CASE_COLUMNS = ("case", "patient", "source", "context", "status", "message", "flags")
_TARGET_COLUMNS = ("present", "volume_ml", "components", "largest_ml", "touches_border")
_INTENSITIES = ("intensity_mean", "intensity_std", "intensity_median", "intensity_p05", "intensity_p95")
_DIGITS = 6
_SHOWN_FLAGS = 20


def write_cohort(cohort: Cohort, file: Path) -> tuple[Path, Path]:
    """Write the table as CSV, and all that is known as JSON beside it.

    Args:
        cohort: The table.
        file: The CSV file; the JSON file has its name with the ending `.json`.

    Returns:
        Both files.
    """
    write_csv(file, _list_rows(cohort))
    beside = file.with_suffix(".json")
    write_text(beside, json.dumps(to_plain(cohort), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return file, beside


def to_plain(cohort: Cohort) -> dict[str, Any]:
    """Convert a table to plain data for JSON."""
    flags: dict[str, list[dict[str, Any]]] = {}
    for flag in cohort.flags:
        plain = {name: value for name, value in asdict(flag).items() if name != "case"}
        flags.setdefault(flag.case, []).append(_round(plain))
    return {
        "version": VERSION,
        "folder": to_valid_text(str(cohort.folder.folder)),
        "bounds": {
            "robust_z_of_log_volume": LARGEST_Z,
            "least_images": LEAST_CASES,
            "absent_if_present_in_share": LEAST_SHARE,
        },
        "targets": {summary.target: _round(asdict(summary)) for summary in cohort.summarise()},
        "cases": {
            to_valid_text(row.case.name): _plain_case(row) | {"flags": flags.get(row.case.name, [])}
            for row in cohort.rows
        },
        "failed": {to_valid_text(case): to_valid_text(reason) for case, reason in cohort.failed.items()},
        "notes": list(cohort.folder.notes),
    }


def format_cohort(cohort: Cohort) -> Iterator[str]:
    """Yield the summary of each target, and what is implausible."""
    rows: list[tuple[str, ...]] = [
        ("", "images", "with it", "median ml", "smallest", "largest", "at border", "flagged")
    ]
    for each in cohort.summarise():
        volumes = (_format(value) for value in (each.median_ml, each.smallest_ml, each.largest_ml))
        counts = str(each.images), str(each.present)
        rows.append((each.target, *counts, *volumes, str(each.touching_border), str(each.flagged)))
    yield from format_table(rows, align="<>>>>>>>")
    ordered = sorted(cohort.flags, key=lambda flag: -abs(flag.robust_z or 0.0))
    if ordered:
        yield f"Implausible, and worth a look ({len(ordered)}):"
    for flag in ordered[:_SHOWN_FLAGS]:
        yield f"  {_describe(flag)}"
    if len(ordered) > _SHOWN_FLAGS:
        yield f"  ... and {len(ordered) - _SHOWN_FLAGS} more, see the column flags"


def _list_rows(cohort: Cohort) -> Iterator[list[Any]]:
    channels = list(dict.fromkeys(channel for row in cohort.rows for channel in row.units))
    targets = list(cohort.folder.regions)
    suffixes = {channel: f".{channel}" if len(channels) > 1 else "" for channel in channels}
    yield [
        *_CASE_COLUMNS,
        *(f"unit{suffix}" for suffix in suffixes.values()),
        *(f"{target}.{column}" for target in targets for column in _list_columns(suffixes.values())),
    ]
    rows = {row.case.name: row for row in cohort.rows}
    for case in cohort.folder.cases:
        row = rows.get(case.name)
        flags = [flag for flag in cohort.flags if flag.case == case.name]
        cells: list[Any] = [case.name, case.patient, case.source, case.context]
        if row is None:
            cells += ["failed", cohort.failed[case.name], None]
        else:
            cells += ["measured", None, "; ".join(_shorten(flag) for flag in flags) or None]
        cells += [None if row is None else row.units.get(channel) for channel in channels]
        for target in targets:
            cells += _list_cells(None if row is None else row.targets.get(target), channels)
        yield cells


def _list_columns(suffixes: Any) -> list[str]:
    return [*_TARGET_COLUMNS, *(f"{name}{suffix}" for suffix in suffixes for name in _INTENSITIES)]


def _list_cells(target: TargetRow | None, channels: list[str]) -> list[Any]:
    if target is None:
        return [None] * (len(_TARGET_COLUMNS) + len(_INTENSITIES) * len(channels))
    cells = [getattr(target, name) for name in _TARGET_COLUMNS]
    cells += [target.intensities.get(channel, {}).get(name) for channel in channels for name in _INTENSITIES]
    return [_to_cell(cell) for cell in cells]


def _to_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return round(value, _DIGITS) if isinstance(value, float) else value


def _plain_case(row: CaseRow) -> dict[str, Any]:
    case = row.case
    known = {name: getattr(case, name) for name in ("source", "context", "context_prompt") if getattr(case, name)}
    return {
        "patient": to_valid_text(case.patient),
        **known,
        "spacing_mm": _round(list(row.spacing)),
        "shape": list(row.shape),
        "units": dict(row.units),
        "targets": {name: _round(asdict(target)) for name, target in row.targets.items()},
    }


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_round(part) for part in value]
    return round(value, _DIGITS) if isinstance(value, float) else value


def _shorten(flag: Flag) -> str:
    text = flag.text if flag.kind in ("warning", "intensities") else flag.kind
    return f"{flag.target}: {text}" if flag.target else text


def _describe(flag: Flag) -> str:
    about = f"{flag.case}, {flag.target}" if flag.target else flag.case
    return f"{about}: {flag.kind}: {flag.text}"


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
