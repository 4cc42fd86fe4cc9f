"""Compares the accuracy of DuPLUSTrainer and stock nnUNetTrainer with the same data, folds, patch size and length.

Both are planned, trained and validated by nnU-Net's own commands, alternately, fold by fold; the cases of all
validation folds are compared in pairs, with a bootstrap over cases. nnU-Net's three folders must be set.

Example: python benchmarks/parity.py --dataset 4 --folds 0 1 --epochs 10 --iterations 50 --json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SHORT_TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerShort(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = {epochs}
        self.num_iterations_per_epoch = {iterations}
        self.num_val_iterations_per_epoch = {validation}
        self.save_every = 1
"""
RUNS = {
    "stock": ("ExperimentPlanner", "nnUNetPlans", "nnUNetTrainerShort"),
    "duplus": ("DuPLUSPlanner", "DuPLUSPlans", "DuPLUSTrainer"),
}


def find_dataset(number: int) -> str:
    """Return the dataset's full name."""
    return next(Path(os.environ["nnUNet_raw"]).glob(f"Dataset{number:03d}_*")).name


def call(*words: str, **variables: str) -> None:
    """Run a command of nnU-Net in this environment."""
    script = Path(sys.executable).with_name(words[0])
    subprocess.run([script, *words[1:]], check=True, stdout=sys.stderr, env={**os.environ, **variables})


def plan(args: argparse.Namespace, name: str) -> None:
    """Plan and preprocess for both trainers, and set the same batch size and length in both plans."""
    for planner, plans_name, _ in RUNS.values():
        call("nnUNetv2_plan_and_preprocess", "-d", str(args.dataset), "-pl", planner, "-c", "3d_fullres")
        file = Path(os.environ["nnUNet_preprocessed"]) / name / f"{plans_name}.json"
        plans = json.loads(file.read_text())
        plans["configurations"]["3d_fullres"]["batch_size"] = args.batch
        if "duplus" in plans:
            plans["duplus"]["settings"] |= {
                "epochs": args.epochs,
                "iterations_per_epoch": args.iterations,
                "validation_iterations": args.validation_iterations,
            }
        file.write_text(json.dumps(plans, indent=2))


def train(args: argparse.Namespace) -> None:
    """Train and validate both alternately, fold by fold."""
    with tempfile.TemporaryDirectory() as folder:
        code = SHORT_TRAINER.format(
            epochs=args.epochs, iterations=args.iterations, validation=args.validation_iterations
        )
        (Path(folder) / "nnUNetTrainerShort.py").write_text(code)
        for fold in args.folds:
            for _, plans_name, trainer in RUNS.values():
                words = (str(args.dataset), "3d_fullres", str(fold), "-tr", trainer, "-p", plans_name)
                call("nnUNetv2_train", *words, "-device", args.device, nnUNet_extTrainer=folder)


def read_scores(name: str, kind: str, folds: list[int]) -> dict[str, float]:
    """Return the mean Dice over targets of each validation case, 0 to 1."""
    _, plans_name, trainer = RUNS[kind]
    model = Path(os.environ["nnUNet_results"]) / name / f"{trainer}__{plans_name}__3d_fullres"
    scores = {}
    for fold in folds:
        summary = json.loads((model / f"fold_{fold}" / "validation" / "summary.json").read_text())
        for case in summary["metric_per_case"]:
            dice = [target["Dice"] for target in case["metrics"].values()]
            scores[Path(case["prediction_file"]).name] = float(np.nanmean(dice))
    return scores


def compare(ours: dict[str, float], stock: dict[str, float], draws: int = 10000) -> dict[str, Any]:
    """Compare paired scores; the interval is the 2.5th to 97.5th percentile of bootstrapped mean differences."""
    cases = sorted(ours)
    difference = np.array([ours[case] - stock[case] for case in cases])
    picks = np.random.default_rng(0).integers(0, len(cases), (draws, len(cases)))
    low, high = np.percentile(difference[picks].mean(1), [2.5, 97.5])
    return {
        "cases": len(cases),
        "duplus_dice": round(float(np.mean(list(ours.values()))), 4),
        "stock_dice": round(float(np.mean(list(stock.values()))), 4),
        "difference": round(float(difference.mean()), 4),
        "interval_95": [round(float(low), 4), round(float(high), 4)],
    }


def main() -> int:
    """Train both or read their results, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=int, default=4)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=50, help="training iterations in an epoch")
    parser.add_argument("--validation-iterations", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--read-only", action="store_true", help="only compare existing results")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    name = find_dataset(args.dataset)
    if not args.read_only:
        plan(args, name)
        train(args)
    result = compare(*(read_scores(name, kind, args.folds) for kind in ("duplus", "stock")))
    low, high = result["interval_95"]
    text = (
        f"DuPLUS {result['duplus_dice']}, stock {result['stock_dice']}: {result['difference']:+} ({low:+} to {high:+})"
    )
    print(json.dumps(result, indent=1) if args.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
