"""Writes the folder `files`: models, tables and predictions of a released version, which later versions have to read.

Run it with the version that the files are to be of, in an environment of its own (`pip install .` there first):

    python tests/compatibility/make_files.py files

The files here are of version 0.1.0 (commit 2aeaa7c); they are not made again, or they would say nothing of that
version. Everything is generated: balls of three intensities as a tumour and two kidneys, a table of
patients whose hazard rises with the tumour, and networks of a few thousand weights that are trained for a minute.
Predictions are in float32, on one thread.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np

SIDE, SPACING, PATIENTS = 24, 4.0, 16
CT, PET, COMPOSED = "Dataset980_TinyCT", "Dataset981_TinyPET", "Dataset982_TinyBoth"
TRAINERS = {"segmentation": "DuPLUSTrainer", "survival": "DuPLUSSurvivalTrainer", "lora": "DuPLUSLoRATrainer"}
PREDICT = ("-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "-step_size", "1", "--precision", "float32")
# Of a model: what a prediction and an evaluation need.
KEPT = (
    "plans.json", "dataset.json", "fold_0/checkpoint_final.pth", "fold_0/survival_table.npz",
    "fold_0/training_cases.json", "fold_0/validation/predictions.csv", "fold_0/validation/survival.json",
    "fold_0/validation/summary.json",
)  # fmt: skip
CLINICAL = """\
patient: patient
time: {column: months, unit: months}
event: {column: relapse, seen: [1], censored: [0]}
cases: '^([^_]+)_'
covariates:
  age: {type: numeric}
  grade: {type: ordinal, order: [low, high]}
"""
PROMPTS = """\
dataset: TinyPET
contexts:
  tiny_pet:
    modality: positron emission tomography
    region: body
targets:
  tumour:
    synonyms: [lesion]
"""


# --- the images


def draw(rng: np.random.Generator, inverted: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw an image (x, y, z), its label map, and the radius of the tumour in voxels."""
    axes = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij")
    image, labels, radius = rng.normal(-50, 20, (SIDE,) * 3), np.zeros((SIDE,) * 3, np.uint8), rng.uniform(2.5, 4.5)
    middle = SIDE / 2
    balls = [(3, (5.0, middle, 6.0), 2.5, -300.0), (2, (SIDE - 6.0, middle, 6.0), 2.5, 60.0),
             (1, (middle, middle, SIDE - 7.0), radius, 160.0)]  # fmt: skip
    for value, centre, size, brightness in balls:
        at = np.asarray(centre) + rng.uniform(-1, 1, 3)
        inside = sum((axis - part) ** 2 for axis, part in zip(axes, at, strict=True)) <= size**2
        image[inside] += brightness + 50
        labels[inside] = value
    return (-image if inverted else image).round().astype(np.float32), labels, radius


def write_image(values: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.diag([SPACING] * 3 + [1.0])), file)


