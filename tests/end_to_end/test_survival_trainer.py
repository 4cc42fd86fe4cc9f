"""Prognosis learned by nnU-Net's own command: on a frozen base, with a LoRA, interrupted, refused, and used."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.cli import main
from duplus_nnunet.survival.imaging.feature_store import FEATURES_NAME, FeatureStore, make_key
from duplus_nnunet.survival.prediction.trained_model import open_reader, read_trained_model

from .conftest import FAST, Project, build_once, read_environment
from .lesions import write_lesions

pytestmark = pytest.mark.slow

DATASET, PATIENTS = "Dataset990_Lesions", 16
TRAIN = ("nnUNetv2_train", "990", "3d_fullres")
ON_CPU = ("-device", "cpu")
SURVIVAL: dict[str, Any] = {"lora_epochs": 0, "networks": 2, "lora_r": 4}


class Prognosis(Project):
    """nnU-Net's three folders with lesions and a clinical table."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, dataset=DATASET)

    def model_of(self, trainer: str, plans: str = "DuPLUSPlans") -> Path:
        return self.folder / "results" / DATASET / f"{trainer}__{plans}__3d_fullres"

    @property
    def base(self) -> Path:
        return self.model_of("DuPLUSTrainer") / "fold_0" / "checkpoint_final.pth"

    def copy_plans(self, name: str, **survival: Any) -> str:
        """Make plans of another name with other settings of the prognosis."""
        plans = json.loads(self.plans.read_text())
        plans["plans_name"] = name
        plans["duplus"]["settings"] |= {"iterations_per_epoch": 3, "survival": {**SURVIVAL, **survival}}
        self.plans.with_name(f"{name}.json").write_text(json.dumps(plans))
        return name

    def learn(self, plans: str, fold: int, *options: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run(*TRAIN, str(fold), "-tr", "DuPLUSSurvivalTrainer", "-p", plans, *ON_CPU, *options)

    def kill_when(self, plans: str, file: Path, epoch: int, *options: str | Path) -> None:
        """Start a training, and kill it as soon as a checkpoint has come to an epoch."""
        folders = {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed", "results")}
        script = str(Path(sys.executable).with_name("nnUNetv2_train"))
        words = (script, *TRAIN[1:], "0", "-tr", "DuPLUSSurvivalTrainer", "-p", plans, *ON_CPU, *options)
        started = subprocess.Popen(
            list(map(str, words)), env={**read_environment(), **folders},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            for _ in range(3000):
                if file.is_file() and torch.load(file, weights_only=True)["current_epoch"] >= epoch:
                    return
                assert started.poll() is None, "it ended before it could be interrupted"
                time.sleep(0.1)
            pytest.fail("it did not come that far")
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def train_base(folder: Path) -> None:
    """Write patients, draw folds by patient, and train a segmentation on the first one."""
    made = Prognosis(folder)
    write_lesions(made.raw, PATIENTS)
    options = ("-pl", "DuPLUSPlanner", "-npfp", "1", "-np", "1", "-c", "3d_fullres")
    made.do("nnUNetv2_plan_and_preprocess", "-d", "990", *options)
    made.change_settings(patch=24, epochs=3, iterations_per_epoch=45, validation_iterations=1)
    assert "fold 0: 8 patients held out" in made.do("duplus", "survival", "split", "990", "--folds", "2")
    made.do(*TRAIN, "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", *ON_CPU)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Prognosis:
    """Patients, folds by patient, a segmentation, and plans for a prognosis on it."""
    made = Prognosis(build_once(tmp_path_factory, "prognosis", train_base))
    made.copy_plans("DuPLUSFrozen")
    return made


@pytest.fixture(scope="module")
def frozen(project: Prognosis) -> Path:
    """A prognosis on frozen features."""
    done = project.learn("DuPLUSFrozen", 0, "-pretrained_weights", project.base)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return project.model_of("DuPLUSSurvivalTrainer", "DuPLUSFrozen")


def read_state(model: Path, name: str = "checkpoint_final.pth") -> Any:
    return torch.load(model / "fold_0" / name, weights_only=True)


def read_predictions(fold: Path) -> list[dict[str, str]]:
    with (fold / "validation" / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_folds_are_by_patient(project: Prognosis) -> None:
    splits = json.loads((project.plans.parent / "splits_final.json").read_text())
    assert sorted(splits[0]["val"] + splits[1]["val"]) == [f"P{number:02d}_CT" for number in range(PATIENTS)]
    assert splits[0]["train"] == splits[1]["val"]


def test_the_training_cases_of_the_segmentation_are_stored_beside_it(project: Prognosis) -> None:
    found = json.loads((project.base.parent / "training_cases.json").read_text())
    splits = json.loads((project.plans.parent / "splits_final.json").read_text())
    assert found["cases"] == sorted(splits[0]["train"])
    assert found["base"] is None


def test_held_out_patients_are_predicted(project: Prognosis, frozen: Path) -> None:
    rows = read_predictions(frozen / "fold_0")
    splits = json.loads((project.plans.parent / "splits_final.json").read_text())
    assert [row["patient"] for row in rows] == [case.removesuffix("_CT") for case in splits[0]["val"]]
    curves = np.array([[float(value) for key, value in row.items() if key.startswith("survival at")] for row in rows])
    assert curves.shape[0] == PATIENTS // 2
    assert ((curves >= 0) & (curves <= 1)).all()
    assert (np.diff(curves, axis=1) <= 1e-6).all()
    report = json.loads((frozen / "fold_0/validation/survival.json").read_text())
    assert report["held_out"] is True
    assert not {row["patient"] for row in rows} & set(report["trained_on"])
    assert f"P{PATIENTS}" not in report["trained_on"]  # whose image is for testing
    assert any("imagesTs" in note for note in report["notes"])


def test_the_base_is_there_to_the_bit_beside_the_prognosis(project: Prognosis, frozen: Path) -> None:
    found, base = read_state(frozen), torch.load(project.base, weights_only=True)
    assert found["network_weights"].keys() == base["network_weights"].keys()
    assert all(torch.equal(value, base["network_weights"][name]) for name, value in found["network_weights"].items())
    state = found["duplus_survival"]
    assert state["model"]["members"]
    assert state["lora"] is None
    assert state["lesions"] == {"lesions_ct": ("tumour",)}


def test_the_model_segments_as_the_base_does(project: Prognosis, frozen: Path, tmp_path: Path) -> None:
    for model, out in ((project.model_of("DuPLUSTrainer"), "base"), (frozen, "prognosis")):
        options = [word for word in FAST if word != "--disable_tta"]
        words = ("-i", project.raw / "imagesTs", "-o", tmp_path / out, "-m", model, "-f", "0", "--save_probabilities")
        project.do("nnUNetv2_predict_from_modelfolder", *words, *options)
    (first, second) = (
        np.load(tmp_path / out / f"P{PATIENTS}_CT.npz")["probabilities"] for out in ("base", "prognosis")
    )
    np.testing.assert_array_equal(first, second)
    assert first.max() > 0.5


def test_the_model_can_be_exported(project: Prognosis, frozen: Path) -> None:
    words = ("-d", "990", "-c", "3d_fullres", "-f", "0", "-tr", "DuPLUSSurvivalTrainer", "-p", "DuPLUSFrozen")
    project.do("nnUNetv2_export_model_to_zip", *words, "-o", project.folder / "model.zip")
    assert (project.folder / "model.zip").stat().st_size > 10_000


def test_features_are_read_once_and_measure_the_lesion(project: Prognosis, frozen: Path) -> None:
    from duplus_nnunet.survival.records.feature_table import FeatureTable

    table = FeatureTable.from_npz(frozen / "fold_0" / "survival_table.npz")
    assert len(table.rows) == PATIENTS
    measures = table.select(("measure",))
    assert measures.names == tuple(f"lesions_ct: lesion {name}" for name in ("volume", "mean", "max", "found"))
    assert np.isfinite(measures.take(sorted(table.rows))).all()


def test_lora_learns_goes_on_after_an_interruption_and_leaves_the_base_alone(project: Prognosis) -> None:
    plans = project.copy_plans("DuPLUSWithLoRA", lora_epochs=4)
    model = project.model_of("DuPLUSSurvivalTrainer", plans)
    latest = model / "fold_0" / "checkpoint_latest.pth"
    project.kill_when(plans, latest, 1, "-pretrained_weights", project.base)
    lora = read_state(model, latest.name)["duplus_survival"]["lora"]["weights"]
    assert all(value.abs().max() > 0 for name, value in lora.items() if ".lora_B." in name)
    done = project.learn(plans, 0, "--c")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Epoch 3" in done.stdout
    assert "Epoch 0" not in done.stdout
    assert f"({PATIENTS} of {PATIENTS})" in done.stdout  # of the LoRA; the base's were read before
    assert done.stdout.count("features of P") == PATIENTS
    assert "inner held-out patients: frozen" in done.stdout
    found, base = read_state(model), torch.load(project.base, weights_only=True)
    assert all(torch.equal(value, base["network_weights"][name]) for name, value in found["network_weights"].items())
    state = found["duplus_survival"]
    assert not state["kept"] or state["losses"]["LoRA"] < state["losses"]["frozen"]
    assert (state["lora"] is not None) == state["kept"]
    assert not latest.is_file()


def test_an_encoder_from_scratch_is_trained_predicts_and_gives_no_masks(
    project: Prognosis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = project.copy_plans("DuPLUSScratch", encoder="scratch", scratch_epochs=4)
    model = project.model_of("DuPLUSSurvivalTrainer", plans)
    project.kill_when(plans, model / "fold_0" / "checkpoint_latest.pth", 1)
    assert read_state(model, "checkpoint_latest.pth")["duplus_survival"]["best"]["weights"]
    done = project.learn(plans, 0, "--c")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Epoch 3" in done.stdout
    assert "Epoch 0" not in done.stdout
    assert "inner held-out patients: records alone" in done.stdout
    state = read_state(model)["duplus_survival"]
    assert f"the encoder of epoch {state['best']['epoch']} is used" in done.stdout
    assert (state["encoder"], state["kept"], state["lora"], state["base_file"]) == ("scratch", False, None, None)
    report = json.loads((model / "fold_0/validation/survival.json").read_text())
    assert report["encoder"] == "scratch"
    assert any("no lesion is known" in note for note in report["notes"])
    assert report["uses_images"] is not any("Images are not used" in note for note in report["notes"])
    assert json.loads((model / "fold_0" / "training_cases.json").read_text())["base"] is None
    masks = project.run("nnUNetv2_predict_from_modelfolder", "-i", project.raw / "imagesTs", "-o", tmp_path / "masks",
                        "-m", model, "-f", "0", *FAST)  # fmt: skip
    assert masks.returncode == 1
    assert "cannot segment" in masks.stderr
    words = ("-m", model, "-i", project.raw / "imagesTs", "-o", tmp_path / "out", "--device", "cpu")
    assert main(["survival", "predict", *map(str, words)]) == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["patient"] == f"P{PATIENTS}"
    reader = open_reader(model, read_trained_model(model).folds[0], torch.device("cpu"))  # sees what was learned from
    assert len(FeatureStore.open(model / "fold_0" / FEATURES_NAME, make_key(reader)).rows) == PATIENTS
    capsys.readouterr()
    assert main(["survival", "evaluate", str(project.raw), "-m", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first_method"] == "trained model"


def test_without_a_base_nothing_is_learned(project: Prognosis, frozen: Path) -> None:
    done = project.learn("DuPLUSFrozen", 1)
    assert done.returncode == 1
    assert "add -pretrained_weights" in done.stderr


def test_a_base_that_saw_who_is_held_out_is_refused_or_reported(project: Prognosis, frozen: Path) -> None:
    refused = project.learn("DuPLUSFrozen", 1, "-pretrained_weights", project.base)
    assert refused.returncode == 1
    assert "was trained on 8 of 8 held-out patients" in refused.stderr
    assert "allow_overlap" in refused.stderr
    project.copy_plans("DuPLUSFrozen", allow_overlap=True)
    unknown = project.folder / "elsewhere" / "checkpoint_final.pth"
    unknown.parent.mkdir()
    # As an earlier version wrote it: without its training cases.
    left_out = ("duplus_checksums", "duplus_training_cases")
    content = torch.load(project.base, weights_only=True)
    torch.save({key: value for key, value in content.items() if key not in left_out}, unknown)
    allowed = project.learn("DuPLUSFrozen", 1, "-pretrained_weights", unknown)
    assert allowed.returncode == 0, allowed.stdout[-3000:] + allowed.stderr[-3000:]
    report = json.loads((frozen / "fold_1/validation/survival.json").read_text())
    assert any("training_cases.json" in note for note in report["notes"])
    evaluated = project.run("duplus", "survival", "evaluate", "990", "-m", frozen, "--json")
    assert evaluated.returncode == 0, evaluated.stderr[-3000:]
    found = json.loads(evaluated.stdout)
    assert found["first_method"] == "trained model"
    assert {"Cox", "Kaplan-Meier"} <= found["scores"].keys()
    assert any("Overlap was allowed" in note for note in found["notes"])
