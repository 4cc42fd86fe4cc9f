"""A study on paper: in comes what a cross-validation found, out come metrics.json, predictions.csv and a table."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from duplus_nnunet.outputs.files import write_text
from duplus_nnunet.survival.study import SCORES, Design, Study, Value, to_plain

METRICS_NAME, PREDICTIONS_NAME = "metrics.json", "predictions.csv"


def write_study(study: Study, design: Design, folder: Path) -> tuple[Path, Path]:
    """Write scores and held-out predictions; returns the two files."""
    metrics, predictions = folder / METRICS_NAME, folder / PREDICTIONS_NAME
    write_text(metrics, json.dumps(to_plain(study, design), indent=1))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    horizons = [f"survival at {horizon:g} days" for horizon in study.horizons]
    writer.writerow(["patient", "method", "seed", "fold", "risk", *horizons])
    for one in study.predictions:
        curve = [f"{value:.6f}" for value in one.survival]
        writer.writerow([one.patient, one.method, one.seed, one.fold, f"{one.risk:.6g}", *curve])
    write_text(predictions, text.getvalue())
    return metrics, predictions


def describe_study(study: Study, design: Design) -> Iterator[str]:
    """Write scores, and differences of the first method to the others, as lines for people."""
    width = max(map(len, design.methods)) + 2
    for title, table, signed in (
        ("", study.scores, False),
        (f"{design.methods[0]} less", study.differences, True),
    ):
        if not table:
            continue
        yield f"{title:<{max(width, len(title) + 2)}}" + "".join(f"{score:<26}" for score in SCORES)
        for name, found in table.items():
            cells = "".join(f"{_say(found[score], signed):<26}" for score in SCORES)
            yield f"{name:<{max(width, len(title) + 2)}}{cells}"
    yield "Higher is better, 0.5 is chance; of the integrated Brier score lower is better."


def _say(value: Value, signed: bool) -> str:
    sign = "+" if signed else ""
    if value.interval is None:
        return f"{value.value:{sign}.3f}"
    return f"{value.value:{sign}.3f} ({value.interval[0]:{sign}.3f} to {value.interval[1]:{sign}.3f})"
