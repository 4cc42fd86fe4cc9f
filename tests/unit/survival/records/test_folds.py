"""Folds by patient: stratified, independent of the order of rows, and checked."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.folds import Fold, check_folds, make_folds
from duplus_nnunet.survival.records.table import CENSORED, SEEN

from ..cohorts import make_records


@given(st.permutations(range(40)), st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_folds_are_of_patients_and_not_of_rows(order: list[int], seed: int) -> None:
    records = make_records(40)
    mixed = [records[row] for row in order]
    one, other = (
        [{table[row].patient for row in fold.test} for fold in make_folds(table, 5, seed)] for table in (records, mixed)
    )
    assert one == other
    assert set().union(*one) == {record.patient for record in records}
    assert sum(map(len, one)) == 40


def test_folds_share_events_and_centres() -> None:
    records = make_records(60)
    folds = make_folds(records, 5, 0)
    events = [sum(records[row].event == SEEN for row in fold.test) for fold in folds]
    assert max(events) - min(events) <= 1
    assert all(len({records[row].centre for row in fold.test}) == 2 for fold in folds)
    assert all(not set(fold.train) & set(fold.test) for fold in folds)
    with pytest.raises(DataError, match=r"5 folds.* 2 patients"):
        make_folds([replace(record, event=SEEN if n < 2 else CENSORED) for n, record in enumerate(records)], 5, 0)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([Fold((0, 1), (1,))], r"^1 patient.* p001"),
        ([Fold((0,), (1,)), Fold((0,), (1,))], r"^1 patient.* p001"),
        ([Fold((0,), ())], "held-out"),
        ([], "no fold"),
        ([Fold((0,), (9,))], r"\b9\b.* 4 records"),
    ],
)
def test_folds_that_are_not_a_valid_test_are_refused(folds: list[Fold], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_folds(make_records(4), folds)
