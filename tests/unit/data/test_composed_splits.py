"""Folds are by patient, balanced by source and reproducible."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.composing.splits import check_preprocessed, read_splits, split_cases
from duplus_nnunet.errors import DataError


def make_cases(*patients: tuple[str, str]) -> dict[str, Case]:
    """Make a case of each source and patient."""
    return {f"{source}_{patient}_{i}": Case(source, patient, (), ()) for i, (source, patient) in enumerate(patients)}


ALIKE = make_cases(*((source, f"p{i}") for source in "AB" for i in range(10)))


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("abcdefghij")), min_size=1), st.integers(2, 5))
def test_folds_part_patients_and_cover_all_cases(patients: list[tuple[str, str]], folds: int) -> None:
    cases = make_cases(*patients)
    if len({case.patient for case in cases.values()}) < folds:
        return
    splits = split_cases(cases, folds, 0)
    assert Counter(name for fold in splits for name in fold["val"]) == Counter(list(cases))
    for fold in splits:
        assert fold["val"]
        assert set(fold["train"]) | set(fold["val"]) == set(cases)
        assert not {cases[name].patient for name in fold["train"]} & {cases[name].patient for name in fold["val"]}


def test_every_source_is_spread_over_the_folds() -> None:
    patients = [("A", f"a{i}") for i in range(50)] + [("B", f"b{i}") for i in range(7)]
    for fold in split_cases(make_cases(*patients), 5, 0):
        counts = Counter(name[0] for name in fold["val"])
        assert counts["A"] == 10
        assert counts["B"] in (1, 2)


def test_a_seed_gives_the_same_folds_again_and_another_seed_others() -> None:
    assert split_cases(ALIKE, 5, 1) == split_cases(dict(reversed(ALIKE.items())), 5, 1)
    assert split_cases(ALIKE, 5, 1) != split_cases(ALIKE, 5, 2)


def test_fewer_patients_than_folds_are_an_error() -> None:
    with pytest.raises(DataError, match=r"1 patient.* 5 folds.*`folds: 2`"):
        split_cases(make_cases(("A", "p"), ("B", "p")), 5, 0)


def put(folder: Path, content: Any) -> Path:
    (folder / "splits_final.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "splits_final.json"


def test_a_split_of_the_user_is_taken(tmp_path: Path) -> None:
    splits = split_cases(ALIKE, 2, 0)
    assert read_splits(put(tmp_path, splits), ALIKE) == splits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{"train": ["A_p0_0"], "val": ["B_p0_10"]}],
            r"fold 0: .*'p0' .*train \(case 'A_p0_0'\) .*val \(case 'B_p0_10'\)",
        ),
        ([{"train": ["A_p0_0"], "val": ["A_p1_99"]}], r"fold 0: .*'A_p1_99' \(val\).* 'A_p1_"),
        ([{"train": ["A_p0_0", "A_p0_0"], "val": ["A_p1_1"]}], r"fold 0: 'A_p0_0' .*train"),
        ([{"train": [], "val": ["A_p1_1"]}], "list of folds"),
        ([{"train": ["A_p0_0"]}], "list of folds"),
        ({}, "list of folds"),
    ],
)
def test_a_wrong_split_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_splits(put(tmp_path, content), ALIKE)


def test_a_split_that_does_not_exist_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json .*`splits`"):
        read_splits(tmp_path / "none.json", ALIKE)


def test_another_split_beside_preprocessed_data_is_reported(tmp_path: Path) -> None:
    check_preprocessed(tmp_path, split_cases(ALIKE, 5, 0))
    put(tmp_path, split_cases(ALIKE, 5, 0))
    check_preprocessed(tmp_path, split_cases(ALIKE, 5, 0))
    with pytest.raises(DataError, match=r"splits_final\.json"):
        check_preprocessed(tmp_path, split_cases(ALIKE, 5, 1))
