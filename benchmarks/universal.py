"""Compares one model for five datasets with five specialists and with ablations, and tests the context prompt.

Everything is done by commands: `duplus compose`, nnU-Net's planning, training and prediction, `duplus evaluate`. All
models have the same patch size, features, batch size and precision; imagesTs is used for testing only. Stages can be
run separately, and an interrupted training is continued. nnU-Net's three folders must be set.

Examples:
  python benchmarks/universal.py prepare
  python benchmarks/universal.py train universal            # or stock, full, no_t1, one_hot, no_film, no_paraphrases
  python benchmarks/universal.py score universal stock      # predicts imagesTs and compares, as JSON
  python benchmarks/universal.py t1 full no_film            # correct and wrong context prompts, same images
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NUMBER, NAME = 501, "Universal"
SOURCES = (4, 50, 60, 61, 62)
SPEC = "patients: {shared: [[60, 61, 62]]}\n"
PATCH = [48, 64, 64]
NETWORK = {
    "n_stages": 5,
    "features_per_stage": [16, 32, 64, 128, 128],
    "kernel_sizes": [[3, 3, 3]] * 5,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 4],
    "n_conv_per_stage": [2] * 5,
    "n_conv_per_stage_decoder": [2] * 4,
}
SARCOMA = {"sarcoma_ct": "SarcomaCT", "sarcoma_mr": "SarcomaMR", "sarcoma_pet": "SarcomaPET"}
STOCK_ITERATIONS, STOCK_EPOCH = 1000, 50
OURS, STOCK = "DuPLUSTrainerShort", "nnUNetTrainerShort"
# No validation of whole images, since only imagesTs is scored and validation would take longer than training. Both are
# trained in bfloat16, ours by a setting in the plans.
TRAINERS = f"""
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from duplus_nnunet.trainers import DuPLUSTrainer


class {OURS}(DuPLUSTrainer):
    def perform_actual_validation(self, save_probabilities=False):
        pass


class {STOCK}(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch = {STOCK_ITERATIONS // STOCK_EPOCH}, {STOCK_EPOCH}
        self.num_val_iterations_per_epoch, self.save_every = 5, 1

    def initialize(self):
        super().initialize()
        forward = self.network.forward

        def mixed(x):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.device.type == "cpu"):
                out = forward(x)
            return [level.float() for level in out] if isinstance(out, list) else out.float()

        self.network.forward = mixed

    def perform_actual_validation(self, save_probabilities=False):
        pass
"""


@dataclass(frozen=True)
class Model:
    """One of our models: name of its plans, number of iterations, and changed settings."""

    plans: str
    iterations: int
    settings: dict[str, Any] = field(default_factory=dict)


MODELS = {
    "universal": Model("DuPLUSPlans", 5000),
    "full": Model("DuPLUSFull", 1500),
    "no_t1": Model("DuPLUSNoT1", 1500, {"context_prompt": "none"}),
    "one_hot": Model("DuPLUSOneHot", 1500, {"target_prompt": "one-hot"}),
    "no_film": Model("DuPLUSNoFiLM", 1500, {"network": {"film": False}}),
    "no_paraphrases": Model("DuPLUSNoParaphrases", 1500, {"paraphrase_probability": 0}),
}


def find_folder(kind: str) -> Path:
    """Return one of nnU-Net's three folders."""
    return Path(os.environ[f"nnUNet_{kind}"])


def find_dataset(number: int) -> str:
    """Return the full name of a dataset."""
    return next(find_folder("raw").glob(f"Dataset{number:03d}_*")).name


def call(*words: object, trainers: str = TRAINERS) -> None:
    """Run a command of this environment with the given trainers available; its output goes to stderr."""
    script = Path(sys.executable).with_name(str(words[0]))
    command = [str(script), *map(str, words[1:])]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "short_trainers.py").write_text(trainers)
        environment = {**os.environ, "nnUNet_extTrainer": folder}
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment)


