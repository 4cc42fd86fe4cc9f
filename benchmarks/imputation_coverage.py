"""Measures whether intervals of hazard ratios that are pooled over multiple imputations cover the true ones.

Each data set has two numbers and a category with known log hazard ratios. The first number is missing depending on the
second, which is known; the category is missing by chance. Imputation, Cox regression and pooling are the package's own.
Beside the pooled estimates stand those of the patients without missing values.

Example:
  python benchmarks/imputation_coverage.py --repeats 200 > imputation_coverage.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from duplus_nnunet.survival.evaluation.hazard_ratios import fit_cox
from duplus_nnunet.survival.evaluation.rubin import pool_imputations
from duplus_nnunet.survival.records.imputation import impute
from duplus_nnunet.survival.records.outcome import Numbers, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

PATIENTS, IMPUTATIONS = 200, 10
TRUE = {"a": 0.7, "b": -0.4, "c": 0.5}
# Normal quantile of 95 % intervals, for patients without missing values.
QUANTILE = 1.96
SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "patient",
        "time": {"column": "time"},
        "event": {"column": "event", "seen": ["1"], "censored": ["0"]},
        "covariates": {"a": {"type": "numeric"}, "b": {"type": "numeric"}, "c": {"type": "categorical"}},
    }
)


def draw(rng: np.random.Generator) -> list[Record]:
    """Draw patients, of whom about 40 % lack the number `a`, more often if `b` is high, and 30 % the category `c`."""
    b = rng.normal(size=PATIENTS)
    a = 0.6 * b + 0.8 * rng.normal(size=PATIENTS)
    c = rng.random(PATIENTS) < 1 / (1 + np.exp(-a))
    event = rng.exponential(np.exp(-(TRUE["a"] * a + TRUE["b"] * b + TRUE["c"] * c)))
    censoring = rng.exponential(2.0, PATIENTS)
    lacks_a = rng.random(PATIENTS) < 1 / (1 + np.exp(0.5 - b))
    lacks_c = rng.random(PATIENTS) < 0.3
    return [
        Record(
            row=row + 1,
            patient=f"p{row}",
            centre="",
            time=float(100 * min(event[row], censoring[row]) + 1e-6),
            event=SEEN if event[row] <= censoring[row] else CENSORED,
            entry=0.0,
            values={
                "a": None if lacks_a[row] else float(a[row]),
                "b": float(b[row]),
                "c": None if lacks_c[row] else "ny"[int(c[row])],
            },
        )
        for row in range(PATIENTS)
    ]


def encode(records: Sequence[Record]) -> Numbers:
    """Return the covariates of records without missing values, (N, 3)."""
    return np.array([[each.values["a"], each.values["b"], each.values["c"] == "y"] for each in records], np.float64)


def measure(seed: int) -> dict[str, Numbers]:
    """Draw a data set and estimate the log hazard ratios, each (3)."""
    records = draw(np.random.default_rng(seed))
    outcome = read_outcome(records)
    imputations = impute(records, (), SCHEMA, IMPUTATIONS, seed)
    fits = [fit_cox(encode(imputation.train), outcome) for imputation in imputations]
    pooled = pool_imputations(np.array([fit[0] for fit in fits]), np.array([fit[1] for fit in fits]))
    known = [record for record in records if None not in record.values.values()]
    alone = fit_cox(encode(known), read_outcome(known))
    truth = np.array(list(TRUE.values()))
    return {
        "pooled": pooled.values,
        "standard error": pooled.errors,
        "covered": np.abs(pooled.values - truth) <= pooled.half_widths,
        "complete cases": np.asarray(alone[0]),
        "covered by complete cases": np.abs(alone[0] - truth) <= QUANTILE * np.asarray(alone[1]),
    }


def report(repeats: int) -> dict[str, Any]:
    """Return the means over data sets, by covariate."""
    rows = []
    for seed in range(repeats):
        rows.append(measure(seed))
        print(f"{seed + 1} of {repeats}", file=sys.stderr)
    means = {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
    spread = np.std([row["pooled"] for row in rows], axis=0, ddof=1)
    return {
        "data sets": repeats,
        "patients": PATIENTS,
        "imputations": IMPUTATIONS,
        "covariates": {
            name: {
                "true": true,
                **{key: round(float(values[place]), 4) for key, values in means.items()},
                "standard deviation of pooled": round(float(spread[place]), 4),
            }
            for place, (name, true) in enumerate(TRUE.items())
        },
    }


def main() -> int:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="number of data sets (default: %(default)s)")
    args = parser.parse_args()
    if args.repeats < 2:
        parser.error(f"--repeats is {args.repeats}; expected 2 or more")
    print(json.dumps(report(args.repeats), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
