"""A concordance above 0.9 is called implausible, with the columns that carry it."""

from types import SimpleNamespace
from typing import Any

import pytest

from duplus_nnunet.survival.evaluation.implausible import note_implausible
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record


@pytest.mark.parametrize(("value", "count"), [(0.95, 1), (0.85, 0)])
def test_a_high_concordance_names_the_column_that_carries_it(value: float, count: int) -> None:
    records = [
        Record(
            n, f"p{n}", "", 100.0 - n, SEEN if n % 2 else CENSORED, 0.0, {"leak": float(n), "age": float(n * 7 % 11)}
        )
        for n in range(40)
    ]
    study: Any = SimpleNamespace(scores={"Cox": {"Harrell's C": SimpleNamespace(value=value)}})
    schema: Any = SimpleNamespace(covariates={"leak": None, "age": None})
    notes = note_implausible(study, records, schema)
    assert len(notes) == count
    assert all("'leak' (1.00)" in note and "'age'" not in note for note in notes)