def shrink(plans: dict[str, Any]) -> None:
    """Set the network, patch size and batch size of all models here in the plans."""
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
    prepare_dataset(NUMBER, "DuPLUSPlanner", "DuPLUSPlans")
    for source in SOURCES:
        prepare_dataset(source, "ExperimentPlanner", "nnUNetPlans")
    write_models()


def prepare_dataset(number: int, planner: str, name: str) -> None:
    """Plan one dataset, set the common network, and preprocess it."""
    call("nnUNetv2_plan_and_preprocess", "-d", number, "-pl", planner, "-c", "3d_fullres", "--no_pp")
    file = find_folder("preprocessed") / find_dataset(number) / f"{name}.json"
    plans = json.loads(file.read_text())
    shrink(plans)
    file.write_text(json.dumps(plans, indent=1))
    processes = os.environ.get("nnUNet_def_n_proc", "2")
    call("nnUNetv2_preprocess", "-d", number, "-plans_name", name, "-c", "3d_fullres", "-np", processes)


def write_models() -> None:
    """Write the plans of each of our models beside those of the composed dataset."""
    file = find_folder("preprocessed") / find_dataset(NUMBER) / "DuPLUSPlans.json"
    for model in MODELS.values():
        plans = json.loads(file.read_text())
        settings = plans["duplus"]["settings"]
        changed = {**model.settings, "network": {**settings["network"], **model.settings.get("network", {})}}
        settings |= {"epochs": model.iterations // 100, "iterations_per_epoch": 100, "validation_iterations": 10}
        settings["cpu_bfloat16"] = True
        plans["duplus"]["settings"], plans["plans_name"] = {**settings, **changed}, model.plans
        file.with_name(f"{model.plans}.json").write_text(json.dumps(plans, indent=1))


def train(name: str, device: str) -> None:
    """Train one of our models, or all specialists; an interrupted training is continued."""
    if name != "stock":
        words = (NUMBER, "3d_fullres", 0, "-tr", OURS, "-p", MODELS[name].plans, "-device", device)
        call("nnUNetv2_train", *words, "--c")
        return
    for source in SOURCES:
        call("nnUNetv2_train", source, "3d_fullres", 0, "-tr", STOCK, "-device", device, "--c")


def find_model(name: str) -> Path:
    """Return the folder of one of our models."""
    dataset = find_folder("results") / find_dataset(NUMBER)
    return dataset / f"{OURS}__{MODELS[name].plans}__3d_fullres"


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


def predict_stock(out: Path, device: str) -> None:
    """Predict the test cases with the specialist of each source, and convert label values to the composed dataset."""
    import nibabel
    import numpy as np

    composed = json.loads((find_folder("raw") / find_dataset(NUMBER) / "dataset.json").read_text())["labels"]
    out.mkdir(parents=True, exist_ok=True)
    for number, (name, values) in zip(SOURCES, list_sources(composed), strict=True):
        dataset, part = find_dataset(number), out / "specialists" / name
        model = find_folder("results") / dataset / f"{STOCK}__nnUNetPlans__3d_fullres"
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


def score(names: list[str], out: Path, device: str) -> dict[str, Any]:
    """Predict and score models on imagesTs; the first model is compared with each of the others."""
    tests, results = sorted(read_tests()), {}
    for name in names:
        if name == "stock":
            predict_stock(out / name, device)
        else:
            predict(find_model(name), out / name, tests, device)
        evaluate(out / name)
    for other in names[1:]:
        results[f"{names[0]} - {other}"] = evaluate(out / names[0], "--compare", out / other / "scores.json")
    return results or {names[0]: evaluate(out / names[0])}


def swap_contexts(model: Path, copy: Path, shift: int, with_t2: bool) -> None:
    """Copy a model, giving each sarcoma context the context prompt (and target prompts) of another; spacing is kept."""
    copy.mkdir(parents=True, exist_ok=True)
    for name in ("dataset.json", "dataset_fingerprint.json"):
        shutil.copy(model / name, copy / name)
    if not (copy / "fold_0").exists():
        (copy / "fold_0").symlink_to((model / "fold_0").resolve())
    plans = json.loads((model / "plans.json").read_text())
    contexts, names = plans["duplus"]["contexts"], list(SARCOMA)
    prompts = {name: {key: contexts[name][key] for key in ("sentences", "target_prompts")} for name in names}
    for index, name in enumerate(names):
        other = prompts[names[(index + shift) % len(names)]]
        contexts[name]["sentences"] = other["sentences"]
        if with_t2:
            contexts[name]["target_prompts"] = other["target_prompts"]
    (copy / "plans.json").write_text(json.dumps(plans))


def compare_contexts(names: list[str], out: Path, device: str, exchange_t2: bool = False) -> dict[str, Any]:
    """Measure the Dice of the sarcoma with the correct prompts, and with prompts of other modalities."""
    cases = [case for case, (source, _) in read_tests().items() if source in SARCOMA.values()]
    table: dict[str, Any] = {}
    for name in names:
        model = find_model(name)
        both = ((1, True), (2, True)) if exchange_t2 else ()
        for shift, with_t2 in ((0, False), (1, False), (2, False), *both):
            what = f"T1{' and T2' if with_t2 else ''} of modality +{shift}" if shift else "right texts"
            folder = out / f"{name}_{shift}{with_t2}"
            swap_contexts(model, folder / "model", shift, with_t2)
            predict(folder / "model", folder / "predictions", cases, device)
            means = evaluate(folder / "predictions", "--allow-missing")["sources"]
            table.setdefault(name, {})[what] = {source: means[source]["mean"]["dice"] for source in SARCOMA.values()}
    return table


def list_starts(log: str, threshold: float = 0.5) -> dict[str, int]:
    """Return the number of iterations after which each online Dice of a training log first exceeded a threshold."""
    names = re.search(r"Pseudo dice is of: (.*)", log)
    rows = [re.findall(r"\((\d\.[\d.e-]+|nan)\)", row) for row in re.findall(r"Pseudo dice \[(.*)\]", log)]
    length = 100 if names else STOCK_EPOCH
    known = names[1].split("; ") if names else [str(number) for number in range(len(rows[0]) if rows else 0)]
    starts = {}
    for column, name in enumerate(known):
        passed = [number for number, row in enumerate(rows, 1) if float(row[column]) > threshold]
        starts[name] = passed[0] * length if passed else -1
    return starts


def report_starts() -> dict[str, Any]:
    """Read from all training logs after how many iterations each target exceeded a Dice of 0.5; -1 if never."""
    starts = {}
    for fold in sorted(find_folder("results").glob("*/*__3d_fullres/fold_0")):
        logs = sorted(fold.glob("training_log_*.txt"))
        text = "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
        starts[f"{fold.parts[-3]} {fold.parts[-2]}"] = list_starts(text)
    return starts


def main() -> int:
    """Run one stage and print its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("prepare", "train", "score", "t1", "starts"))
    parser.add_argument("models", nargs="*", help=f"stock, {', '.join(MODELS)}")
    parser.add_argument("--out", type=Path, default=Path("universal_predictions"), help="folder for predictions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--exchange-t2", action="store_true", help="t1: also exchange both prompts")
    args = parser.parse_args()
    result: dict[str, Any] = {}
    if args.stage == "prepare":
        prepare()
    elif args.stage == "train":
        for name in args.models:
            train(name, args.device)
    elif args.stage == "score":
        result = score(args.models, args.out.resolve(), args.device)
    elif args.stage == "t1":
        result = compare_contexts(args.models, args.out.resolve(), args.device, args.exchange_t2)
    else:
        result = report_starts()
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
