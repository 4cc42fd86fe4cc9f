"""A planning for a trained model ends with the command lines to type."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.adaptation.base import Base
from duplus_nnunet.errors import PlansError
from duplus_nnunet.planners import entry
from duplus_nnunet.planners.preprocessing_record import write_record

from ..partial_plans import make_plans
from .stock_models import make_configuration

PLANS = {"configurations": {"3d_fullres": {}, "3d_lowres": {}}}
BASE = Base("Dataset001/model", PLANS, {}, checkpoint=Path("/models/fold_0/checkpoint_final.pth"))
FULL = "3d_fullres"
LORA = "-tr DuPLUSLoRATrainer -p {} -pretrained_weights /models/fold_0/checkpoint_final.pth"


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a planning of which nothing is left but its options; returns the printed lines, and those on stderr."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    monkeypatch.setattr(entry, "_check", lambda options: None)
    monkeypatch.setattr(entry, "read_planning_base", lambda folder: BASE)

    def run(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["plan", "--from-model", "M", "-pl", "DuPLUSPlanner", *words])
        entry.plan(lambda: None, True)
        printed = capsys.readouterr()
        return [line.strip() for line in printed.out.splitlines() if line.startswith("  ")] + printed.err.splitlines()

    return run


def test_the_training_of_each_dataset_is_written(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Dataset007_A", "Dataset008_B"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(entry, "is_preprocessed", lambda *words: True)
    lora = LORA.format("DuPLUSPlans")
    assert plan("-d", "7", "8") == [f"nnUNetv2_train {number} 3d_fullres 0 {lora}" for number in (7, 8)]


@pytest.mark.parametrize(("spacing", "lines"), [([3.0, 1.5, 1.25], 1), ([3.0, 1.5, 1.5], 2)])
def test_preprocessing_is_named_where_images_were_made_by_other_plans(
    plan: Any, tmp_path: Path, spacing: list[float], lines: int
) -> None:
    plans = {**make_plans(), "image_reader_writer": "SimpleITKIO"}
    values = {**make_configuration(), "data_identifier": "DuPLUSPlans_3d_fullres"}
    write_record(
        tmp_path / "Dataset007_A" / "DuPLUSPlans_3d_fullres", {**plans, "configurations": {"3d_fullres": values}}, FULL
    )
    plans["configurations"] = {"3d_fullres": {**values, "spacing": spacing}}
    (tmp_path / "Dataset007_A" / "DuPLUSPlans.json").write_text(json.dumps(plans))
    assert [line.split()[0] for line in plan("-d", "7")] == ["nnUNetv2_preprocess", "nnUNetv2_train"][-lines:]


def test_preprocessing_is_named_where_it_is_missing(plan: Any) -> None:
    first, second = plan("-d", "7", "-c", "3d_lowres", "-overwrite_plans_name", "Mine")
    assert first == "nnUNetv2_preprocess -d 7 -plans_name Mine -c 3d_lowres"
    assert second == f"nnUNetv2_train 7 3d_lowres 0 {LORA.format('Mine')}"


def test_a_planner_of_the_users_own_is_left_alone(plan: Any) -> None:
    assert plan("-d", "7", "-pl", "TheirPlanner") == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-gpu_memory_target", "24"), "-gpu_memory_target 24"),
        (("-preprocessor_name", "Theirs"), "-preprocessor_name Theirs"),
        (("-c", "3d_fullres", "3d_high"), "'3d_high'.*'3d_lowres', '3d_fullres'"),
    ],
)
def test_an_option_that_the_model_decides_is_refused(plan: Any, words: tuple[str, ...], named: str) -> None:
    with pytest.raises(PlansError, match=rf"{named}.*Dataset001/model"):
        plan("-d", "7", *words)


SPACING = ("-overwrite_target_spacing", "1", "1.5", "1")


def test_a_spacing_is_refused_where_all_contexts_have_the_models(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "read_planning_base", lambda folder: replace(BASE, shares_spacing=True))
    with pytest.raises(PlansError, match=r"-overwrite_target_spacing 1 1\.5 1.*Dataset001/model"):
        plan("-d", "7", *SPACING)


@pytest.mark.parametrize("words", [SPACING, ("-pl", "DuPLUSPlannerResEncL")])
def test_an_option_that_counts_in_part_is_mentioned(plan: Any, words: tuple[str, ...]) -> None:
    note = plan("-d", "7", *words)[-1]
    assert note.startswith(f"note: {words[0]}")
