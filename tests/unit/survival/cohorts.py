"""Cohorts with a planted effect of age, and image features."""

import math

import numpy as np

from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "id",
        "time": {"column": "t"},
        "event": {"column": "e", "seen": [1], "censored": [0]},
        "covariates": {
            "age": {"type": "numeric"},
            "sex": {"type": "categorical"},
            "grade": {"type": "ordinal", "order": ["low", "mid", "high"]},
        },
    }
)


def make_records(count: int = 60, effect: float = 2.0, seed: int = 0) -> list[Record]:
    """Draw patients whose log-hazard grows with age by `effect` for each standard deviation."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        age = rng.normal()
        event, censoring = rng.exponential(400 * math.exp(-effect * age)), rng.exponential(800)
        values = {"age": 60 + 10 * age, "sex": "fm"[number % 2], "grade": float(rng.integers(3))}
        time = max(1.0, min(event, censoring))
        seen = SEEN if event <= censoring else CENSORED
        records.append(Record(number + 1, f"p{number:03d}", "AB"[number % 2], time, seen, 0.0, values))
    return records


def make_features(records: list[Record], names: tuple[str, ...] = ("x",)) -> FeatureTable:
    rows = {record.patient: np.array([record.row] * len(names), np.float32) for record in records}
    return FeatureTable(names, ("CT",) * len(names), ("pooled",) * len(names), rows)
