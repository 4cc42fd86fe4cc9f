"""Measures whether the confidence intervals of `duplus survival evaluate` cover what they claim to, by simulation.

Each setting draws data sets whose hazard depends on two exchangeable groups of covariates. Cox regression is
cross-validated on each group (five folds, three seeds, as `evaluate` does), with the package's own functions:

- coverage: share of 95 % intervals that contain the expected score, that of a new data set and its models, estimated as
  the mean over all data sets;
- type-I error: share of paired differences between the two groups, truly 0, whose interval excludes 0.

Both are given for the intervals of the package and for intervals that reflect the sampling of evaluated patients alone,
with Monte Carlo standard errors. Two seeded runs of the same number of data sets give the same result.

Example:
  python benchmarks/interval_coverage.py --repeats 1000 > interval_coverage.json
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.cross_validation import (
    CrossValidation,
    MethodResult,
    choose_times,
    make_task,
    sum_up,
)
from duplus_nnunet.survival.evaluation.intervals import SCORES, Estimate, average_estimates, is_share
from duplus_nnunet.survival.models.baselines import predict_cox
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

FOLDS, SEEDS = 5, (0, 1, 2)
# Standard deviation of the log hazard, and mean time to the event of an average patient (days).
SPREAD, MEAN_DAYS = 1.2, 1000.0
GROUPS = ("a", "b")
HARRELL = "Harrell's C"
HORIZON_QUANTILE = 0.6  # of the event times


@dataclass(frozen=True)
class Setting:
    """Size of the data sets of a simulation.

    Attributes:
        name: For the result.
        patients: Number of patients.
        parameters: Covariates of each group, one parameter each.
        censoring: Rate of censoring, relative to the mean rate of events.
    """

    name: str
    patients: int
    parameters: int
    censoring: float


SETTINGS = (
    Setting("100 patients, 52 events, 3 parameters", 100, 3, 0.9),
    Setting("60 patients, 31 events, 10 parameters", 60, 10, 0.9),
    Setting("300 patients, 57 events, 12 parameters", 300, 12, 6.0),
)


def draw_records(setting: Setting, seed: int) -> list[Record]:
    """Draw the patients of one data set."""
    rng = np.random.default_rng([seed, setting.patients])
    x = rng.normal(size=(setting.patients, len(GROUPS) * setting.parameters))
    hazard = np.exp(SPREAD * x.sum(1) / math.sqrt(x.shape[1]))
    event = rng.exponential(MEAN_DAYS / hazard)
    censoring = rng.exponential(MEAN_DAYS / setting.censoring, setting.patients)
    names = [f"{group}{number}" for group in GROUPS for number in range(setting.parameters)]
    return [
        Record(
            row + 1, f"p{row:03d}", "", float(min(event[row], censoring[row])),
            SEEN if event[row] <= censoring[row] else CENSORED, 0.0,
            dict(zip(names, map(float, x[row]), strict=True)),
        )
        for row in range(setting.patients)
    ]  # fmt: skip


def make_schema(setting: Setting, group: str) -> ClinicalSchema:
    """Return the schema that has the covariates of one group."""
    covariates = {f"{group}{number}": {"type": "numeric"} for number in range(setting.parameters)}
    event = {"column": "event", "seen": [1], "censored": [0]}
    return ClinicalSchema.model_validate(
        {"patient": "patient", "time": {"column": "time"}, "event": event, "covariates": covariates}
    )


def estimate(records: list[Record], schema: ClinicalSchema) -> dict[str, Estimate]:
    """Cross-validate Cox regression, as a study does."""
    outcome, seeds = read_outcome(records), []
    horizon = float(np.quantile(outcome.time[outcome.event], HORIZON_QUANTILE))
    for seed in SEEDS:
        folds = make_folds(records, FOLDS, seed)
        times = choose_times(outcome, folds, [horizon])
        cv = CrossValidation(records, outcome, schema, folds, [None] * FOLDS, seed, times, SurvivalSettings())
        sums = [sum_up(cv, fold, predict_cox(make_task(cv, number))) for number, fold in enumerate(folds)]
        scores = {score: [one[score] for one in sums] for score in sums[0]}
        seeds.append(MethodResult(scores, (), ()).estimate(folds, len(records), cv.ratio))
    return {score: average_estimates([one[score] for one in seeds]) for score in seeds[0] if score in SCORES}


def list_intervals(estimate: Estimate, share: bool) -> Iterator[tuple[str, tuple[float, float]]]:
    """List the intervals of a score by both methods; an interval that is not defined covers everything."""
    for name, one in (("package", estimate), ("evaluated patients alone", replace(estimate, ratio=0.0))):
        yield name, one.summarise(share).interval or (-math.inf, math.inf)


def simulate(setting: Setting, repeats: int, seed: int) -> dict[str, Any]:
    """Simulate one setting."""
    values: dict[str, list[float]] = {}
    intervals: dict[tuple[str, str], list[tuple[float, float]]] = {}
    differences: dict[tuple[str, str], list[bool]] = {}
    events = []
    for number in range(repeats):
        records = draw_records(setting, seed + number)
        events.append(sum(record.event == SEEN for record in records))
        first, second = (estimate(records, make_schema(setting, group)) for group in GROUPS)
        for score, own in first.items():
            for one in (own, second[score]):
                values.setdefault(score, []).append(one.value)
                for method, interval in list_intervals(one, is_share(score)):
                    intervals.setdefault((score, method), []).append(interval)
            for method, (low, high) in list_intervals(own.subtract(second[score]), share=False):
                differences.setdefault((score, method), []).append(not low <= 0 <= high)
    return {
        "patients": setting.patients,
        "parameters": setting.parameters,
        "mean events": round(float(np.mean(events)), 1),
        "data sets": repeats,
        "scores": {score: summarise(score, values[score], intervals, differences) for score in values},
    }


def summarise(
    score: str,
    values: list[float],
    intervals: dict[tuple[str, str], list[tuple[float, float]]],
    differences: dict[tuple[str, str], list[bool]],
) -> dict[str, Any]:
    """Return coverage, type-I error and mean width of the intervals of one score."""
    expected = float(np.mean(values))
    result: dict[str, Any] = {"expected": round(expected, 4)}
    for method in ("package", "evaluated patients alone"):
        ends = np.array(intervals[score, method])
        covered = (ends[:, 0] <= expected) & (expected <= ends[:, 1])
        # The two groups of a data set are not independent: the error is that of the means of data sets.
        result[method] = {
            "coverage": summarise_share(covered.reshape(-1, len(GROUPS)).mean(1)),
            "type-I error": summarise_share(np.array(differences[score, method], float)),
            "mean width": round(float((ends[:, 1] - ends[:, 0]).mean()), 4),
        }
    return result


def summarise_share(values: Any) -> dict[str, float]:
    """Return a mean with its Monte Carlo standard error."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return {"value": round(float(np.mean(values)), 4), "standard error": round(error, 4)}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="data sets of each setting (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first data set (default: %(default)s)")
    args = parser.parse_args()
    results = {}
    for setting in SETTINGS:
        start = time.process_time()
        results[setting.name] = simulate(setting, args.repeats, args.seed)
        print(f"{setting.name}: {time.process_time() - start:.0f} s", file=sys.stderr)
    print(json.dumps({"folds": FOLDS, "seeds": len(SEEDS), "settings": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
