"""Evaluates survival models on images and clinical records: phantoms with a known hazard, and patients with sarcoma.

Runs the commands: planning, `duplus survival split`, a segmentation and a DuPLUSSurvivalTrainer for each fold, and
`duplus survival evaluate -m`. No segmentation is trained on the held-out patients of its fold. nnU-Net's three folders
must be set; existing results are kept or continued. Prints the output of `evaluate --json`, and the seconds of each
stage.

Examples:
  python benchmarks/prognosis_images.py signal            # hazard depends on lesion volume and record
  python benchmarks/prognosis_images.py record            # hazard depends on the record alone
  python benchmarks/prognosis_images.py sarcoma --clinical sarcoma_clinical.csv         # the 51 patients, PET
  python benchmarks/prognosis_images.py sarcoma --clinical sarcoma_clinical.csv --lora  # with the second stage
  python benchmarks/prognosis_images.py modalities --clinical sarcoma_clinical.csv      # CT, MR and PET, three draws
  python benchmarks/prognosis_images.py sarcoma --clinical sarcoma_clinical.csv --scratch --device cuda   # no base
  python benchmarks/prognosis_images.py modalities --only 0 1 2   # trains these folds alone, beside another process
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import running
from running import find_dataset, find_folder
from universal import NETWORK, OURS, PATCH

SCRIPTS = Path(sys.executable).parent
# The segmentation is not validated on whole images: its use is shown by the survival model.
SEGMENTATION, PROGNOSIS = OURS, "DuPLUSSurvivalTrainer"
SIDE, SPACING, PATIENTS = 24, 4.0, 150
EFFECT = 0.9


@dataclass(frozen=True)
class Study:
    """One dataset and its training.

    Attributes:
        number: nnU-Net's number of the dataset.
        name: nnU-Net's name of the dataset.
        folds: Number of folds.
        epochs: Number of epochs, of 50 iterations, of each fold's segmentation.
        image: Whether the hazard depends on the image; None: real patients.
        sources: nnU-Net's numbers of the datasets of real patients; several are composed into one.
        repeats: Number of repetitions with new folds.
    """

    number: int
    name: str
    folds: int
    epochs: int
    image: bool | None
    sources: tuple[int, ...] = ()
    repeats: int = 1


STUDIES = {
    "signal": Study(991, "LesionSignal", 3, 3, True),
    "record": Study(992, "LesionNoSignal", 3, 3, False),
    "sarcoma": Study(563, "SarcomaPET", 5, 3, None, (62,), 3),
    "modalities": Study(564, "SarcomaModalities", 5, 6, None, (60, 61, 62), 3),
}
# Changes to the settings of the plans for each kind of survival model, by the name of its plans.
KINDS: dict[str, dict[str, Any]] = {
    "DuPLUSFrozen": {"survival": {"lora_epochs": 0}},
    "DuPLUSWithLoRA": {"survival": {"lora_epochs": 5}},
    # More validation iterations, as the inner held-out patients choose the epoch.
    "DuPLUSScratch": {"survival": {"encoder": "scratch", "scratch_epochs": 30}, "validation_iterations": 10},
}
SCHEMA = """\
patient: patient
time: {column: days, unit: days}
event: {column: relapse, seen: [1], censored: [0]}
covariates:
  marker: {type: numeric}
  other: {type: numeric}
"""


def call(*words: object) -> str:
    """Run a command of this environment and return its standard output."""
    command = [str(SCRIPTS / str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True).stdout


def draw_phantom(radius: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Draw an image with one bright ball, and its label map."""
    axes = np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij")
    centre = rng.uniform(8, SIDE - 8, 3)
    inside = sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)) <= radius**2
    image = np.where(inside, 150.0, -50.0) + rng.normal(0, 20, inside.shape)
    return image.astype(np.float32), inside.astype(np.uint8)


