"""Compares DuPLUS with Cox on clinical records: three public datasets, and tables of pure noise.

`records` cross-validates the datasets of scikit-survival (gbsg2, whas500, veterans' lung cancer) in five folds, redrawn
for each seed, and reports Harrell's concordance of both methods, the paired difference, and the Brier skill and
calibration slope at the last horizon. `noise` draws tables whose covariates are independent of the outcome, one for
each seed: the confidence interval of the mean concordance must include 0.5, and the 95 % confidence intervals must
include 0.5 in at least 16 of 20 tables.

Example:
  python benchmarks/prognosis.py records > records.json
  python benchmarks/prognosis.py noise > noise.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from duplus_nnunet.survival.evaluation.intervals import Value
from duplus_nnunet.survival.evaluation.study import Design, run_study
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

OURS, COX, NULL = "logistic hazard", "Cox", "Kaplan-Meier"
CONCORDANCE = "Harrell's C"
# Levels of ordinal columns, lowest first; the datasets do not give their order.
ORDERS = {"tgrade": ["I", "II", "III"]}
DATASETS = ("gbsg2", "whas500", "veterans_lung_cancer")
NOISE_PATIENTS, NOISE_COVARIATES = 60, 4
NORMAL_95 = 1.96


def load(name: str) -> tuple[list[Record], ClinicalSchema]:
    """Load a dataset of scikit-survival as records."""
    from sksurv import datasets

    table, outcome = getattr(datasets, f"load_{name}")()
    event, time = outcome.dtype.names
    types = {column: type_column(column, table[column]) for column in table.columns}
    records = []
    for number, row in enumerate(table.to_dict("records")):
        values = {column: read(row[column], types[column]) for column in table.columns}
        seen = SEEN if outcome[event][number] else CENSORED
        # Times of 0 would mean no follow-up; half a day keeps their order before all others.
        time_ = max(0.5, float(outcome[time][number]))
        records.append(Record(number + 1, f"p{number:04d}", "", time_, seen, 0.0, values))
    return records, make_schema(types)


def type_column(name: str, column: Any) -> dict[str, Any]:
    """Return the covariate form of a column of a data frame."""
    if name in ORDERS:
        return {"type": "ordinal", "order": ORDERS[name]}
    return {"type": "numeric"} if column.dtype.kind in "if" else {"type": "categorical"}


def read(value: Any, form: dict[str, Any]) -> float | str:
    """Return the value of a cell in the form of records."""
    if form["type"] == "ordinal":
        return float(form["order"].index(str(value)))
    return float(value) if form["type"] == "numeric" else str(value)


def make_schema(covariates: dict[str, dict[str, Any]]) -> ClinicalSchema:
    """Return the schema of a table with these covariates."""
    event = {"column": "event", "seen": [1], "censored": [0]}
    return ClinicalSchema.model_validate(
        {"patient": "patient", "time": {"column": "time"}, "event": event, "covariates": covariates}
    )


def make_noise(seed: int) -> tuple[list[Record], ClinicalSchema]:
    """Draw patients whose covariates are independent of the outcome."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(NOISE_PATIENTS):
        event, censoring = rng.exponential(400), rng.exponential(600)
        values = {f"x{column}": float(rng.normal()) for column in range(NOISE_COVARIATES)}
        seen = SEEN if event <= censoring else CENSORED
        records.append(Record(number + 1, f"p{number:03d}", "", max(1.0, min(event, censoring)), seen, 0.0, values))
    return records, make_schema({f"x{column}": {"type": "numeric"} for column in range(NOISE_COVARIATES)})


def to_plain(value: Value) -> dict[str, Any]:
    """Return a value as plain data."""
    return {"value": round(value.value, 4), "interval": value.interval and [round(end, 4) for end in value.interval]}


def run_records(seeds: int) -> dict[str, Any]:
    """Cross-validate each dataset."""
    results = {}
    for name in DATASETS:
        records, schema = load(name)
        design = Design(seeds=tuple(range(seeds)), methods=(OURS, COX, NULL))
        study = run_study(records, schema, design)
        results[name] = {
            "patients": len(records),
            "events": sum(record.event == SEEN for record in records),
            "methods": {method: summarise(study, method) for method in (OURS, COX)},
            "ours less Cox": {score: to_plain(value) for score, value in study.differences[COX].items()},
        }
    return results


def summarise(study: Any, method: str) -> dict[str, Any]:
    """Return the scores of a method, and its calibration at the last horizon."""
    last = study.calibration[method][-1]
    scores = {score: to_plain(value) for score, value in study.scores[method].items()}
    return {
        **scores,
        "slope at the last horizon": to_plain(last.slope),
        "observed less predicted": to_plain(last.excess),
    }


def run_noise(seeds: int) -> dict[str, Any]:
    """Cross-validate tables of noise."""
    values: dict[str, list[Value]] = {OURS: [], COX: []}
    for seed in range(seeds):
        records, schema = make_noise(seed)
        study = run_study(records, schema, Design(seeds=(seed,), methods=tuple(values)))
        for method, concordances in values.items():
            concordances.append(study.scores[method][CONCORDANCE])
        print(f"noise, table {seed}", file=sys.stderr)
    return {method: summarise_noise(concordances) for method, concordances in values.items()}


def summarise_noise(values: Sequence[Value]) -> dict[str, Any]:
    """Compare concordances on noise with chance."""
    numbers = np.array([value.value for value in values])
    half = NORMAL_95 * numbers.std(ddof=1) / np.sqrt(len(numbers))
    covering = sum(value.interval is not None and value.interval[0] <= 0.5 <= value.interval[1] for value in values)
    return {
        "tables": len(values),
        "mean": round(float(numbers.mean()), 4),
        "interval of the mean": [round(float(numbers.mean() + sign * half), 4) for sign in (-1, 1)],
        "median": round(float(np.median(numbers)), 4),
        "intervals that hold 0.5": covering,
    }


def main() -> int:
    """Print results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("records", "noise"))
    parser.add_argument("--seeds", type=int, help="default: 3 for records, 20 for noise")
    args = parser.parse_args()
    run, default = (run_records, 3) if args.what == "records" else (run_noise, 20)
    print(json.dumps(run(args.seeds or default), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
