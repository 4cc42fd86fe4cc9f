"""Correction of nnU-Net's summary.json."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.evaluation.evaluate_predictions import load_summary_json, save_summary_json

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.summary import correct_summary

TARGETS = ("liver", "spleen", "kidneys", "unseen")
REGIONS = {"liver": (1,), "spleen": (2,), "kidneys": (3, 4), "unseen": (5,)}
TABLE = CaseTable(
    {"one": Source("one", "ct", TARGETS, ("CT",))},
    {
        "a": Case("one", "a", ("liver", "kidneys"), ("liver",)),
        "b": Case("one", "b", ("liver", "spleen"), ("liver", "spleen")),
    },
)


def make_metrics(dice: float) -> dict[str, float]:
    return {"Dice": dice, "IoU": dice, "FP": 7, "TP": 1, "FN": 2, "TN": 3, "n_pred": 8, "n_ref": 3}


def write(folder: Path, **cases: dict[Any, float]) -> Path:
    """Write a summary as nnU-Net does, from the Dice of each key in each case."""
    rows = [
        {
            "prediction_file": f"/p/{name}.nii.gz",
            "reference_file": f"/r/{name}.nii.gz",
            "metrics": {key: make_metrics(value) for key, value in dice.items()},
        }
        for name, dice in cases.items()
    ]
    means = {key: make_metrics(math.nan) for key in next(iter(cases.values()))}
    summary = {"metric_per_case": rows, "mean": means, "foreground_mean": make_metrics(math.nan)}
    save_summary_json(summary, str(folder / "summary.json"))
    return folder / "summary.json"


@pytest.fixture
def summary(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        a={1: 0.8, 2: 0.0, (3, 4): 0.5, 5: math.nan},
        b={1: 0.6, 2: 0.9, (3, 4): 0.0, 5: 0.0},
    )


def test_what_is_not_annotated_has_no_value(summary: Path) -> None:
    correct_summary(summary, REGIONS, ".nii.gz", TABLE)
    first, second = (case["metrics"] for case in load_summary_json(str(summary))["metric_per_case"])
    assert all(math.isnan(value) for value in first[2].values())
    assert all(math.isnan(value) for value in second[(3, 4)].values())
    assert first[1] == make_metrics(0.8)
    assert first[(3, 4)] == make_metrics(0.5)


def test_means_are_over_annotated_cases(summary: Path) -> None:
    correct_summary(summary, REGIONS, ".nii.gz", TABLE)
    found = load_summary_json(str(summary))
    assert {key: values["Dice"] for key, values in found["mean"].items() if key != 5} == pytest.approx(
        {1: 0.7, 2: 0.9, (3, 4): 0.5}
    )
    assert found["foreground_mean"]["Dice"] == pytest.approx(0.7)
    assert found["foreground_mean"]["FP"] == pytest.approx(7)


def test_target_that_is_annotated_nowhere_does_not_spoil_the_mean(summary: Path) -> None:
    correct_summary(summary, REGIONS, ".nii.gz", TABLE)
    assert math.isnan(load_summary_json(str(summary))["mean"][5]["Dice"])
    assert not math.isnan(load_summary_json(str(summary))["foreground_mean"]["Dice"])


def test_form_and_keys_stay_nnunets(summary: Path) -> None:
    before = json.loads(summary.read_text())
    correct_summary(summary, REGIONS, ".nii.gz", TABLE)
    after = json.loads(summary.read_text())
    assert list(after) == list(before)
    assert list(after["mean"]) == list(before["mean"]) == ["(3, 4)", "1", "2", "5"]
    assert [list(case["metrics"]) for case in after["metric_per_case"]] == [["(3, 4)", "1", "2", "5"]] * 2
    assert [file.name for file in summary.parent.iterdir()] == ["summary.json"]


def test_correcting_again_changes_nothing(summary: Path) -> None:
    correct_summary(summary, REGIONS, ".nii.gz", TABLE)
    once = summary.read_text()
    correct_summary(summary, REGIONS, ".nii.gz", TABLE)
    assert summary.read_text() == once


def test_order_of_a_regions_values_does_not_matter(summary: Path) -> None:
    correct_summary(summary, REGIONS | {"kidneys": (4, 3)}, ".nii.gz", TABLE)
    assert math.isnan(load_summary_json(str(summary))["metric_per_case"][1]["metrics"][(3, 4)]["Dice"])


def test_label_that_is_no_target_stays(tmp_path: Path) -> None:
    file = write(tmp_path, a={1: 0.8, 99: 0.3})
    correct_summary(file, REGIONS, ".nii.gz", TABLE)
    assert load_summary_json(str(file))["mean"][99]["Dice"] == 0.3


def test_case_that_is_not_in_the_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'zz'"):
        correct_summary(write(tmp_path, zz={1: 0.8}), REGIONS, ".nii.gz", TABLE)


@pytest.mark.parametrize("text", ["no json", "{}", '{"mean": {}, "metric_per_case": [{}]}'])
def test_another_file_is_refused_and_stays(text: str, tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"summary\.json"):
        correct_summary(file, REGIONS, ".nii.gz", TABLE)
    assert file.read_text() == text
