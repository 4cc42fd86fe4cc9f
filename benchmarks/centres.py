"""Adapts a model of one centre to the scanner of another centre with 5, 10 and 20 cases, by LoRA and by all weights.

Data are phantoms: the second scanner shows the same organs with less contrast, more noise, a coarser anisotropic grid
and another field of view. Test images of both centres are scored only; intervals are those of the paired difference to
the model before adaptation (patient bootstrap). nnU-Net's three folders must be set, initially to empty folders;
finished steps are skipped, interrupted ones continued.

Example:
  python benchmarks/centres.py > centres.json
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import running
from adaptation import make_old_model
from running import call, find_dataset, find_folder
from universal import evaluate_folder

from duplus_nnunet.data.phantom_sources import PHANTOM_CT, write_phantom_sources

BASE, TRAINER, ADAPTER = PHANTOM_CT.number, "DuPLUSTrainerShort", "DuPLUSLoRATrainerShort"
BASE_CASES, TESTS, SEED = 20, 10, 0
# No contrast medium, half the dose, a softer kernel, thick slices and a smaller field of view.
PLAIN = dict.fromkeys(("liver", "spleen", "left kidney", "right kidney"), 85.0) | {"aorta": 45.0, "stomach": 25.0}
SCAN = replace(
    PHANTOM_CT.scan,
    intensities={**PHANTOM_CT.scan.intensities, **PLAIN},
    noise=32.0,
    blur=4.5,
    shape=(44, 44, 22),
    spacing=(5.5, 5.5, 10.0),
)
SOURCES = {cases: replace(PHANTOM_CT, number=910 + cases, name=f"CentreB{cases}", scan=SCAN) for cases in (5, 10, 20)}
BASE_EPOCHS, EPOCHS, ITERATIONS = 16, 4, 50
MEAN = "(mean over targets)"
METHODS = {"lora": ADAPTER, "full": TRAINER}


def change_plans(number: int, epochs: int, divisor: int = 1) -> None:
    """Shorten the training in the plans of a dataset, and divide the width of its network."""
    file = find_folder("preprocessed") / find_dataset(number) / "DuPLUSPlans.json"
    plans = json.loads(file.read_text())
    plans["duplus"]["settings"] |= {
        "epochs": epochs,
        "iterations_per_epoch": ITERATIONS,
        "validation_iterations": 2,
        "mirror_left_right": False,
        "mirror_other_axes": True,
        "cpu_bfloat16": True,
    }
    network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [features // divisor for features in network["features_per_stage"]]
    file.write_text(json.dumps(plans))


def is_planned(number: int) -> bool:
    """Check whether a dataset is planned."""
    return any(find_folder("preprocessed").glob(f"Dataset{number}_*/DuPLUSPlans.json"))


def train(number: int, trainer: str, device: str, *options: object) -> Path:
    """Train, continue an interrupted training, or skip a finished one; return the model folder."""
    model = running.find_model(number, trainer, "DuPLUSPlans")
    if not (model / "fold_all" / "checkpoint_final.pth").is_file():
        started = (model / "fold_all" / "checkpoint_latest.pth").is_file()
        words = (number, "3d_fullres", "all", "-tr", trainer, "-p", "DuPLUSPlans", "-device", device)
        call("nnUNetv2_train", *words, *(("--c",) if started else options))
    return model


def predict(model: Path, number: int, context: str, out: Path, device: str) -> Path:
    """Predict the test images of a dataset in a context, without mirroring."""
    images = find_folder("raw") / find_dataset(number) / "imagesTs"
    fast = ("-f", "all", "-device", device, "--disable_tta", "-npp", 1, "-nps", 1, "--continue_prediction")
    call("nnUNetv2_predict_from_modelfolder", "-i", images, "-o", out, "-m", model, *fast, "--context", context)
    return out


def score(folder: Path, number: int, before: Path | None = None) -> dict[str, Any]:
    """Score predictions of the test images of a dataset by the mean over targets, optionally against earlier ones."""
    raw = find_folder("raw") / find_dataset(number)
    options = () if before is None else ("--compare", before / "scores.json")
    scores = evaluate_folder(folder, raw, *options)
    (source,) = scores["sources"].values()
    result = {name: source["mean"][name] for name in ("dice", "dice_interval")}
    for row in scores.get("comparison", {}).get("differences", ()):
        if row["source"] in scores["sources"] and row["target"] == MEAN and row["metric"] == "dice":
            result |= {"gain": row["difference"], "gain_interval": row["interval"]}
    return result


def count_different_voxels(first: Path, second: Path) -> int:
    """Count the voxels in which the label maps of two folders differ."""
    import nibabel

    total = 0
    for file in sorted(first.glob("*.nii.gz")):
        images: Sequence[Any] = [nibabel.load(folder / file.name) for folder in (first, second)]
        total += int(np.sum(np.asarray(images[0].dataobj) != np.asarray(images[1].dataobj)))
    return total


def run(out: Path, device: str) -> dict[str, Any]:
    """Train the base, adapt it to the other centre, and score both centres before and after."""
    raw = find_folder("raw")
    if not (raw / PHANTOM_CT.dataset).is_dir():
        write_phantom_sources(raw, BASE_CASES, TESTS, SEED, (PHANTOM_CT,))
    if not is_planned(BASE):
        call("nnUNetv2_plan_and_preprocess", "-d", BASE, "-pl", "DuPLUSPlanner", "-c", "3d_fullres", "-np", 1)
        change_plans(BASE, BASE_EPOCHS, divisor=2)
    base = train(BASE, TRAINER, device)
    old = predict(base, BASE, PHANTOM_CT.context, out / "old_before", device)
    results: dict[str, Any] = {"old centre before": score(old, BASE)}
    for cases, source in SOURCES.items():
        if not (raw / source.dataset).is_dir():
            write_phantom_sources(raw, cases, TESTS, SEED, (source,))
        if not is_planned(source.number):
            call("duplus", "adapt", "plan", source.number, "--from-model", base, "-np", 1)
            change_plans(source.number, EPOCHS)
        before = predict(base, source.number, PHANTOM_CT.context, out / f"before_{cases}", device)
        results[f"{cases} cases"] = {"before": score(before, source.number)}
        for method, trainer in METHODS.items():
            start = ("-pretrained_weights", base / "fold_all" / "checkpoint_final.pth")
            model = train(source.number, trainer, device, *start)
            new = predict(model, source.number, source.context, out / f"{method}_{cases}", device)
            tuned = out / f"{method}_{cases}_model"
            keeper = model if trainer == ADAPTER else make_old_model(base, model / "fold_all", tuned, "all")
            after = predict(keeper, BASE, PHANTOM_CT.context, out / f"{method}_{cases}_old", device)
            results[f"{cases} cases"][method] = {
                **score(new, source.number, before),
                "old centre": score(after, BASE, old),
                "voxels of the old centre that changed": count_different_voxels(old, after),
            }
    return results


def main() -> int:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("centres_predictions"), help="folder for predictions")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(json.dumps(run(args.out.resolve(), args.device), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
