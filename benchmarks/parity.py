"""Compares the accuracy of DuPLUSTrainer and stock nnUNetTrainer with the same data, folds, patch size and length.

Both are planned, trained and validated by nnU-Net's own commands, each with nnU-Net's SGD and with AdamW, with training
images mirrored, as nnU-Net does, and not. All have the same network, patch size, batch size and precision (bfloat16, on
a CPU too). The held-out cases of each fold are predicted without mirror images unless asked for. Intervals are over
trainings (seeds and folds) and cases. Stock trainings are seeded too, but nnU-Net's augmentation workers are not: they
differ a little when repeated.

Stages can be run separately; an interrupted training is continued, a finished one is skipped. nnU-Net's three folders
must be set.

Examples:
  python benchmarks/parity.py prepare
  python benchmarks/parity.py train ours stock --folds 0 1 --seeds 1 2 3
  python benchmarks/parity.py train ours_mirrored ours_sgd stock_adamw stock_adamw_unmirrored    # the others
  python benchmarks/parity.py report --reference stock                       # JSON
  python benchmarks/parity.py report --keep parity.json    # adds the trainings of this machine to those in the file
"""

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import running
from intervals import Score, compare, estimate, estimate_each
from kept_results import keep_results
from training_logs import read_fold, summarise

OURS, STOCK = ("DuPLUSPlanner", "DuPLUSPlans"), ("ExperimentPlanner", "nnUNetPlans")
# Each training: whether it is ours, its optimizer, and whether its images are mirrored.
RUNS = {
    "ours": (True, "adamw", False),
    "ours_mirrored": (True, "adamw", True),
    "ours_sgd": (True, "sgd", True),
    "stock": (False, "sgd", True),
    "stock_adamw": (False, "adamw", True),
    "stock_adamw_unmirrored": (False, "adamw", False),
}
START = 0.5


@dataclass(frozen=True)
class Size:
    """What all trainings have in common: dataset, length and batch size."""

    dataset: int
    epochs: int
    iterations: int
    validation_iterations: int
    batch: int


@dataclass(frozen=True)
class Run:
    """One training."""

    kind: str
    fold: int
    seed: int
    size: Size

    @property
    def name(self) -> str:
        """Name for readers."""
        return f"{self.kind}, fold {self.fold}, seed {self.seed}"

    @property
    def plans(self) -> str:
        """Name of its plans."""
        return f"parity-{self.kind}-{self.size.epochs}x{self.size.iterations}-b{self.size.batch}-{self.seed}"

    @property
    def trainer(self) -> str:
        """Name of its trainer."""
        return "DuPLUSTrainerValidated" if RUNS[self.kind][0] else "StockTrainer"

    @property
    def folder(self) -> Path:
        """Folder that nnU-Net writes it to."""
        return running.find_model(self.size.dataset, self.trainer, self.plans) / f"fold_{self.fold}"

    def find_summary(self, mirrored: bool) -> Path:
        """Return the file with the scores of the held-out cases."""
        return self.folder / ("mirrored" if mirrored else "") / "validation" / "summary.json"


def make_plans(run: Run) -> running.Plans:
    """Give the plans of a training the network, patch size and batch size that nnU-Net planned, and the length."""
    ours, optimizer, mirrored = RUNS[run.kind]
    size, stock = run.size, running.read_plans(run.size.dataset, STOCK[1])
    planned = stock["configurations"][running.CONFIGURATION]
    length = {"epochs": size.epochs, "validation_iterations": size.validation_iterations}
    choice = {"seed": run.seed, "optimizer": optimizer, **length}
    if not ours:
        planned["batch_size"] = size.batch
        return {**stock, "benchmark": {**choice, "iterations": size.iterations, "mirror": mirrored}}
    plans = running.read_plans(size.dataset, OURS[1])
    configuration = plans["configurations"][running.CONFIGURATION]
    for key in ("patch_size", "architecture"):
        configuration[key] = planned[key]
    configuration["batch_size"] = size.batch
    settings = plans["duplus"]["settings"]
    settings |= {**choice, "iterations_per_epoch": size.iterations, "initial_learning_rate": None, "cpu_bfloat16": True}
    settings |= {"mirror_left_right": mirrored, "mirror_other_axes": mirrored}
    return plans


def prepare(dataset: int) -> None:
    """Plan and preprocess for both; refuse a dataset for which they differ in spacing or order of axes."""
    for planner, name in (STOCK, OURS):
        running.prepare_dataset(dataset, planner, name)
    plans = [running.read_plans(dataset, name) for _, name in (STOCK, OURS)]
    grids = [(p["configurations"][running.CONFIGURATION]["spacing"], p["transpose_forward"]) for p in plans]
    if grids[0] != grids[1]:
        sys.exit(f"Spacing (mm) and order of axes must be equal; nnU-Net plans {grids[0]} and DuPLUS {grids[1]}.")


def train(run: Run, device: str, mirrored: bool) -> None:
    """Train and validate, unless that is done; a finished training of that name with other plans is refused."""
    running.write_plans(run.size.dataset, run.plans, make_plans(run))
    if run.find_summary(mirrored).is_file():
        return
    variables = {"BENCHMARK_MIRRORED": "1" if mirrored else "0"}
    running.train(run.size.dataset, run.trainer, run.plans, device, run.fold, **variables)