def write_phantoms(study: Study, folder: Path) -> None:
    """Write phantoms with a known hazard, their clinical table and its schema."""
    rng = np.random.default_rng(study.number)
    rows = []
    for number in range(PATIENTS):
        radius, marker = rng.uniform(2.5, 7.0), rng.normal()
        image, labels = draw_phantom(radius, rng)
        for values, kind, name in ((image, "imagesTr", f"P{number:03d}_0000"), (labels, "labelsTr", f"P{number:03d}")):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.diag([SPACING] * 3 + [1.0])), folder / kind / f"{name}.nii.gz")
        size = (3 * np.log(radius) - 4.5) / 0.9  # mean about 0, standard deviation about 1
        log_hazard = EFFECT * marker + (EFFECT * size if study.image else 0.0)
        event, censoring = rng.exponential(400 * np.exp(-log_hazard)), rng.uniform(100, 1500)
        rows.append([f"P{number:03d}", f"{min(event, censoring) + 1:.1f}", int(event <= censoring), f"{marker:.4f}",
                     f"{rng.normal():.4f}"])  # fmt: skip
    describe(folder, "CT", PATIENTS, "tumour")
    with (folder / "clinical.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["patient", "days", "relapse", "marker", "other"], *rows])
    (folder / "clinical.yaml").write_text(SCHEMA)


def describe(folder: Path, channel: str, cases: int, target: str) -> None:
    """Write dataset.json."""
    content = {"channel_names": {"0": channel}, "labels": {"background": 0, target: 1}, "numTraining": cases,
               "file_ending": ".nii.gz"}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))


def link_images(number: int, folder: Path) -> None:
    """Link all images of a source, including imagesTs, as training images of one dataset."""
    source = find_folder("raw") / find_dataset(number)
    for kind in ("images", "labels"):
        (folder / f"{kind}Tr").mkdir(parents=True)
        for file in sorted(source.glob(f"{kind}T[rs]/*.nii.gz")):
            (folder / f"{kind}Tr" / file.name).symlink_to(file.resolve())
    content = json.loads((source / "dataset.json").read_text())
    content["numTraining"] = len(list((folder / "labelsTr").iterdir()))
    (folder / "dataset.json").write_text(json.dumps(content))


def gather_patients(study: Study, folder: Path, clinical: Path) -> None:
    """Make the dataset of real patients from one source or composed of several, and draft its clinical.yaml."""
    if len(study.sources) == 1:
        link_images(study.sources[0], folder)
    else:
        numbers = {source: study.number + index for index, source in enumerate(study.sources, 1)}
        for source, number in numbers.items():
            name = find_dataset(source).split("_", 1)[1]
            link_images(source, folder.with_name(f"Dataset{number}_{name}"))
        with tempfile.TemporaryDirectory() as temporary:
            spec = Path(temporary) / "compose.yaml"
            spec.write_text(f"patients: {{shared: [{list(numbers.values())}]}}\n")
            call("duplus", "compose", "-o", study.number, "-n", study.name, *numbers.values(), "--spec", spec)
        (folder / "splits_final.json").unlink()  # folds are drawn by `duplus survival split`
    shutil.copyfile(clinical, folder / "clinical.csv")
    call("duplus", "survival", "draft", study.number)


def prepare(study: Study, clinical: Path | None, kind: str) -> None:
    """Write, plan, preprocess and split a dataset, and write the plans of a kind of survival model."""
    folder = find_folder("raw") / f"Dataset{study.number}_{study.name}"
    if not folder.is_dir():
        if study.image is None:
            if clinical is None:
                sys.exit("This study needs the clinical table of the patients: --clinical sarcoma_clinical.csv")
            gather_patients(study, folder, clinical)
        else:
            write_phantoms(study, folder)
    home = find_folder("preprocessed") / folder.name
    if not (home / "splits_final.json").is_file():
        words = ("-d", study.number, "-pl", "DuPLUSPlanner", "-c", "3d_fullres")
        call("nnUNetv2_plan_and_preprocess", *words, "--no_pp")
        change_plans(home, "DuPLUSPlans", study, {})
        words = ("-d", study.number, "-plans_name", "DuPLUSPlans", "-c", "3d_fullres")
        call("nnUNetv2_preprocess", *words, "-np", os.environ.get("nnUNet_def_n_proc", "2"))
        call("duplus", "survival", "split", study.number, "--folds", study.folds, "--repeats", study.repeats)
    change_plans(home, kind, study, KINDS[kind])


