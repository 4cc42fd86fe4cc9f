"""Compares one model for five datasets with five specialists and with ablations.

Everything is done by commands: `duplus compose`, nnU-Net's planning, training and prediction, `duplus evaluate`. All
models have the same patch size, features, batch size and precision, or with --planned those that nnU-Net plans for
each; imagesTs is used for testing only. Our models are trained by AdamW; specialists by nnU-Net's SGD (stock) or the
same AdamW (stock_adamw). Training images of our models are not mirrored, but for some by name, and those of specialists
are, but for "unmirrored" ones; nothing is mirrored in prediction. Stages can be run separately; an interrupted training
is continued, a finished one skipped. nnU-Net's three folders must be set.

Examples:
  python benchmarks/universal.py prepare
  python benchmarks/universal.py train universal stock --seeds 1 2 3
  python benchmarks/universal.py score universal stock --seeds 1 2 3    # predicts and scores imagesTs
  python benchmarks/universal.py report universal stock --seeds 1 2 3   # compares the first with the others, as JSON
  python benchmarks/universal.py report universal stock --keep scores.json    # with the trainings kept in the file
  python benchmarks/universal.py train universal stock --planned --iterations 20000 --stock-iterations 4000
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import running
from intervals import Score, compare, estimate, estimate_each
from kept_results import keep_results
from running import call, find_dataset, find_folder
from training_logs import read_fold

NUMBER, NAME = 501, "Universal"
SOURCES = (4, 50, 60, 61, 62)
SPEC = "patients: {shared: [[60, 61, 62]]}\n"
PATCH = [48, 48, 48]
NETWORK = {
    "n_stages": 5,
    "features_per_stage": [16, 32, 64, 128, 128],
    "kernel_sizes": [[3, 3, 3]] * 5,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 4],
    "n_conv_per_stage": [2] * 5,
    "n_conv_per_stage_decoder": [2] * 4,
}
OURS, STOCK = "DuPLUSTrainerShort", "StockTrainerUnvalidated"
# Iterations and validation iterations in an epoch, and iterations of a specialist.
EPOCH, STOCK_EPOCH, STOCK_ITERATIONS = (100, 10), (50, 5), 1000
SPECIALISTS = {
    "stock": {"optimizer": "sgd"},
    "stock_adamw": {"optimizer": "adamw"},
    "stock_unmirrored": {"optimizer": "sgd", "mirror": False},
    "stock_adamw_unmirrored": {"optimizer": "adamw", "mirror": False},
}
HEAD_AND_NECK = 50


@dataclass(frozen=True)
class Model:
    """One of our models: number of iterations, changed settings, and whether sources are drawn by their cases alone."""

    iterations: int
    settings: dict[str, Any] = field(default_factory=dict)
    by_cases: bool = False


MIRRORED = {"mirror_left_right": True, "mirror_other_axes": True}
UNMIRRORED = dict.fromkeys(MIRRORED, False)
MODELS = {
    "universal": Model(5000),
    "mirrored": Model(5000, MIRRORED),
    # Earlier defaults.
    "by_cases": Model(5000, MIRRORED, by_cases=True),
    "by_cases_annotated": Model(5000, {**MIRRORED, "loss": {"dice_share": "annotated"}}, by_cases=True),
    "annotated": Model(5000, {**MIRRORED, "loss": {"dice_share": "annotated"}}),
    "full": Model(1500),
    "sgd": Model(1500, {"optimizer": "sgd"}),
    "no_t1": Model(1500, {"context_prompt": "none"}),
    "one_hot": Model(1500, {"target_prompt": "one-hot"}),
    "no_film": Model(1500, {"network": {"film": False}}),
    "no_paraphrases": Model(1500, {"paraphrase_probability": 0}),
    "negatives": Model(1500, {"negative_prompts": 2}),
}


@dataclass(frozen=True)
class Run:
    """One training of a model, or one training of each specialist."""

    name: str
    seed: int
    iterations: int
    planned: bool

    @property
    def plans(self) -> str:
        """Name of its plans, of its predictions, and in reports."""
        return f"{self.name}-{self.iterations}{'-planned' if self.planned else ''}-{self.seed}"

    @property
    def is_ours(self) -> bool:
        """Whether it is one model for all datasets."""
        return self.name in MODELS

    @property
    def models(self) -> dict[int, Path]:
        """Folder of each model, by the number of the dataset it is trained on."""
        numbers, trainer = ((NUMBER,), OURS) if self.is_ours else (SOURCES, STOCK)
        return {number: running.find_model(number, trainer, self.plans) for number in numbers}

    @property
    def epoch(self) -> tuple[int, int]:
        """Iterations and validation iterations in an epoch."""
        iterations, validation = EPOCH if self.is_ours else STOCK_EPOCH
        return min(iterations, self.iterations), validation


def shrink(plans: dict[str, Any]) -> None:
    """Set the network, patch size and batch size that all models have without --planned."""
    configuration = plans["configurations"]["3d_fullres"]
    configuration["patch_size"], configuration["batch_size"] = PATCH, 2
    configuration["architecture"]["arch_kwargs"] |= NETWORK


def compose() -> None:
    """Compose the five datasets into one."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "compose.yaml"
        spec.write_text(SPEC)
        call("duplus", "compose", "-o", NUMBER, "-n", NAME, *SOURCES, "--spec", spec)