@dataclass(frozen=True)
class Result:
    """What a training reached.

    Attributes:
        start: Iterations until the online Dice of all targets was above START.
        dice: Dice of each held-out case, by case and target; without those that neither predict nor contain it.
    """

    start: int
    dice: dict[str, dict[str, float]]

    def list_scores(self, run: Run) -> list[Score]:
        """List the scores for the bootstrap."""
        training, stratum = f"{run.fold}-{run.seed}", str(run.fold)
        return [
            Score(training, case, target, value, stratum=stratum)
            for case, targets in self.dice.items()
            for target, value in targets.items()
        ]


Results = dict[str, Result]


def read_result(run: Run, mirrored: bool) -> Result:
    """Read the Dice of each held-out case and target, and when they were found, of a finished training."""
    summary = json.loads(run.find_summary(mirrored).read_text())
    raw = running.find_folder("raw") / running.find_dataset(run.size.dataset) / "dataset.json"
    names = {str(value): name for name, value in json.loads(raw.read_text())["labels"].items()}
    dice: dict[str, dict[str, float]] = {}
    for case in summary["metric_per_case"]:
        scores = {names[value]: metrics["Dice"] for value, metrics in case["metrics"].items()}
        name = Path(case["reference_file"]).name.split(".")[0]
        dice[name] = {target: round(value, 5) for target, value in scores.items() if not math.isnan(value)}
    return Result(read_fold(run.folder).find_start(START, run.size.iterations), dice)


def keep(file: Path, size: Size, mirrored: bool, results: Results) -> Results:
    """Add results to those in a file, if those are of the same size, and return all."""
    plain = {name: asdict(result) for name, result in results.items()}
    together = keep_results(file, {**asdict(size), "mirrored": mirrored}, plain)
    return {name: Result(**content) for name, content in together.items()}


def report_kind(runs: list[Run], results: Results) -> tuple[dict[str, Any], list[Score]]:
    """Report the trainings of one kind, and return their scores."""
    rows, together = {}, []
    for run in runs:
        result = results[run.name]
        scores = result.list_scores(run)
        rows[f"fold {run.fold}, seed {run.seed}"] = {"dice": estimate(scores)["mean"], "start": result.start}
        together += scores
    worst = min(rows, key=lambda name: rows[name]["dice"])
    row = {"dice": estimate(together), "worst_run": {"run": worst, **rows[worst]}}
    row |= {"starts": summarise([row["start"] for row in rows.values()]), "targets": estimate_each(together)}
    return {**row, "runs": rows}, together


def report(runs: list[Run], reference: str, mirrored: bool, file: Path | None = None) -> dict[str, Any]:
    """Report all finished trainings, and the difference of each kind to the reference in the runs that both have."""
    results = {run.name: read_result(run, mirrored) for run in runs if run.find_summary(mirrored).is_file()}
    if file is not None:
        results = keep(file, runs[0].size, mirrored, results)
    done = [run for run in runs if run.name in results]
    missing = [run.name for run in runs if run not in done]
    kinds = list(dict.fromkeys(run.kind for run in done))
    reported = {kind: report_kind([run for run in done if run.kind == kind], results) for kind in kinds}
    result: dict[str, Any] = {kind: row for kind, (row, _) in reported.items()}
    if reference in reported:
        for kind in kinds:
            if kind != reference:
                result[kind]["difference"] = compare(reported[kind][1], reported[reference][1])
    conditions = {"start": f"iterations until the online Dice of all targets is above {START}", "mirrored": mirrored}
    return {**conditions, "reference": reference, "missing": missing, "trainings": result}


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("prepare", "train", "report"))
    parser.add_argument("kinds", nargs="*", metavar="RUN", help=f"{', '.join(RUNS)} (default: all)")
    parser.add_argument("--dataset", type=int, default=4)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=50, help="training iterations in an epoch (nnU-Net: 250)")
    parser.add_argument("--validation-iterations", type=int, default=5, help="nnU-Net: 50")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mirrored", action="store_true", help="predict held-out cases with mirror images")
    parser.add_argument("--reference", choices=tuple(RUNS), default="stock", help="report: what others are compared to")
    words = "report: file of results, to which those of this machine are added; all are reported"
    parser.add_argument("--keep", type=Path, metavar="FILE", help=words)
    args = parser.parse_args()
    args.kinds = args.kinds or list(RUNS)
    if unknown := set(args.kinds) - set(RUNS):
        parser.error(f"unknown training {sorted(unknown)}; there are {', '.join(RUNS)}")
    return args


def main() -> int:
    """Run one stage; "report" prints JSON."""
    args = read_arguments()
    size = Size(args.dataset, args.epochs, args.iterations, args.validation_iterations, args.batch)
    runs = [Run(kind, fold, seed, size) for seed in args.seeds for fold in args.folds for kind in args.kinds]
    if args.stage == "prepare":
        prepare(args.dataset)
    elif args.stage == "train":
        for run in runs:
            train(run, args.device, args.mirrored)
    else:
        print(json.dumps(report(runs, args.reference, args.mirrored, args.keep), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
