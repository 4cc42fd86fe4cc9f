"""Trainings with equal seeds, to the bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import Project

TRAINER = """
import os

from duplus_nnunet.trainers import DuPLUSTrainer


class InterruptedTrainer(DuPLUSTrainer):
    def on_epoch_end(self):
        super().on_epoch_end()
        if os.environ.get("STOP") == str(self.current_epoch):
            raise SystemExit(3)
"""
WORDS = ("998", "3d_fullres", "0", "-tr", "InterruptedTrainer", "-p", "DuPLUSPlans", "-device", "cpu")


@pytest.fixture(name="copied")
def copy_project(project: Project, tmp_path: Path) -> Project:
    shutil.copytree(project.folder, tmp_path / "project")
    copied = Project(tmp_path / "project")
    settings: dict[str, Any] = {"epochs": 2, "iterations_per_epoch": 2, "validation_iterations": 1}
    copied.change_settings(**settings, paraphrase_probability=0.5, warmup_iterations=3)
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "interrupted.py").write_text(TRAINER)
    return copied


def train(copied: Project, *options: str, **variables: str) -> dict[str, torch.Tensor] | None:
    """Train from scratch, or continue; return the final weights if the training came to its end."""
    trainers = str(copied.folder.parent / "trainers")
    done = copied.run("nnUNetv2_train", *WORDS, *options, nnUNet_extTrainer=trainers, **variables)
    model = copied.model.with_name("InterruptedTrainer__DuPLUSPlans__3d_fullres")
    if done.returncode == 3:
        return None
    assert done.returncode == 0, done.stderr[-2000:]
    weights: dict[str, torch.Tensor] = torch.load(model / "fold_0" / "checkpoint_final.pth")["network_weights"]
    shutil.rmtree(model)
    return weights


def test_workers_and_an_interruption_do_not_change_a_training(copied: Project) -> None:
    whole = train(copied, nnUNet_n_proc_DA="2")
    assert train(copied, nnUNet_n_proc_DA="0", STOP="1") is None
    continued = train(copied, "--c", nnUNet_n_proc_DA="1")
    assert whole is not None
    assert continued is not None
    assert [name for name, value in whole.items() if not torch.equal(value, continued[name])] == []
    copied.change_settings(seed=1)
    other = train(copied, nnUNet_n_proc_DA="0")
    assert other is not None
    assert not torch.equal(whole["generator.base"], other["generator.base"])
