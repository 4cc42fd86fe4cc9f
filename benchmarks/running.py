"""Runs commands of this environment for the benchmarks, and finds and changes what nnU-Net writes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TRAINERS = Path(__file__).with_name("trainers")
CONFIGURATION = "3d_fullres"
Plans = dict[str, Any]


def find_folder(kind: str) -> Path:
    """Return one of nnU-Net's three folders: "raw", "preprocessed" or "results"."""
    name = f"nnUNet_{kind}"
    if name not in os.environ:
        sys.exit(f"{name} is not set. Set nnU-Net's three folders: nnUNet_raw, nnUNet_preprocessed, nnUNet_results.")
    return Path(os.environ[name])


def find_dataset(number: int) -> str:
    """Return the full name of a raw dataset."""
    names = sorted(folder.name for folder in find_folder("raw").glob(f"Dataset{number:03d}_*"))
    if not names:
        sys.exit(f"There is no Dataset{number:03d}_* in nnUNet_raw, {find_folder('raw')}.")
    return names[0]


def find_preprocessed(number: int) -> Path:
    """Return the folder of a dataset in nnUNet_preprocessed."""
    return find_folder("preprocessed") / find_dataset(number)


def find_model(number: int, trainer: str, plans: str) -> Path:
    """Return the folder of a model."""
    return find_folder("results") / find_dataset(number) / f"{trainer}__{plans}__{CONFIGURATION}"


def call(*words: object, trainers: str = "", **variables: str) -> None:
    """Run a command of this environment; its output goes to stderr.

    Args:
        words: Name of the command, and its arguments.
        trainers: Code of trainers that nnU-Net finds; else those of the folder `trainers`.
        variables: Environment variables to set.
    """
    script = Path(sys.executable).with_name(str(words[0]))
    command = [str(script), *map(str, words[1:])]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "benchmark_trainers.py").write_text(trainers)
        external = folder if trainers else str(TRAINERS)
        environment = {**os.environ, "nnUNet_extTrainer": external, **variables}
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment)


def read_plans(number: int, name: str) -> Plans:
    """Read plans of a dataset."""
    plans: Plans = json.loads((find_preprocessed(number) / f"{name}.json").read_text())
    return plans


def write_plans(number: int, name: str, plans: Plans) -> None:
    """Write plans of a dataset under another name; if they are there already, they must be equal."""
    file, plans = find_preprocessed(number) / f"{name}.json", {**plans, "plans_name": name}
    if file.is_file() and json.loads(file.read_text()) == plans:
        return
    if file.is_file() and any(find_folder("results").glob(f"{find_dataset(number)}/*__{name}__*/fold_*/*.pth")):
        sys.exit(f"{file} is not what this training would have, but was trained with already; move its model away.")
    partial = file.with_name(f"{name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(plans, indent=1))
    partial.replace(file)


def prepare_dataset(number: int, planner: str, name: str) -> None:
    """Plan a dataset and preprocess it, and write nnU-Net's split; what was done is not repeated."""
    if not is_preprocessed(number, name):
        processes = os.environ.get("nnUNet_def_n_proc", "2")
        call("nnUNetv2_plan_and_preprocess", "-d", number, "-pl", planner, "-c", CONFIGURATION, "-np", processes)
    write_split(number)


def is_preprocessed(number: int, name: str) -> bool:
    """Check whether all training cases are preprocessed; of each case, nnU-Net writes the .pkl file last."""
    folder = find_folder("preprocessed") / find_dataset(number)
    if not (folder / f"{name}.json").is_file() or not (folder / "gt_segmentations").is_dir():
        return False
    plans = read_plans(number, name)
    data = folder / plans["configurations"][CONFIGURATION]["data_identifier"]
    return len(list(data.glob("*.pkl"))) == len(list((folder / "gt_segmentations").iterdir()))


def write_split(number: int) -> None:
    """Write nnU-Net's five folds unless there is a split, so that trainings side by side do not write it at once."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    folder = find_preprocessed(number)
    if not (folder / "splits_final.json").is_file():
        cases = sorted(file.name.split(".nii")[0] for file in (folder / "gt_segmentations").iterdir())
        (folder / "splits_final.json").write_text(json.dumps(generate_crossval_split(cases), default=str, indent=1))


def is_trained(model: Path, fold: int = 0) -> bool:
    """Check whether a training ended."""
    return (model / f"fold_{fold}" / "checkpoint_final.pth").is_file()


def train(number: int, trainer: str, plans: str, device: str, fold: int = 0, **variables: str) -> None:
    """Train a fold, or continue an interrupted training; a finished one is only validated."""
    end = "--val" if is_trained(find_model(number, trainer, plans), fold) else "--c"
    words = (number, CONFIGURATION, fold, "-tr", trainer, "-p", plans, "-device", device, end)
    call("nnUNetv2_train", *words, **variables)
