"""Corrects nnU-Net's summary.json for labels that are not annotated in a case, and adds entries of our own.

nnU-Net scores every label in every case: predictions of a target that is not annotated score Dice 0, and a label that
no case contains makes the mean over labels NaN.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file, write_text
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.reporting.case_scores import Region
from duplus_nnunet.text_files import load_json

Key = int | Region

_ADVICE = "Run the validation again (nnUNetv2_train with --val)."


def correct_summary(file: str | os.PathLike[str], regions: Mapping[str, Region], ending: str, table: CaseTable) -> None:
    """Set the metrics of labels that are not annotated in a case to NaN, and update the means.

    The format is unchanged: nnU-Net's functions expect every label in every case and treat NaN as missing. Means are
    taken over the cases that have a value, the foreground mean over the labels that have one. The correction is
    idempotent.

    Args:
        file: nnU-Net's summary.json.
        regions: Label values of each target, by name of the target.
        ending: File ending of the label maps.
        table: Table of the annotated targets of each case.

    Raises:
        DataError: The file cannot be read, or has a case that is not in the table.
    """
    from nnunetv2.evaluation.evaluate_predictions import load_summary_json, save_summary_json

    path = Path(file)
    try:
        summary: dict[str, Any] = load_summary_json(str(path))
        for case in summary["metric_per_case"]:
            name = Path(case["prediction_file"]).name.removesuffix(ending)
            annotated = {frozenset(regions[target]) for target in table.find(name).annotated if target in regions}
            case["metrics"] = _mask_unannotated(
                case["metrics"], annotated, {frozenset(region) for region in regions.values()}
            )
        summary["mean"] = _average_cases([case["metrics"] for case in summary["metric_per_case"]], summary["mean"])
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as nnU-Net's summary: {error!r}. {_ADVICE}") from error
    summary["foreground_mean"] = _average_labels(summary["mean"])
    with open_new_file(path) as new:
        save_summary_json(summary, str(new))


def add_note(file: str | os.PathLike[str], name: str, note: Any) -> None:
    """Add an entry to a summary.json, under the key `duplus` beside nnU-Net's own keys, which stay unchanged.

    Raises:
        DataError: The file cannot be read.
    """
    path = Path(file)
    summary = _load(path)
    summary[PLANS_KEY] = {**summary.get(PLANS_KEY, {}), name: note}
    write_text(path, json.dumps(summary, indent=4, sort_keys=True))


def read_note(file: str | os.PathLike[str], name: str) -> Any:
    """Read an entry written by `add_note`; None if there is none.

    Raises:
        DataError: The file is missing or cannot be read.
    """
    return _load(Path(file)).get(PLANS_KEY, {}).get(name)


def _load(path: Path) -> dict[str, Any]:
    try:
        summary: Any = load_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as nnU-Net's summary: {error}. {_ADVICE}") from error
    if not isinstance(summary, dict) or not isinstance(summary.get(PLANS_KEY, {}), dict):
        raise DataError(f"{path} is not a valid nnU-Net summary. {_ADVICE}")
    return summary


def _mask_unannotated(
    metrics: Mapping[Key, Mapping[str, float]], annotated: set[frozenset[int]], known: set[frozenset[int]]
) -> dict[Key, dict[str, float]]:
    """Set the metrics of known targets that are not annotated to NaN."""

    def is_unannotated(key: Key) -> bool:
        region = frozenset((key,) if isinstance(key, int) else key)
        return region in known and region not in annotated

    return {
        key: dict.fromkeys(values, math.nan) if is_unannotated(key) else dict(values) for key, values in metrics.items()
    }


def _average_cases(
    cases: Sequence[Mapping[Key, Mapping[str, float]]], means: Mapping[Key, Mapping[str, float]]
) -> dict[Key, dict[str, float]]:
    """Average over cases, for the labels and metrics of nnU-Net's means."""
    return {
        key: {metric: _mean([metrics[key][metric] for metrics in cases]) for metric in values}
        for key, values in means.items()
    }


def _average_labels(means: Mapping[Key, Mapping[str, float]]) -> dict[str, float]:
    foreground = [values for key, values in means.items() if key != 0]
    return {metric: _mean([values[metric] for values in foreground]) for metric in next(iter(means.values()))}


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