def change_plans(home: Path, name: str, study: Study, changed: dict[str, Any]) -> None:
    """Write plans for a shorter training, for real images with the network of benchmarks/universal.py."""
    plans = json.loads((home / "DuPLUSPlans.json").read_text())
    plans["plans_name"] = name
    settings = plans["duplus"]["settings"]
    settings |= {"epochs": study.epochs, "iterations_per_epoch": 50, "validation_iterations": 2, "cpu_bfloat16": True}
    settings |= {"mirror_left_right": True, "mirror_other_axes": True}
    settings |= {**changed, "survival": settings.get("survival", {}) | changed.get("survival", {})}
    configuration = plans["configurations"]["3d_fullres"]
    if study.image is None:
        configuration["patch_size"], configuration["batch_size"] = PATCH, 2
        configuration["architecture"]["arch_kwargs"] |= NETWORK
    else:
        configuration["batch_size"] = 4  # the planner would choose dozens of such small images
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments["features_per_stage"] = [max(8, features // 4) for features in arguments["features_per_stage"]]
    if name != "DuPLUSPlans":  # their configurations were changed before
        plans["configurations"] = json.loads((home / "DuPLUSPlans.json").read_text())["configurations"]
    written = home / f"{name}.{os.getpid()}.tmp"  # folds may be trained in parallel
    written.write_text(json.dumps(plans, indent=1))
    written.replace(home / f"{name}.json")


def train(study: Study, trainer: str, plans: str, fold: int, device: str) -> float:
    """Train one fold unless it is finished; return the seconds that it took."""
    results = find_folder("results") / find_dataset(study.number)
    model = results / f"{trainer}__{plans}__3d_fullres" / f"fold_{fold}"
    start = time.perf_counter()
    if not (model / "checkpoint_final.pth").is_file():
        started = (model / "checkpoint_latest.pth").is_file()
        base = results / f"{SEGMENTATION}__DuPLUSPlans__3d_fullres" / f"fold_{fold}" / "checkpoint_final.pth"
        without_base = trainer == SEGMENTATION or plans == "DuPLUSScratch"
        options = ["--c"] if started else [] if without_base else ["-pretrained_weights", base]
        words = (study.number, "3d_fullres", fold, "-tr", trainer, "-p", plans, "-device", device)
        running.call("nnUNetv2_train", *words, *options)
    return time.perf_counter() - start


def learn(study: Study, plans: str, folds: Iterable[int], device: str) -> dict[str, list[float]]:
    """Train the segmentation and the survival model of folds; return the seconds that each took."""
    seconds: dict[str, list[float]] = {"segmentation": [], "prognosis": []}
    for fold in folds:
        if plans != "DuPLUSScratch":
            seconds["segmentation"].append(round(train(study, SEGMENTATION, "DuPLUSPlans", fold, device), 1))
        seconds["prognosis"].append(round(train(study, PROGNOSIS, plans, fold, device), 1))
    return seconds


def run(study: Study, plans: str, device: str) -> dict[str, Any]:
    """Train all folds that are not finished, and evaluate them."""
    folds = range(study.folds * study.repeats)
    seconds = learn(study, plans, folds, device)
    model = find_folder("results") / find_dataset(study.number) / f"{PROGNOSIS}__{plans}__3d_fullres"
    reports = [json.loads((model / f"fold_{fold}/validation/survival.json").read_text()) for fold in folds]
    evaluation = json.loads(call("duplus", "survival", "evaluate", study.number, "-m", model, "-o", model / "study",
                            "--json"))  # fmt: skip
    return {"seconds a fold": seconds, "lora": [report["lora"] for report in reports], **evaluation}


def main() -> int:
    """Run one study and print its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--clinical", type=Path, help="clinical table of the patients, for sarcoma and modalities")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--lora", dest="kind", action="store_const", const="DuPLUSWithLoRA", default="DuPLUSFrozen",
        help="with stage 2, a LoRA in the encoder")  # fmt: skip
    kind.add_argument("--scratch", dest="kind", action="store_const", const="DuPLUSScratch",
        help="without a segmentation model: train the encoder on outcomes only")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="nnU-Net's -device (default: %(default)s)")
    parser.add_argument("--only", type=int, nargs="*", metavar="FOLD", help="train these folds without evaluation; "
        "without a number: only prepare the dataset")  # fmt: skip
    args = parser.parse_args()
    study, (kind, device) = STUDIES[args.study], (args.kind, args.device)
    prepare(study, args.clinical, kind)
    print(
        json.dumps(run(study, kind, device) if args.only is None else learn(study, kind, args.only, device), indent=1)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
