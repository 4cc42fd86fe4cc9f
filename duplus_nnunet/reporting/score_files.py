"""Writes scores to scores.json (complete) and scores.csv (one row per target), and reads the scores of cases back."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text
from duplus_nnunet.reporting.aggregate import Aggregate, Mean
from duplus_nnunet.reporting.bootstrap import DRAWS, LEVEL, SEED
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.table_files import format_csv
from duplus_nnunet.text_files import load_json

JSON_NAME = "scores.json"
CSV_NAME = "scores.csv"
VERSION = 1

OVER_TARGETS = "(mean over targets)"
OVER_SOURCES = "(mean over sources)"
ALL_SOURCES = "(all sources)"
_COUNTS = ("annotated", "present", "false_positives", "correct_rejections")
_COLUMNS = ("source", "target", *_COUNTS, "dice", "dice_low", "dice_high", "nsd", "nsd_low", "nsd_high")


def write_scores(scores: Aggregate, folder: str | os.PathLike[str]) -> None:
    """Write scores.json and scores.csv into a folder, each atomically."""
    content = json.dumps(to_plain(scores), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(Path(folder) / JSON_NAME, content + "\n")
    write_text(Path(folder) / CSV_NAME, to_csv(scores))


def to_plain(scores: Aggregate) -> dict[str, Any]:
    """Convert scores to plain data for JSON; NaN becomes None."""
    sources: dict[str, Any] = {source: {"mean": _plain_means(means)} for source, means in scores.sources.items()}
    for row in scores.rows:
        counts = {name: getattr(row, name) for name in _COUNTS}
        targets = sources[row.source].setdefault("targets", {})
        targets[row.target] = {**counts, **_plain_means({"dice": row.dice, "nsd": row.nsd})}
    return {
        "version": VERSION,
        "nsd_tolerance_mm": scores.tolerance,
        "interval": {"level": LEVEL, "by": "patient bootstrap", "draws": DRAWS, "seed": SEED},
        "mean": _plain_means(scores.mean),
        "mean_over_targets": _plain_means(scores.over_targets),
        "sources": sources,
        "cases": {name: _plain_case(case) for name, case in scores.cases.items()},
    }


def to_csv(scores: Aggregate) -> str:
    """Format scores as CSV; missing values are empty cells."""
    return format_csv([_COLUMNS, *([row.get(name) for name in _COLUMNS] for row in _list_rows(scores))])


def read_case_scores(file: str | os.PathLike[str]) -> tuple[dict[str, CaseScore], float]:
    """Read the scores of cases, and the tolerance in mm, from a scores.json.

    Raises:
        DataError: The file is missing or malformed.
    """
    try:
        content = load_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}. Give a {JSON_NAME} written by `duplus evaluate`.") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        version = content.get("version") if isinstance(content, dict) else None
        raise DataError(f"{file} has format version {version!r}, expected {VERSION}. Run `duplus evaluate` again.")
    try:
        for case in content["cases"].values():
            for score in case["targets"].values():
                score.update({metric: math.nan for metric in ("dice", "nsd") if score[metric] is None})
        cases = TypeAdapter(dict[str, CaseScore]).validate_python(content["cases"])
        tolerance = TypeAdapter(Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)])
        return cases, tolerance.validate_python(content["nsd_tolerance_mm"])
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a valid {JSON_NAME}: {error}. Run `duplus evaluate` again.") from error


def _list_rows(scores: Aggregate) -> Iterator[dict[str, Any]]:
    for row in scores.rows:
        counts = {name: getattr(row, name) for name in _COUNTS}
        means = _flatten({"dice": row.dice, "nsd": row.nsd})
        yield {"source": row.source, "target": row.target, **counts, **means}
    for source, means_of_source in scores.sources.items():
        yield {"source": source, "target": OVER_TARGETS, **_flatten(means_of_source)}
    yield {"source": OVER_SOURCES, "target": OVER_TARGETS, **_flatten(scores.mean)}
    yield {"source": ALL_SOURCES, "target": OVER_TARGETS, **_flatten(scores.over_targets)}


def _flatten(means: Mapping[str, Mean]) -> dict[str, float]:
    cells = {}
    for metric, mean in means.items():
        if not math.isnan(mean.value):
            cells[metric] = round(mean.value, 6)
        if mean.interval:
            cells[f"{metric}_low"], cells[f"{metric}_high"] = (round(bound, 6) for bound in mean.interval)
    return cells


def _plain_means(means: Mapping[str, Mean]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for metric, mean in means.items():
        plain[metric] = _plain(mean.value)
        plain[f"{metric}_interval"] = None if mean.interval is None else [_plain(bound) for bound in mean.interval]
    return plain


def _plain_case(case: CaseScore) -> dict[str, Any]:
    plain = asdict(case)
    for score in plain["targets"].values():
        score.update(dice=_plain(score["dice"]), nsd=_plain(score["nsd"]))
    return plain


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
