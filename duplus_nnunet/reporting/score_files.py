"""Writes scores to scores.json (complete) and scores.csv (one row per target), and reads the scores of cases back."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text
from duplus_nnunet.reporting.aggregate import Aggregate, Mean
from duplus_nnunet.reporting.bootstrap import DRAWS, LEVEL, SEED
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.metrics import METRICS, NAMES
from duplus_nnunet.reporting.target_scores import TargetScore
from duplus_nnunet.table_files import format_csv
from duplus_nnunet.text_files import load_json

JSON_NAME = "scores.json"
CSV_NAME = "scores.csv"
VERSION = 2
# Version 1 had Dice and NSD only.
_READ = (1, 2)

OVER_TARGETS = "(mean over targets)"
OVER_SOURCES = "(mean over sources)"
ALL_SOURCES = "(all sources)"
_COUNTS = ("annotated", "present", "missed", "false_positives", "correct_rejections")
_COLUMNS = ("source", "target", *_COUNTS, *(f"{name}{end}" for name in NAMES for end in ("", "_low", "_high")))
_REQUIRED = ("dice", "nsd")
_OPTIONAL = tuple(each.name for each in fields(TargetScore) if each.type is float and each.name not in _REQUIRED)


_Length = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Tolerances:
    """Tolerances of the NSD.

    Attributes:
        mm: The tolerance, in mm.
        by_target: That of single targets, in mm, where it differs.
    """

    mm: _Length
    by_target: Mapping[str, _Length] = field(default_factory=dict)


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
        targets[row.target] = {**counts, **_plain_means(row.means)}
    return {
        "version": VERSION,
        "nsd_tolerance_mm": scores.tolerance,
        "nsd_tolerance_mm_by_target": dict(scores.tolerances),
        "better": {metric.name: metric.better for metric in METRICS},
        "interval": {"level": LEVEL, "by": "patient bootstrap", "draws": DRAWS, "seed": SEED},
        "mean": _plain_means(scores.mean),
        "mean_over_targets": _plain_means(scores.over_targets),
        "sources": sources,
        "cases": {name: _plain_case(case) for name, case in scores.cases.items()},
    }


def to_csv(scores: Aggregate) -> str:
    """Format scores as CSV; missing values are empty cells."""
    return format_csv([_COLUMNS, *([row.get(name) for name in _COLUMNS] for row in _list_rows(scores))])


def read_case_scores(file: str | os.PathLike[str]) -> tuple[dict[str, CaseScore], Tolerances]:
    """Read the scores of cases, and the tolerances of the NSD, from a scores.json.

    Raises:
        DataError: The file is missing or malformed.
    """
    try:
        content = load_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}. Give a {JSON_NAME} written by `duplus evaluate`.") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version not in _READ or isinstance(version, bool):
        expected = " or ".join(map(str, _READ))
        raise DataError(f"{file} has format version {version!r}, expected {expected}. Run `duplus evaluate` again.")
    try:
        for case in content["cases"].values():
            for score in case["targets"].values():
                score.update({metric: math.nan for metric in _REQUIRED if score[metric] is None})
        cases = TypeAdapter(dict[str, CaseScore]).validate_python(content["cases"])
        others = content.get("nsd_tolerance_mm_by_target", {})
        return cases, TypeAdapter(Tolerances).validate_python({"mm": content["nsd_tolerance_mm"], "by_target": others})
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is not a valid {JSON_NAME}: {error}. Run `duplus evaluate` again.") from error


def _list_rows(scores: Aggregate) -> Iterator[dict[str, Any]]:
    for row in scores.rows:
        counts = {name: getattr(row, name) for name in _COUNTS}
        yield {"source": row.source, "target": row.target, **counts, **_flatten(row.means)}
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
        if metric not in _REQUIRED and math.isnan(mean.value):
            continue
        plain[metric] = _plain(mean.value)
        plain[f"{metric}_interval"] = None if mean.interval is None else [_plain(bound) for bound in mean.interval]
    return plain


def _plain_case(case: CaseScore) -> dict[str, Any]:
    plain = asdict(case)
    for score in plain["targets"].values():
        values = {name: _plain(score.pop(name)) for name in _OPTIONAL}
        score.update({name: _plain(score[name]) for name in _REQUIRED})
        score.update({name: value for name, value in values.items() if value is not None})
    return plain


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