def prepare() -> None:
    """Compose, plan and preprocess, for the universal model and for the specialists."""
    compose()
    running.prepare_dataset(NUMBER, "DuPLUSPlanner", "DuPLUSPlans")
    for source in SOURCES:
        running.prepare_dataset(source, "ExperimentPlanner", "nnUNetPlans")


def make_plans(run: Run, number: int) -> running.Plans:
    """Make the plans of a training on one dataset."""
    plans = running.read_plans(number, "DuPLUSPlans" if run.is_ours else "nnUNetPlans")
    if not run.planned:
        shrink(plans)
    iterations, validation = run.epoch
    length = {"seed": run.seed, "epochs": run.iterations // iterations, "validation_iterations": validation}
    if not run.is_ours:
        return {**plans, "benchmark": {**length, "iterations": iterations, **SPECIALISTS[run.name]}}
    settings = plans["duplus"]["settings"]
    settings |= {**length, "iterations_per_epoch": iterations, "cpu_bfloat16": True}
    settings |= {"optimizer": "adamw", "initial_learning_rate": None, **UNMIRRORED}
    if MODELS[run.name].by_cases:
        for source in plans["duplus"]["sources"].values():
            source["weight"] = round(source["cases"] ** 0.5, 3)
    for name, value in MODELS[run.name].settings.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    return plans


def train(run: Run, device: str) -> None:
    """Train one of our models, or all specialists; an interrupted training is continued.

    A finished one is skipped, and one of that name with other plans is refused.
    """
    for number, model in run.models.items():
        running.write_plans(number, run.plans, make_plans(run, number))
        if not running.is_trained(model):
            running.train(number, OURS if run.is_ours else STOCK, run.plans, device)


def read_tests(number: int = NUMBER) -> dict[str, tuple[str, str]]:
    """Return source and context of each test case of a composed dataset."""
    table = json.loads((find_folder("raw") / find_dataset(number) / "duplus_cases.json").read_text())
    sources = table["sources"]
    return {case: (entry["source"], sources[entry["source"]]["context"]) for case, entry in table["tests"].items()}


def predict(model: Path, out: Path, cases: list[str], device: str) -> None:
    """Predict test cases of the composed dataset, each in its context, without mirroring."""
    images = find_folder("raw") / find_dataset(NUMBER) / "imagesTs"
    with tempfile.TemporaryDirectory() as folder:
        contexts = {case: context for case, (_, context) in read_tests().items() if case in cases}
        (Path(folder) / "contexts.json").write_text(json.dumps(contexts))
        for case in cases:
            (Path(folder) / f"{case}_0000.nii.gz").symlink_to(next(images.glob(f"{case}_0000.nii.gz")).resolve())
        options = ("-f", 0, "-device", device, "--disable_tta", "-npp", 1, "-nps", 1, "--continue_prediction")
        words = ("-i", folder, "-o", out, "-m", model, *options, "--context", Path(folder) / "contexts.json")
        call("nnUNetv2_predict_from_modelfolder", *words)


def predict_stock(run: Run, out: Path, device: str) -> None:
    """Predict the test cases with the specialist of each source, and convert label values to the composed dataset."""
    import nibabel
    import numpy as np

    composed = json.loads((find_folder("raw") / find_dataset(NUMBER) / "dataset.json").read_text())["labels"]
    out.mkdir(parents=True, exist_ok=True)
    for number, (name, values) in zip(SOURCES, list_sources(composed), strict=True):
        dataset, part = find_dataset(number), out / "specialists" / name
        model = run.models[number]
        images = find_folder("raw") / dataset / "imagesTs"
        options = ("-f", 0, "-device", device, "--disable_tta", "-npp", 1, "-nps", 1, "--continue_prediction")
        call("nnUNetv2_predict_from_modelfolder", "-i", images, "-o", part, "-m", model, *options)
        for file in part.glob("*.nii.gz"):
            image: Any = nibabel.load(file)
            labels = np.asarray(image.dataobj)
            changed = np.zeros_like(labels)
            for own, shared in values.items():
                changed[labels == own] = shared
            nibabel.save(nibabel.Nifti1Image(changed, image.affine, image.header), out / f"{name}_{file.name}")


def list_sources(composed: dict[str, int]) -> Iterator[tuple[str, dict[int, int]]]:
    """Yield the name of each source and its label values, own -> composed, in the order of SOURCES."""
    table = json.loads((find_folder("raw") / find_dataset(NUMBER) / "duplus_cases.json").read_text())
    by_dataset = {source["dataset"]: (name, source["targets"]) for name, source in table["sources"].items()}
    for number in SOURCES:
        name, targets = by_dataset[find_dataset(number)]
        declared = json.loads((find_folder("raw") / find_dataset(number) / "dataset.json").read_text())["labels"]
        own = [value for label, value in declared.items() if label != "background"]
        yield name, {value: composed[target] for value, target in zip(own, targets, strict=True)}


def evaluate(folder: Path, *options: object) -> dict[str, Any]:
    """Score predictions of the test cases of the composed dataset."""
    return evaluate_folder(folder, find_folder("raw") / find_dataset(NUMBER), *options)


def evaluate_folder(folder: Path, raw: Path, *options: object, home: Path | None = None) -> dict[str, Any]:
    """Score predictions of the test cases of a raw dataset; names come from it, or from another model folder `home`."""
    script = Path(sys.executable).with_name("duplus")
    words = [script, "evaluate", "-p", folder, "-r", raw / "labelsTs", "-m", home or raw, "--json", *options]
    done = subprocess.run(list(map(str, words)), check=True, stdout=subprocess.PIPE, text=True)
    scores: dict[str, Any] = json.loads(done.stdout)
    return scores


def score(run: Run, out: Path, device: str) -> None:
    """Predict and score imagesTs, unless that is done."""
    if (out / run.plans / "scores.json").is_file():
        return
    if run.is_ours:
        predict(run.models[NUMBER], out / run.plans, sorted(read_tests()), device)
    else:
        predict_stock(run, out / run.plans, device)
    evaluate(out / run.plans)


def read_scores(run: Run, out: Path) -> list[Score]:
    """Read the Dice of each test case and target; an absent target that was not predicted has none."""
    content = json.loads((out / run.plans / "scores.json").read_text())
    scores = []
    for case in content["cases"].values():
        source = case["source"]
        training, stratum = (run.plans, "") if run.is_ours else (f"{run.plans} {source}", source)
        for target, row in case["targets"].items():
            if row["dice"] is not None:
                scores.append(Score(training, case["patient"], target, row["dice"], source, stratum))
    return scores


def report_starts(run: Run) -> dict[str, dict[str, int]]:
    """Return after how many iterations each target's online Dice was above a half; NEVER if it was not."""
    starts = {}
    for number, model in run.models.items():
        found = read_fold(model / "fold_0").list_starts(0.5, run.epoch[0])
        if not run.is_ours:
            labels = json.loads((find_folder("raw") / find_dataset(number) / "dataset.json").read_text())["labels"]
            found = dict(zip([name for name in labels if name != "background"], found.values(), strict=True))
        starts[find_dataset(number)] = found
    return starts


def read_result(run: Run, out: Path) -> dict[str, Any]:
    """Read what a scored training reached, as plain data: its scores, and when targets were found."""
    return {"scores": [list(astuple(score)) for score in read_scores(run, out)], "starts": report_starts(run)}


def report_model(scores: Sequence[Score], starts: Mapping[str, Any]) -> dict[str, Any]:
    """Report the trainings of one model: mean over sources, each source and target, and each training."""
    sources = sorted({score.source for score in scores})
    return {
        "dice": estimate(scores),
        "sources": {source: estimate([score for score in scores if score.source == source]) for source in sources},
        "targets": estimate_each(scores),
        "starts": dict(starts),
    }


def report_difference(first: Sequence[Score], second: Sequence[Score]) -> dict[str, Any]:
    """Report the differences of two models: mean over sources, with and without head and neck, and each source."""
    table = json.loads((find_folder("raw") / find_dataset(NUMBER) / "duplus_cases.json").read_text())["sources"]
    late = {name for name, source in table.items() if source["dataset"] == find_dataset(HEAD_AND_NECK)}
    sources = sorted({score.source for score in first})
    groups = {"all": set(sources), "without head and neck": set(sources) - late, **{name: {name} for name in sources}}
    return {
        name: compare(*([score for score in scores if score.source in group] for scores in (first, second)))
        for name, group in groups.items()
    }


def report(runs: Sequence[Run], out: Path, file: Path | None = None) -> dict[str, Any]:
    """Report all scored trainings, and the difference of the first model to each of the others."""
    results = {run.plans: read_result(run, out) for run in runs if (out / run.plans / "scores.json").is_file()}
    if file is not None:
        planned = runs[0].planned
        conditions = {"sources": list(SOURCES), "planned": planned, "patch": None if planned else PATCH}
        results = keep_results(file, conditions, results)
    done = [run for run in runs if run.plans in results]
    models = {name: [run.plans for run in done if run.name == name] for name in dict.fromkeys(run.name for run in done)}
    scores = {
        name: [Score(*row) for plans in trainings for row in results[plans]["scores"]]
        for name, trainings in models.items()
    }
    first, *others = models or [""]
    return {
        "missing": [run.plans for run in runs if run not in done],
        "models": {
            name: report_model(scores[name], {plans: results[plans]["starts"] for plans in trainings})
            for name, trainings in models.items()
        },
        "differences": {f"{first} - {other}": report_difference(scores[first], scores[other]) for other in others},
    }


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("prepare", "train", "score", "report"))
    parser.add_argument("models", nargs="*", help=", ".join([*SPECIALISTS, *MODELS]))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--iterations", type=int, help="of our models (default: universal 5000, others 1500)")
    parser.add_argument("--stock-iterations", type=int, default=STOCK_ITERATIONS, help="of each specialist")
    parser.add_argument("--planned", action="store_true", help="networks, patch and batch sizes that nnU-Net plans")
    parser.add_argument("--out", type=Path, default=Path("universal_predictions"), help="folder for predictions")
    parser.add_argument("--device", default="cpu")
    words = "report: file of results, to which those of this machine are added; named trainings in it are reported"
    parser.add_argument("--keep", type=Path, metavar="FILE", help=words)
    args = parser.parse_args()
    if unknown := [name for name in args.models if name not in {**SPECIALISTS, **MODELS}]:
        parser.error(f"unknown models {unknown}; there are {', '.join([*SPECIALISTS, *MODELS])}")
    return args


def list_runs(args: argparse.Namespace) -> list[Run]:
    """List the trainings that the command line names."""
    runs = []
    for seed in args.seeds:
        for name in args.models:
            own = args.iterations or MODELS[name].iterations if name in MODELS else args.stock_iterations
            run = Run(name, seed, own, args.planned)
            if own < 1 or own % run.epoch[0]:
                sys.exit(f"{name} cannot be trained for {own} iterations; expected a multiple of {run.epoch[0]}.")
            runs.append(run)
    return runs


def main() -> int:
    """Run one stage; "report" prints JSON."""
    args = read_arguments()
    runs, out = list_runs(args), args.out.resolve()
    if args.stage == "prepare":
        prepare()
    elif args.stage == "train":
        for run in runs:
            train(run, args.device)
    elif args.stage == "score":
        for run in runs:
            score(run, out, args.device)
    else:
        print(json.dumps(report(runs, out, args.keep), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
