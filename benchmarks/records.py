"""Compares methods that predict prognosis from clinical records on twelve public tables.

Every method is cross-validated on the same folds, redrawn for each seed, by the code of `duplus survival evaluate`. A
result is written to OUTPUT/TABLE--METHOD.json and not computed again; `--jobs` processes (one or two) share the work.
Printed are a line for each table, with Harrell's concordance, its 95 % interval and the calibration slope of each
method at the last horizon, mean ranks by concordance, and the largest deficit to the best method of a table.

Tables: scikit-survival's gbsg2, whas500, veterans' lung cancer, flchain, aids (two endpoints), bmt and cgvhd, with
competing events; lifelines' rossi, lung and larynx (pip install lifelines); a CSV file of the sarcoma patients. The
settings of the network were chosen on gbsg2, veterans, aids, larynx and sarcoma; the other tables confirm them.

Example:
  python benchmarks/records.py OUTPUT --sarcoma sarcoma_clinical.csv --seeds 3 > records.json
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Before torch is imported: two processes do not share their threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from duplus_nnunet.files import write_text
from duplus_nnunet.survival.evaluation.intervals import NULL, Value
from duplus_nnunet.survival.evaluation.study import Design, run_study
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

METHODS = ("logistic hazard", "Cox", "Coxnet", "random survival forest")
CONCORDANCE = "Harrell's C"
# Tables on which the settings of the network were chosen.
TUNED = ("gbsg2", "veterans", "aids", "larynx", "sarcoma")
# Levels of ordinal columns, lowest first; the tables do not give their order.
ORDERS = {"tgrade": ["I", "II", "III"]}
# Columns that are not covariates: known after the event only, or the code of a hospital.
OMITTED = {"chapter", "inst"}
HALF_A_DAY = 0.5
DAYS = {"years": 365.25, "weeks": 7.0, "days": 1.0}


@dataclass(frozen=True)
class Source:
    """A data frame of covariates, and outcomes.

    Attributes:
        covariates: A data frame of N rows.
        time: Days to the event or to the end of follow-up, (N).
        event: 0: censored, 1: the event, others: a competing event, (N).
    """

    covariates: Any
    time: Any
    event: Any


def from_sksurv(name: str, unit: str = "days", **options: str) -> Source:
    """Load a table of scikit-survival, whose times have a unit."""
    from sksurv import datasets

    table, outcome = getattr(datasets, f"load_{name}")(**options)
    event, days = outcome.dtype.names
    return Source(table, outcome[days] * DAYS[unit], outcome[event].astype(int))


def from_lifelines(name: str, times: str, event: str, unit: str = "days") -> Source:
    """Load a table of lifelines, whose times have a unit."""
    from lifelines import datasets

    table = getattr(datasets, f"load_{name}")()
    days = table[times].to_numpy() * DAYS[unit]
    return Source(table.drop(columns=[times, event]), days, table[event].to_numpy().astype(int))


def from_csv(file: Path | None, days: str, event: str) -> Source:
    """Load a CSV file, whose first column is the patient."""
    from pandas import read_csv

    if file is None:
        sys.exit("The table of the sarcoma patients is a file: give it by --sarcoma, or name other tables by --tables.")
    table = read_csv(file, index_col=0)
    return Source(table.drop(columns=[days, event]), table[days].to_numpy(), table[event].to_numpy().astype(int))


def list_sources(sarcoma: Path | None) -> dict[str, Callable[[], Source]]:
    """List the tables by name."""
    return {
        "gbsg2": lambda: from_sksurv("gbsg2"),
        "whas500": lambda: from_sksurv("whas500"),
        "veterans": lambda: from_sksurv("veterans_lung_cancer"),
        "flchain": lambda: from_sksurv("flchain"),
        "aids": lambda: from_sksurv("aids", endpoint="aids"),
        "aids death": lambda: from_sksurv("aids", endpoint="death"),
        "bmt": lambda: from_sksurv("bmt"),
        "cgvhd": lambda: from_sksurv("cgvhd", "years"),
        "rossi": lambda: from_lifelines("rossi", "week", "arrest", "weeks"),
        "lung": lambda: from_lifelines("lung", "time", "status"),
        "larynx": lambda: from_lifelines("larynx", "time", "death", "years"),
        "sarcoma": lambda: from_csv(sarcoma, "time_rfs", "event_relapse"),
    }


def read_source(source: Source) -> tuple[list[Record], ClinicalSchema]:
    """Convert a table to records."""
    table = source.covariates.drop(columns=[name for name in source.covariates.columns if name in OMITTED])
    forms = {name: find_form(name, table[name]) for name in table.columns}
    rows = table.to_dict("records")
    records = []
    for number, (row, days, code) in enumerate(zip(rows, source.time, source.event, strict=True)):
        event = {0: CENSORED, 1: SEEN}.get(int(code), str(code))
        values = {name: read(row[name], form) for name, form in forms.items()}
        # Times of 0 would mean no follow-up; half a day keeps their order before all others.
        records.append(Record(number + 1, f"p{number:05d}", "", max(HALF_A_DAY, float(days)), event, 0.0, values))
    return records, make_schema(forms)


def find_form(name: str, column: Any) -> dict[str, Any]:
    """Return the covariate form of a column of a data frame."""
    if name in ORDERS:
        return {"type": "ordinal", "order": ORDERS[name]}
    return {"type": "numeric"} if column.dtype.kind in "if" else {"type": "categorical"}


def read(value: Any, form: Mapping[str, Any]) -> float | str | None:
    """Return the value of a cell in the form of records; None if it is missing."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if form["type"] == "ordinal":
        return float(form["order"].index(str(value)))
    return float(value) if form["type"] == "numeric" else str(value)


