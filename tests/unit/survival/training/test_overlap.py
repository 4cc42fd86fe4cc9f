"""Training cases of the base, and their overlap with held-out patients."""

from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.training.base import judge_overlap
from duplus_nnunet.trainers.training_cases import (
    TrainingCases,
    continue_from,
    find_overlap,
    parse_base,
    read_training_cases,
    write_training_cases,
)

from .parts import make_clinic

BASE = TrainingCases("Dataset001_A", "0", ("a1", "a2"), ("g/ann", "g/bob"))


HELD = {"ann": ["c1", "g/ann"], "eve": ["c9", "g/eve"]}


def test_training_cases_come_back_as_they_were_written(tmp_path: Path) -> None:
    child = TrainingCases("Dataset002_B", "1", ("b1",), ("cid",), BASE)
    write_training_cases(tmp_path, child)
    assert read_training_cases(tmp_path) == child
    assert [one.dataset for one in child.lineage] == ["Dataset002_B", "Dataset001_A"]
    assert parse_base("unknown") == "unknown"
    assert read_training_cases(tmp_path / "elsewhere") == "unknown"


def test_a_damaged_file_is_not_treated_as_unknown(tmp_path: Path) -> None:
    (tmp_path / "training_cases.json").write_text('{"version": 1, "cases": 3}')
    with pytest.raises(DataError, match=r"training_cases\.json"):
        read_training_cases(tmp_path)


def test_a_training_continued_on_other_splits_has_the_cases_of_both() -> None:
    now = TrainingCases("Dataset001_A", "0", ("a3",), ("g/cid",))
    assert continue_from(BASE, now).cases == ("a1", "a2", "a3")
    assert not continue_from("unknown", now).is_known


def test_overlap_is_found_through_any_name_and_any_ancestor() -> None:
    assert find_overlap(BASE, HELD) == ["ann"]
    assert find_overlap(TrainingCases("B", "0", ("b1",), ("b1",), BASE), HELD) == ["ann"]
    assert find_overlap(TrainingCases("B", "0", ("c9",), ()), HELD) == ["eve"]
    assert find_overlap(TrainingCases("B", "0", ("c7",), ("zoe",)), HELD) == []


def test_overlap_is_refused_unless_allowed_and_then_reported() -> None:
    with pytest.raises(DataError, match=r"1 of 2 .*\(ann\)"):
        judge_overlap(BASE, HELD, allowed=False)
    assert "ann" in judge_overlap(BASE, HELD, allowed=True)[0]


@pytest.mark.parametrize("base", ["unknown", None, TrainingCases("B", "0", ("c7",), ("zoe",), "unknown")])
def test_unknown_training_cases_are_refused_too(base: Any) -> None:
    with pytest.raises(DataError, match=r"training_cases\.json"):
        judge_overlap(base, HELD, allowed=False)


def test_a_base_of_other_patients_is_accepted() -> None:
    assert judge_overlap(TrainingCases("B", "0", ("c7",), ("zoe",)), HELD, allowed=False) == []


def test_a_patient_is_found_in_the_cases_of_another_dataset() -> None:
    clinic = make_clinic("ann_ct", "bob_ct")
    base, held = TrainingCases("Dataset002_B", "0", ("ann_pet",), ("ann_pet",)), {"ann": ["ann_ct"]}
    assert find_overlap(base, held) == []
    with pytest.raises(DataError, match=r"1 of 1 .*\(ann\).* Dataset002_B"):
        judge_overlap(base, held, False, clinic, "Dataset001_A")
    assert judge_overlap(base, {"bob": ["bob_ct"]}, False, clinic, "Dataset001_A") == []


def test_cases_that_match_no_patient_are_reported() -> None:
    clinic, base = make_clinic("ann_ct"), TrainingCases("Dataset002_B", "0", ("scan7", "zoe_ct"), ("scan7", "zoe"))
    (note,) = judge_overlap(base, {"ann": ["ann_ct"]}, False, clinic, "Dataset001_A")
    assert "Dataset002_B: 2 of its 2 cases" in note
    assert judge_overlap(base, {"ann": ["ann_ct"]}, False, clinic, "Dataset002_B") == []
    some = TrainingCases("Dataset002_B", "0", ("scan7", "bob_pet"), ("scan7", "bob"), TrainingCases("C", "0", (), ()))
    (note,) = judge_overlap(some, {"ann": ["ann_ct"]}, False, make_clinic("ann_ct", "bob_ct"), "Dataset001_A")
    assert "Dataset002_B: 1 of its 2 cases" in note
