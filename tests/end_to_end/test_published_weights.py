"""A dataset is planned for a stock nnU-Net model, and a training starts from its weights, by the commands of a user."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

PLANS = "DuPLUSPretrainedPlans"
PLANNERS = {"ExperimentPlanner": "nnUNetPlans", "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans"}
# A trainer that is not installed where the model is used, as that of many published models.
STOCK = """
import json, sys, torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
class nnUNetTrainer_4000epochs_NoMirroring(nnUNetTrainer):
    pass
plans, dataset_json = (json.load(open(file)) for file in sys.argv[1:3])
trainer = nnUNetTrainer_4000epochs_NoMirroring(
    {**plans, "continue_training": False}, "3d_fullres", 0, dataset_json, torch.device("cpu")
)
trainer.initialize()
trainer.on_train_start()
trainer.train_step(next(trainer.dataloader_train))
trainer.save_checkpoint(trainer.output_folder + "/checkpoint_final.pth")
"""


@pytest.fixture
def copied(project: Any, tmp_path: Path) -> Any:
    return type(project)(Path(shutil.copytree(project.folder, tmp_path / "project")))


def train_stock(project: Any, planner: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plan by nnU-Net's own planner, and train for one step on data that are preprocessed already; return the model."""
    project.do("nnUNetv2_plan_experiment", "-d", "998", "-pl", planner)
    name = PLANNERS[planner]
    file = project.plans.with_name(f"{name}.json")
    plans = json.loads(file.read_text())
    plans["duplus"] = {"settings": {}}
    file.write_text(json.dumps(plans))
    project.change_settings(name)
    plans = json.loads(file.read_text())
    del plans["duplus"]
    plans["configurations"]["3d_fullres"]["data_identifier"] = "DuPLUSPlans_3d_fullres"
    file.write_text(json.dumps(plans))
    for folder in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{folder}", str(project.folder / folder))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    files = [str(file), str(project.raw / "dataset.json")]
    subprocess.run([sys.executable, "-c", STOCK, *files], check=True, capture_output=True, timeout=300)
    return project.model.with_name(f"nnUNetTrainer_4000epochs_NoMirroring__{name}__3d_fullres")


def test_a_training_starts_from_a_residual_encoder_of_stock_nnunet(
    copied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train_stock(copied, "nnUNetPlannerResEncM", monkeypatch)
    before = copied.plans.read_bytes()
    printed = copied.do("duplus", "adapt", "plan", "998", "--from-model", model, "-np", "1")
    assert copied.plans.read_bytes() == before
    theirs, ours = (
        json.loads(file.read_text())["configurations"]["3d_fullres"]
        for file in (model / "plans.json", copied.plans.with_name(f"{PLANS}.json"))
    )
    names = ("architecture", "patch_size", "batch_size", "spacing", "normalization_schemes")
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
    (line,) = (line for line in printed.splitlines() if "nnUNetv2_train" in line)
    plans = json.loads(copied.plans.with_name(f"{PLANS}.json").read_text())
    short = {"epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1, "initial_learning_rate": 1e-12}
    plans["duplus"]["settings"] |= short
    copied.plans.with_name(f"{PLANS}.json").write_text(json.dumps(plans))
    log = copied.do(*shlex.split(line), "-device", "cpu")
    assert ": decoder, encoder; newly initialised: decoder.seg_layers, film, generator" in log
    fold = copied.model.with_name(f"DuPLUSTrainer__{PLANS}__3d_fullres") / "fold_0"
    assert json.loads((fold / "training_cases.json").read_text())["base"] == "unknown"
    stock, trained = (
        torch.load(file, weights_only=False)["network_weights"]
        for file in (model / "fold_0" / "checkpoint_final.pth", fold / "checkpoint_final.pth")
    )
    kept = [name for name in stock if ".seg_layers." not in name]
    assert kept
    assert all(torch.allclose(stock[name], trained[name], atol=1e-6) for name in kept)
    require_that_old_images_are_refused(copied, model, line)


def require_that_old_images_are_refused(project: Any, model: Path, line: str) -> None:
    """Plan again with another reader, which needs other images; settings that were edited stay."""
    described = json.loads((project.raw / "dataset.json").read_text())
    described["overwrite_image_reader_writer"] = "SimpleITKIOWithReorient"
    (project.raw / "dataset.json").write_text(json.dumps(described))
    printed = project.do("nnUNetv2_plan_experiment", "-d", "998", "-pl", "DuPLUSPlanner", "--from-model", model)
    assert f"nnUNetv2_preprocess -d 998 -plans_name {PLANS} -c 3d_fullres" in printed
    assert json.loads(project.plans.with_name(f"{PLANS}.json").read_text())["duplus"]["settings"]["epochs"] == 1
    refused = project.run(*shlex.split(line), "-device", "cpu")
    assert refused.returncode == 1
    assert "SimpleITKIOWithReorient" in refused.stderr
    assert f"nnUNetv2_preprocess -d 998 -plans_name {PLANS} -c 3d_fullres" in refused.stderr


def test_plans_are_made_for_a_plain_unet_and_an_adapter_is_refused(
    copied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train_stock(copied, "ExperimentPlanner", monkeypatch)
    words = ("-d", "998", "-pl", "DuPLUSPlanner", "--from-model", model / "fold_0" / "checkpoint_final.pth")
    printed = copied.do("nnUNetv2_plan_experiment", *words, "-overwrite_plans_name", "Mine")
    assert "nnUNetv2_preprocess -d 998 -plans_name Mine -c 3d_fullres" in printed
    plans = json.loads(copied.plans.with_name("Mine.json").read_text())
    network = plans["configurations"]["3d_fullres"]["architecture"]
    assert network == json.loads((model / "plans.json").read_text())["configurations"]["3d_fullres"]["architecture"]
    assert plans["duplus"]["start"]["trainer"] == "nnUNetTrainer_4000epochs_NoMirroring"
    refused = copied.run(
        "nnUNetv2_train", "998", "3d_fullres", "0", "-tr", "DuPLUSLoRATrainer", "-p", "Mine", "-device", "cpu"
    )
    assert refused.returncode == 1
    assert "DuPLUSTrainer" in refused.stderr