def make_schema(covariates: Mapping[str, Mapping[str, Any]]) -> ClinicalSchema:
    """Return the schema of a table with these covariates."""
    event = {"column": "event", "seen": [1], "censored": [0]}
    return ClinicalSchema.model_validate(
        {"patient": "patient", "time": {"column": "time"}, "event": event, "covariates": covariates}
    )


def to_plain(value: Value) -> dict[str, Any]:
    """Return a value as plain data."""
    return {"value": round(value.value, 4), "interval": value.interval and [round(end, 4) for end in value.interval]}


def score(records: Sequence[Record], schema: ClinicalSchema, method: str, seeds: int) -> dict[str, Any]:
    """Cross-validate one method."""
    start = time.process_time()
    study = run_study(records, schema, Design(seeds=tuple(range(seeds)), methods=(method, NULL)))
    last = study.calibration[method][-1]
    return {
        "patients": len(records),
        "events": sum(record.event == SEEN for record in records),
        "folds": Design.folds,
        "seeds": seeds,
        **{name: to_plain(value) for name, value in study.scores[method].items()},
        "horizons": list(study.horizons),
        "slope at the last horizon": to_plain(last.slope),
        "seconds": round(time.process_time() - start, 1),
    }


@dataclass(frozen=True)
class Job:
    """One table and one method; the result is written to `file`."""

    table: str
    method: str
    seeds: int
    file: Path
    sarcoma: Path | None

    def run(self) -> str:
        """Compute and write the result."""
        records, schema = read_source(list_sources(self.sarcoma)[self.table]())
        result = score(records, schema, self.method, self.seeds)
        write_text(self.file, json.dumps(result, indent=1))
        return f"{self.table}, {self.method}: {result[CONCORDANCE]['value']:.3f} in {result['seconds']} s"


def summarise(results: Mapping[str, Mapping[str, Mapping[str, Any]]], methods: Sequence[str]) -> dict[str, Any]:
    """Return mean ranks (1 is best; ties share their ranks) and the largest deficit to the best method of a table.

    Args:
        results: By table and method; tables without a result of each method are left out.
        methods: The methods that are compared.
    """
    from scipy.stats import rankdata

    whole = {table: of for table, of in results.items() if all(method in of for method in methods)}
    if not whole:
        return {}
    values = np.array([[of[method][CONCORDANCE]["value"] for method in methods] for of in whole.values()])
    ranks, deficits = rankdata(-values, axis=1), values.max(1, keepdims=True) - values
    groups = {"all": [*whole], "chosen on": [name for name in whole if name in TUNED]}
    groups["confirmed on"] = [name for name in whole if name not in TUNED]
    tables, summary = [*whole], {}
    for group, names in groups.items():
        rows = [tables.index(name) for name in names]
        if rows:
            summary[group] = {
                method: {
                    "mean rank": round(float(ranks[rows, column].mean()), 2),
                    "mean concordance": round(float(values[rows, column].mean()), 4),
                    "largest deficit": round(float(deficits[rows, column].max()), 4),
                    "table": names[int(deficits[rows, column].argmax())],
                }
                for column, method in enumerate(methods)
            }
    return summary


def describe(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return a line for each table."""
    lines = []
    for table, of in results.items():
        cells = [f"{m} {r[CONCORDANCE]['value']:.3f} (slope {r['slope at the last horizon']['value']:.2f})"
                 for m, r in of.items()]  # fmt: skip
        lines.append(f"{table}: {', '.join(cells)}")
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, and print all results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder of the results")
    parser.add_argument("--tables", nargs="+", choices=[*list_sources(None)], default=[*list_sources(None)])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="draws of the folds (default: %(default)s)")
    parser.add_argument("--sarcoma", type=Path, metavar="FILE", help="CSV file of the sarcoma patients")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="processes (default: %(default)s)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(table, method, args.seeds, args.output / f"{table}--{method}.json".replace(" ", "-"), args.sarcoma)
        for table in args.tables
        for method in args.methods
    ]
    missing = [job for job in jobs if not job.file.exists()]
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for line in pool.imap_unordered(Job.run, missing, chunksize=1):
            print(line, file=sys.stderr)
    results: dict[str, dict[str, Any]] = {}
    for job in jobs:
        results.setdefault(job.table, {})[job.method] = json.loads(job.file.read_text())
    print(describe(results), file=sys.stderr)
    print(json.dumps({"tables": results, "summary": summarise(results, args.methods)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
