"""A training that continues says what has changed in its plans; the log gets a summary of plans."""

import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.settings import read_settings
from duplus_nnunet.trainers.resuming import describe_changes, list_changes, refuse_misfit, require_optimizer
from duplus_nnunet.trainers.starting import report_siblings

PLANS: dict[str, Any] = {
    "plans_name": "P",
    "configurations": {"3d": {"patch_size": [8, 8, 8], "batch_size": 2}, "low": {"patch_size": [4, 4, 4]}},
    "duplus": {"settings": {"epochs": 10}},
}


def test_changed_patch_and_epochs_are_listed_with_both_values() -> None:
    now = deepcopy(PLANS)
    now["configurations"]["3d"]["patch_size"] = [8, 8, 16]
    now["duplus"]["settings"]["epochs"] = 20
    changes = list_changes(PLANS, now, "3d")
    assert changes == ["patch_size [8, 8, 8] -> [8, 8, 16]", "duplus.settings.epochs 10 -> 20"]
    assert all(change in describe_changes(changes) for change in changes)


def test_other_configurations_and_nnunets_own_notes_are_not_compared() -> None:
    now = {**deepcopy(PLANS), "continue_training": True}
    now["configurations"]["low"]["patch_size"] = [2, 2, 2]
    now["configurations"]["3d"]["patch_size"] = (8, 8, 8)
    assert list_changes(PLANS, now, "3d") == []


def test_settings_that_a_version_left_out_are_no_change() -> None:
    older = {
        "epochs": 10, "iterations_per_epoch": 250, "validation_iterations": 50, "initial_learning_rate": 0.01,
        "save_every": 1, "paraphrase_probability": 0.25, "network": {},
    }  # fmt: skip
    before = {**deepcopy(PLANS), "duplus": {"version": 1, "settings": older}}
    completed = read_settings(before).to_dict()
    now = {**deepcopy(PLANS), "duplus": {"version": 1, "settings": completed, "settings_version": 3}}
    assert list_changes(before, now, "3d") == []
    now["duplus"]["settings"]["optimizer"] = "adamw"
    assert list_changes(before, now, "3d") == ["duplus.settings.optimizer 'sgd' -> 'adamw'"]


@pytest.mark.parametrize("error", [RuntimeError("Error(s):\n size mismatch"), KeyError("size mismatch")])
def test_a_checkpoint_that_does_not_fit_is_named(error: Exception) -> None:
    with pytest.raises(ModelError, match=r"c\.pth.*size mismatch"), refuse_misfit("c.pth"):
        raise error


@pytest.mark.parametrize(("trained", "named"), [(("fold_0",), []), (("fold_1",), ["fold_1"]), ((), [])])
def test_plans_of_other_folds_are_compared_before_they_are_replaced(
    tmp_path: Path, trained: tuple[str, ...], named: list[str]
) -> None:
    for name in trained:
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint_final.pth").touch()
    (tmp_path / "plans.json").write_text(json.dumps(PLANS))
    now = deepcopy(PLANS)
    now["configurations"]["3d"]["patch_size"] = [4, 8, 8]
    lines: list[str] = []
    trainer = SimpleNamespace(
        output_folder_base=str(tmp_path), output_folder=str(tmp_path / "fold_0"), configuration_name="3d",
        plans_manager=SimpleNamespace(plans=now), print_to_log_file=lines.append,
    )  # fmt: skip
    report_siblings(trainer)
    assert [line.split()[1] for line in lines] == named
    assert all("patch_size" in line for line in lines)
    trainer.plans_manager.plans = PLANS
    report_siblings(trainer)
    assert len(lines) == len(named)


def test_other_groups_of_weights_are_named_by_their_settings() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    saved = torch.optim.AdamW(weights).state_dict()
    optimizer = torch.optim.AdamW([{"params": weights[:1]}, {"params": weights[1:]}])
    with pytest.raises(ModelError, match=r"c\.pth.*frozen_encoder_epochs"), refuse_misfit("c.pth"):
        optimizer.load_state_dict(saved)


def make_optimizer(kind: str) -> torch.optim.Optimizer:
    weights = [torch.nn.Parameter(torch.zeros(1))]
    return torch.optim.AdamW(weights) if kind == "adamw" else torch.optim.SGD(weights, 1e-2, momentum=0.9)


@pytest.mark.parametrize(("before", "now"), [("sgd", "adamw"), ("adamw", "sgd")])
def test_a_checkpoint_of_the_other_optimizer_is_refused_with_the_setting_to_write(before: str, now: str) -> None:
    optimizer = make_optimizer(now)
    optimizer.load_state_dict(make_optimizer(before).state_dict())
    with pytest.raises(ModelError, match=f'"optimizer": "{before}"'):
        require_optimizer(optimizer, "c.pth")


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_checkpoint_of_the_same_optimizer_is_continued(kind: str) -> None:
    optimizer = make_optimizer(kind)
    optimizer.load_state_dict(make_optimizer(kind).state_dict())
    require_optimizer(optimizer, "c.pth")
