"""How large targets are in training cases."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.data.volume_ranges import VolumeRange, read_volume_ranges, summarise_volumes
from duplus_nnunet.errors import PlansError
from duplus_nnunet.planners.survey import survey_case

from ..partial_plans import make_plans
from ..tiny_planning import plan_again, prepare_planning

SOURCES = {
    "A": Source("Dataset001_A", "ct", ("liver", "kidneys"), ("CT",)),
    "B": Source("Dataset002_B", "mr", ("liver",), ("MR",)),
}
BOTH = ("liver", "kidneys")


def summarise(**cases: Case) -> dict[str, dict[str, dict[str, float]]]:
    volumes = {name: {0: 9000.0, 1: 100.0 + 10 * number, 2: 5.0, 3: 6.0} for number, name in enumerate(cases)}
    return summarise_volumes(CaseTable(SOURCES, cases), volumes, {"liver": {1}, "kidneys": {2, 3}})


def test_volumes_are_those_of_each_context() -> None:
    found = summarise(a=Case("A", "a", BOTH, BOTH), b=Case("B", "b", ("liver",), ("liver",)))
    assert found["ct"]["liver"]["max"] == 100
    assert found["mr"]["liver"]["max"] == 110
    assert "kidneys" not in found["mr"]


def test_a_target_of_several_values_is_as_large_as_all_of_them() -> None:
    assert summarise(a=Case("A", "a", BOTH, BOTH))["ct"]["kidneys"]["p99"] == 11


def test_cases_where_a_target_is_not_annotated_do_not_count() -> None:
    cases = {"a": Case("A", "a", BOTH, BOTH), "b": Case("A", "b", ("kidneys",), ("kidneys",))}
    assert summarise(**cases)["ct"]["liver"] == {"min": 100, "p1": 100, "p99": 100, "max": 100, "cases": 1}


def test_cases_where_a_target_is_absent_do_not_count() -> None:
    table = CaseTable(SOURCES, {"a": Case("A", "a", BOTH, ("liver",))})
    assert list(summarise_volumes(table, {"a": {1: 2.0}}, {"liver": {1}, "kidneys": {2}})["ct"]) == ["liver"]


def test_percentiles_lie_inside_the_extremes() -> None:
    cases = {f"c{number}": Case("A", str(number), BOTH, BOTH) for number in range(11)}
    assert summarise(**cases)["ct"]["liver"] == {"min": 100, "p1": 101, "p99": 199, "max": 200, "cases": 11}


def test_ranges_are_read_from_plans_and_older_plans_have_none() -> None:
    plans = make_plans()
    assert read_volume_ranges(plans, "ct") == {}
    plans["duplus"]["contexts"]["ct"]["volumes"] = summarise(a=Case("A", "a", BOTH, BOTH))["ct"]
    assert read_volume_ranges(plans, "ct")["liver"] == VolumeRange(100, 100, 100, 100, 1)


def test_ranges_that_are_no_numbers_are_named() -> None:
    plans = make_plans()
    plans["duplus"]["contexts"]["ct"]["volumes"] = {"liver": {"min": 1, "p1": 1, "p99": "much", "max": 3, "cases": 1}}
    with pytest.raises(PlansError, match=r"duplus\.contexts\.ct\.volumes\.liver\.p99"):
        read_volume_ranges(plans, "ct")


def survey(raw: Path, case: str) -> Any:
    return survey_case(
        [str(raw / "imagesTr" / f"{case}_0000.nii.gz")], str(raw / "labelsTr" / f"{case}.nii.gz"), SimpleITKIO, 9
    )


def test_a_survey_measures_each_label_in_millilitres(write_raw: Callable[..., Path]) -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[:, 0, 0] = 1
    found = survey(write_raw("Dataset001_A", {"a": labels}), "a")
    voxel = 0.7 * 0.8 * 2.5 / 1000
    assert found.volumes == pytest.approx({0: 116 * voxel, 1: 4 * voxel}, rel=1e-6)


def test_plans_hold_the_ranges_of_their_cases(
    write_raw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_planning(write_raw, tmp_path / "nnUNet_preprocessed", monkeypatch)
    context = plan_again(folder)["duplus"]["default_context"]
    volume = pytest.approx(256 * 0.7 * 0.8 * 2.5 / 1000, abs=1e-4)
    found = read_volume_ranges(PlansManager(str(folder / "DuPLUSPlans.json")).plans, context)
    assert asdict(found["liver"]) == {"min": volume, "p1": volume, "p99": volume, "max": volume, "cases": 1}
