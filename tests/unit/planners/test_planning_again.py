"""Planning a dataset again keeps what users edit in its plans, or says what it sets back."""

from collections.abc import Callable
from pathlib import Path

import pytest

from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.planners import planner as planners
from duplus_nnunet.settings import read_settings

from ..tiny_planning import plan_again, prepare_planning

FULL = "3d_fullres"


@pytest.fixture
def folder(write_raw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return prepare_planning(write_raw, tmp_path / "nnUNet_preprocessed", monkeypatch)


def test_settings_that_were_edited_are_kept_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = plan_again(folder)
    settings = plans["duplus"]["settings"]
    assert plan_again(folder) == plans
    assert "overwritten" not in capsys.readouterr().out
    settings |= {"seed": 3, "loss": {**settings["loss"], "reduction": "sum"}}
    assert plan_again(folder, plans)["duplus"]["settings"] == settings
    told = capsys.readouterr().out
    assert "kept: seed 3, loss.reduction 'sum'" in told


def test_a_setting_that_is_removed_gets_its_default(folder: Path) -> None:
    plans = plan_again(folder)
    del plans["duplus"]["settings"]["optimizer"]
    assert read_settings(plans).optimizer == "adamw"
    assert read_settings(plan_again(folder, plans)).optimizer == "adamw"


def test_plans_of_an_earlier_version_keep_its_training(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = plan_again(folder)
    del plans["duplus"]["settings_version"]
    for name in ("optimizer", "loss", "seed"):
        del plans["duplus"]["settings"][name]
    capsys.readouterr()
    again = read_settings(plan_again(folder, plans))
    assert (again.optimizer, again.loss.dice_share) == ("sgd", "annotated")
    told = capsys.readouterr().out
    assert all(f"{name} '{value}'" in told for name, value in (("optimizer", "sgd"), ("loss.dice_share", "annotated")))
    assert not any(name in told for name in ("text_adapter", "survival"))


def test_settings_that_cannot_be_kept_are_refused_before_images_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = plan_again(folder)
    monkeypatch.setattr(planners, "survey_dataset", None)
    plans["duplus"]["settings"]["epochs"] = 0
    with pytest.raises(PlansError, match=r"DuPLUSPlans\.json cannot be kept: settings\.epochs is 0"):
        plan_again(folder, plans)


def test_other_values_that_were_edited_are_planned_again_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = plan_again(folder)
    planned = plans["configurations"][FULL]["batch_size"]
    plans["configurations"][FULL] |= {"batch_size": 77, "patch_size": [8, 8, 8]}
    (source,) = plans["duplus"]["sources"].values()
    source["weight"] = 5.5
    again = plan_again(folder, plans)
    assert again["configurations"][FULL]["batch_size"] == planned
    assert next(iter(again["duplus"]["sources"].values()))["weight"] != 5.5
    told = capsys.readouterr().out
    assert "had 77" in told
    assert "patch_size is now [16, 16, 16], as planned; the plans that were overwritten had [8, 8, 8]" in told
    assert "had 5.5" in told


@pytest.mark.parametrize("key", ["base", "start"])
def test_plans_for_a_model_are_not_overwritten_by_plans_for_none(folder: Path, key: str) -> None:
    plans = plan_again(folder)
    plans["duplus"][key] = {"model": "Dataset009_Other/trainer"}
    with pytest.raises(PlansError, match="Dataset009_Other/trainer"):
        plan_again(folder, plans)


@pytest.mark.parametrize(
    ("text", "found"),
    [("[]", "list"), ("{", "not valid JSON"), ('{"duplus": {}, "configurations": 2}', "no configurations")],
)
def test_damaged_plans_are_refused_before_anything_is_computed(folder: Path, text: str, found: str) -> None:
    (folder / "DuPLUSPlans.json").write_text(text)
    with pytest.raises((ModelError, PlansError), match=found):
        plan_again(folder)


def test_damaged_sources_are_replaced(folder: Path) -> None:
    plans = plan_again(folder)
    damaged = {**plans, "duplus": {"sources": [1], "base": "x"}}
    assert plan_again(folder, damaged) == plans


@pytest.mark.parametrize("version", [1, 99, "abc", True, 2.0])
def test_settings_of_another_version_are_refused(folder: Path, version: object) -> None:
    plans = plan_again(folder)
    plans["duplus"]["settings_version"] = version
    with pytest.raises(PlansError, match="settings_version is"):
        plan_again(folder, plans)


def test_a_configuration_that_inherits_is_kept_and_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = plan_again(folder)
    plans["configurations"]["mine"] = {"inherits_from": FULL, "batch_size": 3}
    assert plan_again(folder, plans)["configurations"]["mine"] == plans["configurations"]["mine"]
    assert "mine: patch 16 x 16 x 16, batch size 3" in capsys.readouterr().out


def test_cases_are_named_as_in_their_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_again(folder)
    told = capsys.readouterr().err
    assert "'a', 'b'" in told
    assert "str_" not in told
