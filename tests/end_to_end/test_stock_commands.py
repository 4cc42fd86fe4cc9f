"""nnU-Net's own commands plan, train and predict DuPLUS."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow


def read_mask(folder: Path) -> np.ndarray:
    return np.asarray(nibabel.load(next(folder.glob("*.nii.gz"))).dataobj)


def read_probabilities(folder: Path) -> np.ndarray:
    return np.load(next(folder.glob("*.npz")))["probabilities"]


def test_plans_hold_3d_configurations_prompts_and_settings(project: Any) -> None:
    plans = json.loads(project.plans.read_text())
    assert set(plans["configurations"]) <= {"3d_fullres", "3d_lowres"}
    assert plans["label_manager"] == "DuPLUSLabelManager"
    section = plans["duplus"]
    assert [target["name"] for target in section["targets"]][:2] == ["liver", "spleen"]
    assert section["left_right_axis"] is not None
    prompt = section["contexts"][section["default_context"]]["target_prompts"]["liver"][0]
    assert prompt == "A computed tomography of liver"


def test_asking_for_2d_says_why_not(project: Any) -> None:
    done = project.run("nnUNetv2_preprocess", "-d", "998", "-plans_name", "DuPLUSPlans", "-c", "2d", "-np", "1")
    assert done.returncode == 1
    assert "3D" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_writes_a_complete_model_folder_of_plain_types(project: Any) -> None:
    checkpoint = torch.load(project.model / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == "DuPLUSTrainer"
    names = ["plans.json", "dataset.json", "dataset_fingerprint.json", "fold_0/progress.png"]
    assert all((project.model / name).is_file() for name in [*names, "fold_0/validation/summary.json"])


def test_images_are_mirrored_along_all_axes_if_the_settings_say_so(project: Any) -> None:
    checkpoint = torch.load(project.model / "fold_0" / "checkpoint_final.pth", weights_only=True)
    axis = json.loads(project.plans.read_text())["duplus"]["left_right_axis"]
    assert axis is not None
    assert checkpoint["inference_allowed_mirroring_axes"] == (0, 1, 2)


def test_embeddings_and_wordings_of_targets_are_kept_out_of_the_log(project: Any) -> None:
    log = next((project.model / "fold_0").glob("training_log_*.txt")).read_text()
    assert "A computed tomography of body" in log
    assert "A computed tomography of liver" not in log
    assert next(iter(json.loads(project.plans.read_text())["duplus"]["embeddings"].values())) not in log


def test_a_selection_is_predicted_alone_with_unchanged_probabilities(project: Any, tmp_path: Path) -> None:
    done = project.predict(tmp_path / "all", "--save_probabilities")
    assert done.returncode == 0, done.stderr
    done = project.predict(tmp_path / "two", "--save_probabilities", "--targets", "Spleen", "right kidney")
    assert done.returncode == 0, done.stderr
    everything, two = read_probabilities(tmp_path / "all"), read_probabilities(tmp_path / "two")
    assert everything.shape[0] == 7
    np.testing.assert_allclose(two, everything[[1, 3]], atol=1e-5)
    assert set(np.unique(read_mask(tmp_path / "two"))) <= {0, 2, 4}


def test_variables_select_and_the_own_command_is_the_same(project: Any, tmp_path: Path) -> None:
    images = project.raw / "imagesTs"
    project.do(
        "duplus", "predict", "-i", images, "-o", tmp_path, *project.options, *project.fast, DUPLUS_TARGETS="aorta"
    )
    assert set(np.unique(read_mask(tmp_path))) <= {0, 6}
    assert json.loads((tmp_path / "dataset.json").read_text())["labels"] == {"background": 0, "aorta": 6}


def test_targets_are_listed_without_input_and_output(project: Any) -> None:
    assert "left kidney" in project.do("nnUNetv2_predict", *project.options, "--list-targets")


def test_free_text_gets_a_label_value_of_its_own_and_is_reported(project: Any, tmp_path: Path) -> None:
    text = "A computed tomography of the renal pelvis"
    done = project.predict(tmp_path, "--targets", "Spleen", "--prompt", text, "LIVER")
    assert done.returncode == 0, done.stderr
    assert f"{text!r} was not seen in training; its label value is 8." in done.stdout
    assert "kidney 0.7" in done.stdout
    assert "'LIVER' is the known target 'liver' (label value 1)." in done.stdout
    written = json.loads((tmp_path / "dataset.json").read_text())
    assert written["labels"] == {"background": 0, "liver": 1, "spleen": 2, text: 8}
    assert written["duplus"]["legend"] == {"1": "liver", "2": "spleen", "8": text}
    assert set(np.unique(read_mask(tmp_path))) <= {0, 1, 2, 8}


def test_sensitivity_scores_a_targets_own_mask_by_every_wording(project: Any, tmp_path: Path) -> None:
    image, label = (next((project.raw / folder).glob("*.nii.gz")) for folder in ("imagesTs", "labelsTs"))
    arguments = ("-m", project.model, "-i", image, "-l", label, "--disable_tta", "-step_size", "1", "-device", "cpu")
    printed = project.do(
        "duplus", "prompts", "sensitivity", *arguments, "--targets", "spleen", "aorta", "--json", tmp_path / "r.json"
    )
    assert "spleen (label value 2): spread" in printed
    report = json.loads((tmp_path / "r.json").read_text())
    spleen, aorta = report["targets"]
    assert {score["kind"] for score in aorta["wordings"]} == {"target prompt", "paraphrase"}
    assert project.predict(tmp_path / "out", "--targets", "spleen", "--rivals", "asked").returncode == 0
    mask, truth = read_mask(tmp_path / "out") == 2, np.asarray(nibabel.load(label).dataobj) == 2
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert spleen["wordings"][0]["dice"] == pytest.approx(dice, abs=1e-4)


def test_an_unknown_target_ends_with_the_nearest_names_and_writes_nothing(project: Any, tmp_path: Path) -> None:
    done = project.predict(tmp_path, "--targets", "lung")
    assert done.returncode == 1
    assert "Unknown target 'lung'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.nii.gz"))


def test_an_unknown_context_is_refused(project: Any, tmp_path: Path) -> None:
    done = project.predict(tmp_path, "--context", "ultrasound")
    assert done.returncode == 1
    assert "Unknown context 'ultrasound'" in done.stderr


def test_a_selection_for_a_model_that_is_not_ours_is_refused(project: Any, tmp_path: Path) -> None:
    plans = json.loads((project.model / "plans.json").read_text())
    del plans["duplus"]
    plans |= {"label_manager": "LabelManager", "experiment_planner_used": "ExperimentPlanner"}
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    done = project.run(
        "nnUNetv2_predict_from_modelfolder", "-i", project.raw / "imagesTs", "-o", tmp_path / "out", "-m", tmp_path,
        "--targets", "liver",
    )  # fmt: skip
    assert done.returncode == 1
    assert "not a DuPLUS model" in done.stderr


def test_a_wrong_number_of_channels_is_refused(project: Any, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    image = next((project.raw / "imagesTs").glob("*.nii.gz"))
    for channel in ("0000", "0001"):
        shutil.copy(image, images / f"case_{channel}.nii.gz")
    done = project.predict(tmp_path / "out", images=images)
    assert done.returncode == 1
    assert "2 channel(s)" in done.stderr


def test_a_truncated_checkpoint_is_named_and_not_predicted_from(project: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(project.model, tmp_path / "model")
    file = copy / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:5000])
    done = project.run(
        "nnUNetv2_predict_from_modelfolder", "-i", project.raw / "imagesTs", "-o", tmp_path / "out", "-m", copy,
        "-f", "0", "-device", "cpu",
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be read" in done.stderr


def test_a_configuration_that_does_not_exist_says_why(project: Any) -> None:
    done = project.run("nnUNetv2_train", "998", "3d_cascade_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans")
    assert done.returncode == 1
    assert "cascade" in done.stderr


def test_training_goes_on_from_a_checkpoint(project: Any, tmp_path: Path) -> None:
    copy = type(project)(Path(shutil.copytree(project.folder, tmp_path / "project")))
    copy.change_settings(epochs=3)
    arguments = ("998", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu", "--c")
    printed = copy.do("nnUNetv2_train", *arguments)
    assert "Epoch 2" in printed
    assert "Epoch 1" not in printed


def test_the_text_encoder_can_learn_and_prediction_does_without_it(project: Any, tmp_path: Path) -> None:
    copy = type(project)(Path(shutil.copytree(project.folder, tmp_path / "project")))
    copy.change_settings(epochs=1, iterations_per_epoch=1, text_adapter={"enabled": True, "r": 2})
    arguments = ("998", "3d_fullres", "1", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
    assert "with LoRA on 12 layers (18432 weights)" in copy.do("nnUNetv2_train", *arguments)
    arguments = ("-i", copy.raw / "imagesTs", "-o", tmp_path / "out", *copy.options, *copy.fast, "-f")
    done = copy.run("nnUNetv2_predict", *arguments, "1", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert " torch" in done.stderr
    assert "transformers" not in done.stderr
    done = copy.run("nnUNetv2_predict", *arguments, "0")
    assert done.returncode == 1
    assert "The checkpoint has no table of embeddings" in done.stderr


def test_weights_of_another_model_are_taken_over(project: Any, tmp_path: Path) -> None:
    copy = type(project)(Path(shutil.copytree(project.folder, tmp_path / "project")))
    weights = copy.model / "fold_0" / "checkpoint_final.pth"
    arguments = ("998", "3d_fullres", "1", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
    copy.do("nnUNetv2_train", *arguments, "-pretrained_weights", weights)
    assert (copy.model / "fold_1" / "checkpoint_final.pth").is_file()