def write_dataset(raw: Path, name: str, channel: str, labels: dict[str, int], cases: int, seed: int) -> list[float]:
    """Write a raw dataset with one test case more; return the radius of each tumour."""
    rng, folder, radii = np.random.default_rng(seed), raw / name, []
    for number in range(cases + 1):
        image, drawn, radius = draw(rng, channel == "PET")
        part, case = "Tr" if number < cases else "Ts", f"P{number:02d}_{channel}"
        write_image(image, folder / f"images{part}" / f"{case}_0000.nii.gz")
        write_image(np.where(drawn <= max(labels.values()), drawn, 0), folder / f"labels{part}" / f"{case}.nii.gz")
        radii.append(radius)
    content = {"channel_names": {"0": channel}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return radii


def write_clinical(folder: Path, radii: list[float]) -> None:
    rng, rows = np.random.default_rng(7), []
    for number, radius in enumerate(radii):
        time, censoring = rng.exponential(40 * np.exp(3.5 - radius)), rng.uniform(10, 120)
        event, grade = int(time <= censoring), ("low", "high")[number % 2]
        rows.append([f"P{number:02d}", f"{min(time, censoring) + 0.1:.2f}", event, int(rng.integers(40, 80)), grade])
    with (folder / "clinical.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["patient", "months", "relapse", "age", "grade"], *rows])
    (folder / "clinical.yaml").write_text(CLINICAL)


# --- the commands


class Project:
    """nnU-Net's three folders, and commands run in them on one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("raw", "preprocessed", "results"):
            (folder / name).mkdir()

    def do(self, command: str, *words: str | Path) -> None:
        folders = {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed", "results")}
        threads = {"OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"}
        script = Path(sys.executable).with_name(command)
        subprocess.run([script, *words], env={**os.environ, **folders, **threads}, cwd=self.folder, check=True)

    def model(self, dataset: str, trainer: str) -> Path:
        return self.folder / "results" / dataset / f"{TRAINERS[trainer]}__DuPLUSPlans__3d_fullres"

    def train(self, dataset: str, trainer: str, *options: str | Path) -> None:
        words = (dataset[7:10], "3d_fullres", "0", "-tr", TRAINERS[trainer], "-p", "DuPLUSPlans", "-device", "cpu")
        self.do("nnUNetv2_train", *words, *options)

    def change(self, dataset: str, *, network: bool = False, **settings: object) -> None:
        """Edit the plans: settings, and a network of three narrow stages."""
        file = self.folder / "preprocessed" / dataset / "DuPLUSPlans.json"
        plans = json.loads(file.read_text())
        plans["duplus"]["settings"] |= settings
        if network:
            plans["duplus"]["settings"]["network"] |= {"film_hidden": 8, "head_features": 4, "head_hidden": 8}
            configuration = plans["configurations"]["3d_fullres"]
            configuration |= {"patch_size": [SIDE] * 3, "batch_size": 2}
            configuration["architecture"]["arch_kwargs"] |= {
                "n_stages": 3, "features_per_stage": [4, 8, 8], "kernel_sizes": [[3, 3, 3]] * 3,
                "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "n_conv_per_stage": [1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1],
            }  # fmt: skip
        file.write_text(json.dumps(plans))

    def predict(self, model: Path, images: Path, out: Path, *options: str | Path) -> None:
        self.do("nnUNetv2_predict_from_modelfolder", "-i", images, "-o", out, "-m", model, *PREDICT, *options)


def train_all(project: Project) -> None:
    """Train a segmentation, a prognosis on it, and an adapter of it."""
    raw = project.folder / "raw"
    labels = {"background": 0, "tumour": 1, "left kidney": 2, "right kidney": 3}
    radii = write_dataset(raw, CT, "CT", labels, PATIENTS, 0)
    write_clinical(raw / CT, radii)
    write_dataset(raw, PET, "PET", {"background": 0, "tumour": 1}, 5, 1)
    (raw / PET / "prompts.yaml").write_text(PROMPTS)
    planning = ("-pl", "DuPLUSPlanner", "-npfp", "1", "-np", "1", "-c", "3d_fullres")
    project.do("nnUNetv2_plan_and_preprocess", "-d", "980", *planning)
    project.change(
        CT, network=True, epochs=6, iterations_per_epoch=20, validation_iterations=1, initial_learning_rate=0.05,
        mirror_left_right=False,
    )  # fmt: skip
    project.do("duplus", "survival", "split", "980", "--folds", "2")
    project.train(CT, "segmentation")
    weights = project.model(CT, "segmentation") / "fold_0" / "checkpoint_final.pth"
    project.change(CT, survival={"lora_epochs": 0, "networks": 2})
    project.train(CT, "survival", "-pretrained_weights", weights)
    project.do("duplus", "adapt", "plan", "981", "--from-model", project.model(CT, "segmentation"), "-np", "1")
    project.change(
        PET, epochs=2, iterations_per_epoch=15, validation_iterations=1, adaptation={"r": 2, "lora_alpha": 4}
    )
    project.train(PET, "lora", "-pretrained_weights", weights)
    project.do("duplus", "compose", "-o", "982", "-n", "TinyBoth", "980", "981")


# --- what is kept


def copy_model(model: Path, folder: Path) -> None:
    """Copy what a prediction needs of a model."""
    (folder / "fold_0").mkdir(parents=True)
    for name in KEPT:
        if (model / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(model / name, folder / name)


def keep(project: Project, out: Path) -> None:
    """Copy models and tables, predict with the copies, and score the predictions."""
    raw = project.folder / "raw"
    models = {name: out / "models" / name for name in ("segmentation", "survival")}
    for name, folder in models.items():
        copy_model(project.model(CT, name), folder)
    project.do("duplus", "adapt", "export", project.model(PET, "lora"), "-o", out / "adapter")
    for dataset, name in ((CT, "ct"), (PET, "pet")):
        shutil.copytree(raw / dataset / "imagesTs", out / "images" / name)
        shutil.copytree(raw / dataset / "labelsTs", out / "labels" / name)
    shutil.copy(raw / CT / "clinical.csv", out / "clinical.csv")
    (out / "composed").mkdir()
    for name in ("dataset.json", "duplus_cases.json", "prompts.yaml"):
        shutil.copy(raw / COMPOSED / name, out / "composed" / name)
    for name in ("clinical.csv", "clinical.yaml"):
        shutil.copy(raw / CT / name, out / "composed" / name)
    everything = ("--split", "--statistics", "--probabilities", "--save_probabilities")
    project.predict(models["segmentation"], out / "images" / "ct", out / "predictions" / "ct", *everything)
    beside = ("--adapters", out / "adapter", "--context", "tiny_pet", "--save_probabilities", "--disable_tta")
    project.predict(models["segmentation"], out / "images" / "pet", out / "predictions" / "pet", *beside)
    shutil.rmtree(raw)  # as for a user of the model alone: every target counts as annotated
    words = ("-p", out / "predictions" / "ct", "-r", out / "labels" / "ct", "-m", models["segmentation"], "-np", "1")
    project.do("duplus", "evaluate", *words, "-o", out / "scores")
    inputs = ("-i", out / "images" / "ct", "--clinical", out / "clinical.csv", "--device", "cpu")
    project.do("duplus", "survival", "predict", "-m", models["survival"], *inputs, "-o", out / "prognosis")


def hide_places(folder: Path, *places: Path) -> None:
    """Replace the folders of this run in JSON files, which are read as texts there, by a folder of no machine."""
    for file in folder.rglob("*.json"):
        text = file.read_text(encoding="utf-8")
        for place in places:
            text = text.replace(str(place), "/data")
        file.write_text(text, encoding="utf-8")


def main(out: Path) -> None:
    """Make all files in a folder that is not there yet."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        train_all(project)
        out.mkdir(parents=True)
        keep(project, out)
        hide_places(out, out, project.folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
