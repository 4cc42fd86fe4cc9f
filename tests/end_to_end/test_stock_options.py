"""nnU-Net's options and its other commands, on DuPLUS models."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

TRAIN = ("998", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-device", "cpu")
OURS = ("-p", "DuPLUSPlans")


@pytest.fixture
def copied(project: Any, tmp_path: Path) -> Any:
    """The trained project, to do something to."""
    return type(project)(Path(shutil.copytree(project.folder, tmp_path / "project")))


def test_residual_encoder_plans_honour_overrides_and_train_and_predict(copied: Any, tmp_path: Path) -> None:
    names = ["-pl", "DuPLUSPlannerResEncM", "-overwrite_plans_name", "MyPlans"]
    sizes = ["-gpu_memory_target", "2", "-overwrite_target_spacing", "8", "8", "8"]
    copied.do("nnUNetv2_plan_experiment", "-d", "998", *names, *sizes)
    plans = json.loads(copied.plans.with_name("MyPlans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    assert plans["plans_name"] == "MyPlans"
    assert configuration["spacing"] == [8, 8, 8]
    assert configuration["data_identifier"] == "MyPlans_3d_fullres"
    assert configuration["architecture"]["network_class_name"].endswith("ResidualEncoderUNet")
    copied.change_settings("MyPlans", epochs=1, iterations_per_epoch=2, validation_iterations=1)
    copied.do("nnUNetv2_preprocess", "-d", "998", "-plans_name", "MyPlans", "-c", "3d_fullres", "-np", "1")
    copied.do("nnUNetv2_train", *TRAIN, "-p", "MyPlans")
    options = [word.replace("DuPLUSPlans", "MyPlans") for word in copied.options]
    images, out = copied.raw / "imagesTs", tmp_path / "out"
    copied.do("nnUNetv2_predict", "-i", images, "-o", out, *options, *copied.fast, "--targets", "spleen")
    mask = nibabel.load(next(out.glob("*.nii.gz")))
    assert mask.shape == nibabel.load(next(images.glob("*.nii.gz"))).shape
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 2}


def test_plans_of_another_planner_are_not_overwritten(copied: Any) -> None:
    file = copied.plans.with_name("nnUNetPlans.json")
    file.write_text(json.dumps({"experiment_planner_used": "ExperimentPlanner", "configurations": {"2d": {}}}))
    before = file.read_bytes()
    options = ("-pl", "DuPLUSPlanner", "-overwrite_plans_name", "nnUNetPlans")
    done = copied.run("nnUNetv2_plan_experiment", "-d", "998", *options)
    assert (done.returncode, file.read_bytes()) == (1, before)
    assert "'ExperimentPlanner'" in done.stderr


def test_labels_and_prompts_are_checked_before_the_fingerprint(copied: Any) -> None:
    described = json.loads((copied.raw / "dataset.json").read_text())
    described["labels"] = {"background": 0}
    (copied.raw / "dataset.json").write_text(json.dumps(described))
    done = copied.run("nnUNetv2_plan_and_preprocess", "-d", "998", "-pl", "DuPLUSPlanner", "--clean")
    assert done.returncode == 1
    assert "no foreground label" in done.stderr
    assert "ingerprint" not in done.stdout


def test_an_exported_model_is_whole_and_names_no_path_of_its_maker(copied: Any, tmp_path: Path) -> None:
    model = ("-d", "998", "-c", "3d_fullres", "-tr", "DuPLUSTrainer", *OURS, "-f", "0")
    copied.do("nnUNetv2_export_model_to_zip", *model, "-o", tmp_path / "model.zip")
    elsewhere = type(copied)(tmp_path / "elsewhere")
    elsewhere.folder.mkdir()
    elsewhere.do("nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip")
    plans = (elsewhere.model / "plans.json").read_text()
    assert str(tmp_path) not in plans
    assert json.loads(plans)["duplus"]["registry"] == "drafted from dataset.json"
    words = ["-i", copied.raw / "imagesTs", "-o", tmp_path / "out", *copied.fast, "--targets", "left kidney"]
    dataset = [word.replace("998", copied.raw.name) for word in copied.options]
    elsewhere.do("nnUNetv2_predict", *dataset, *words)
    mask = np.asarray(nibabel.load(next((tmp_path / "out").glob("*.nii.gz"))).dataobj)
    assert set(np.unique(mask)) <= {0, 3}


@pytest.mark.parametrize("options", [("--val", "--npz"), ("--val", "--val_best")], ids=lambda words: words[-1])
def test_validation_alone_is_repeated(copied: Any, options: tuple[str, ...]) -> None:
    fold = copied.model / "fold_0"
    shutil.rmtree(fold / "validation")
    kept = "checkpoint_final.pth" if "--npz" in options else "checkpoint_best.pth"
    before = (fold / kept).read_bytes()
    printed = copied.do("nnUNetv2_train", *TRAIN, *OURS, *options)
    assert "Validation complete" in printed
    assert "Epoch 0" not in printed
    assert (fold / kept).read_bytes() == before
    assert (fold / "validation" / "summary.json").is_file()
    assert bool(list((fold / "validation").glob("*.npz"))) == ("--npz" in options)


STOCK = """
import json, sys, torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
plans, dataset_json = (json.load(open(file)) for file in sys.argv[1:3])
del plans["duplus"], plans["label_manager"]
trainer = nnUNetTrainer({**plans, "continue_training": False}, "3d_fullres", 0, dataset_json, torch.device("cpu"))
trainer.initialize()
trainer.save_checkpoint(sys.argv[3])
"""


def test_weights_of_a_stock_model_are_taken_over_but_for_what_is_new(
    copied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(copied.folder / name))
    weights = tmp_path / "stock.pth"
    files = [copied.plans, copied.plans.with_name("dataset.json"), weights]
    subprocess.run([sys.executable, "-c", STOCK, *map(str, files)], check=True, capture_output=True, timeout=300)
    copied.change_settings(epochs=1, iterations_per_epoch=1, initial_learning_rate=1e-12)
    printed = copied.do("nnUNetv2_train", *TRAIN, *OURS, "-pretrained_weights", weights)
    assert ": decoder.seg_layers, film, generator\n" in printed
    stock = torch.load(weights, weights_only=False)["network_weights"]
    ours = torch.load(copied.model / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    kept = [name for name in stock if ".seg_layers." not in name]
    assert kept
    assert all(torch.allclose(stock[name], ours[name], atol=1e-6) for name in kept)


def test_weights_go_over_to_other_targets_and_declared_regions(copied: Any, tmp_path: Path) -> None:
    described = json.loads((copied.raw / "dataset.json").read_text())
    names = {"kidneys": [3, 4], "left kidney": 3, "liver": 1, "spleen": 2, "stomach": 5, "aorta": 6, "spine": 7}
    described["labels"] = {"background": 0, **names}
    described["regions_class_order"] = [4, 3, 1, 2, 5, 6, 7]
    (copied.raw / "dataset.json").write_text(json.dumps(described))
    weights = shutil.copy(copied.model / "fold_0" / "checkpoint_final.pth", tmp_path)
    copied.do("nnUNetv2_plan_experiment", "-d", "998", "-pl", "DuPLUSPlanner")
    copied.change_settings(epochs=1, iterations_per_epoch=1, validation_iterations=1)
    printed = copied.do("nnUNetv2_train", *TRAIN, *OURS, "-pretrained_weights", weights)
    assert f"{weights}: decoder, decoder.seg_layers, encoder, film, generator; newly initialised: none" in printed
    done = copied.predict(tmp_path / "out", "--targets", "kidneys", "--save_probabilities")
    assert done.returncode == 0, done.stderr
    assert np.load(next((tmp_path / "out").glob("*.npz")))["probabilities"].shape[0] == 1
    mask = np.asarray(nibabel.load(next((tmp_path / "out").glob("*.nii.gz"))).dataobj)
    assert set(np.unique(mask)) <= {0, 4}


def test_a_disk_that_fills_up_leaves_the_checkpoint_to_go_on_from(copied: Any) -> None:
    resource = pytest.importorskip("resource")
    checkpoint = copied.model / "fold_0" / "checkpoint_final.pth"
    before = checkpoint.read_bytes()
    copied.change_settings(epochs=3)
    few = len(before) // 2

    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (few, few))

    done = copied.run("nnUNetv2_train", *TRAIN, *OURS, "--c", preexec_fn=fill_disk)
    assert done.returncode == 1
    assert "error: Could not write" in done.stderr
    assert "with --c" in done.stderr
    assert "Traceback" not in done.stderr
    assert checkpoint.read_bytes() == before
    assert not list(checkpoint.parent.glob("*.writing*"))
    assert "Epoch 2" in copied.do("nnUNetv2_train", *TRAIN, *OURS, "--c")


def test_a_damaged_image_is_told_and_gives_no_label_map(project: Any, tmp_path: Path) -> None:
    image = next((project.raw / "imagesTs").glob("*.nii.gz"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / image.name).write_bytes(image.read_bytes()[:5000])
    done = project.predict(tmp_path / "out", images=tmp_path / "in")
    assert done.returncode == 1
    assert f"{image.name} cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / image.name.replace("_0000", "")).exists()


def test_a_dataset_json_changed_after_training_is_told(copied: Any, tmp_path: Path) -> None:
    described = json.loads((copied.model / "dataset.json").read_text())
    described["labels"] = {"background": 0, "liver": 1}
    (copied.model / "dataset.json").write_text(json.dumps(described))
    done = copied.predict(tmp_path / "out", "--targets", "liver")
    assert done.returncode == 1
    assert "was changed after planning" in done.stderr
