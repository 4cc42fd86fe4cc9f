"""Compares choices of optimizer, loss and sampling by short trainings, several seeds each.

Every choice is a variant: settings in the plans, or for what did not become a setting a trainer of
`trainers/learning_trainers.py`. All have the same data, split, network, patch size and number of iterations; a seed
gives the same initial weights, batches and prompts in all. Each training ends with nnU-Net's own validation of the
held-out cases. A training that is there is not repeated. nnU-Net's three folders must be set.

Examples:
  python benchmarks/learning.py prepare bodies    # serves bodies_*; also: contrasts, hippocampus, head_and_neck
  python benchmarks/learning.py train bodies adamw sgd --seeds 1 2 3 4 5
  python benchmarks/learning.py report bodies --reference adamw   # JSON; of all variants, or of those named
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intervals import Score, compare_pairs, estimate, estimate_each, group_by_target
from running import call, find_dataset, find_folder
from training_logs import read_fold, summarise
from universal import PATCH, shrink

SGD = {"optimizer": "sgd"}
UNMIRRORED = {"mirror_other_axes": False}


@dataclass(frozen=True)
class Variant:
    """One choice: settings that differ from the common ones, and the trainer."""

    settings: dict[str, Any] = field(default_factory=dict)
    trainer: str = "LearningTrainer"


VARIANTS = {
    "adamw": Variant(),
    "sgd": Variant(SGD),
    "sgd_separation": Variant({**SGD, "loss": {"separation": 0.1}}),
    "adamw_3e-4": Variant({"initial_learning_rate": 3e-4}),
    "adamw_3e-3": Variant({"initial_learning_rate": 3e-3}),
    "warmup": Variant({"warmup_iterations": 100}),
    "separation": Variant({"loss": {"separation": 0.1}}),
    "sqrt": Variant({"loss": {"reduction": "sqrt"}}),
    "sum": Variant({"loss": {"reduction": "sum"}}),
    "exclusion": Variant(trainer="TrainerExclusion"),
    "foreground": Variant(trainer="TrainerForeground"),
    "ema": Variant(trainer="TrainerEMA"),
    "generators": Variant(trainer="TrainerGeneratorsAdamW"),
    "negatives": Variant({"negative_prompts": 2}),
    "one_hot": Variant({"target_prompt": "one-hot"}),
    "no_t1": Variant({"context_prompt": "none"}),
    "no_film": Variant({"network": {"film": False}}),
    "paraphrases": Variant({"paraphrase_probability": 0.25}),
    "mirrored": Variant({"mirror_left_right": True}),
    "left_right": Variant({"mirror_left_right": True, **UNMIRRORED}),
    "unmirrored": Variant(UNMIRRORED),
    "place_film": Variant(UNMIRRORED, "TrainerPlaceFiLM"),
    "place_head": Variant(UNMIRRORED, "TrainerPlaceHead"),
    "surroundings": Variant(UNMIRRORED, "TrainerSurroundings"),
}


@dataclass(frozen=True)
class Data:
    """What to train on: number of the dataset, changes of its plans, and the length of a training."""

    number: int
    patch: tuple[int, int, int] | None
    epochs: int
    iterations: int
    divisor: int


DATA = {
    "bodies": Data(902, (24, 32, 32), 8, 50, 2),
    "bodies_short": Data(902, (24, 32, 32), 4, 50, 2),
    "bodies_near": Data(902, (16, 24, 24), 8, 50, 2),
    "contrasts": Data(920, (24, 32, 32), 10, 50, 2),
    "hippocampus": Data(4, None, 6, 50, 2),
    "head_and_neck": Data(50, (PATCH[0], PATCH[1], PATCH[2]), 20, 50, 1),
}
# Real images; all other data is generated.
REAL = ("hippocampus", "head_and_neck")
# Bodies of each contrast, and images of head and neck: the first of them are trained on, the others held out.
CASES, TRAINED, SEED = 40, 24, 5
# Online Dice above which a target counts as found.
THRESHOLDS = (0.5, 0.7)
COMMON = {
    "paraphrase_probability": 0.0, "mirror_left_right": False, "mirror_other_axes": True, "cpu_bfloat16": True,
    "validation_iterations": 4,
}  # fmt: skip


def prepare(name: str) -> None:
    """Generate phantoms if needed, plan and preprocess, and write the split."""
    data = DATA[name]
    if name not in REAL and not list(find_folder("raw").glob("Dataset902_*")):
        from duplus_nnunet.data.phantom_sources import write_phantom_sources

        write_phantom_sources(find_folder("raw"), CASES, 1, SEED)
    if name == "contrasts":
        call("duplus", "compose", "-o", data.number, "-n", "Contrasts", 901, 902, 903)
    call("nnUNetv2_plan_and_preprocess", "-d", data.number, "-pl", "DuPLUSPlanner", "-c", "3d_fullres", "--no_pp")
    file = find_folder("preprocessed") / find_dataset(data.number) / "DuPLUSPlans.json"
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["batch_size"] = 2
    configuration["patch_size"] = data.patch or configuration["patch_size"]
    if name == "head_and_neck":
        shrink(plans)
    network = configuration["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [features // data.divisor for features in network["features_per_stage"]]
    file.write_text(json.dumps(plans))
    call("nnUNetv2_preprocess", "-d", data.number, "-plans_name", "DuPLUSPlans", "-c", "3d_fullres", "-np", 2)
    cases = sorted(path.name.split(".")[0] for path in (file.parent / "gt_segmentations").iterdir())
    held_out = [case for number, case in enumerate(cases) if number % CASES >= TRAINED]
    if name == "hippocampus":
        held_out = cases[:60]
    split = [{"train": [case for case in cases if case not in held_out], "val": held_out}]
    (file.parent / "splits_final.json").write_text(json.dumps(split))


def name_plans(name: str, variant: str, seed: int) -> str:
    """Name the plans of one training."""
    return f"{name}-{variant}-{seed}".replace(".", "_")


def find_fold(name: str, variant: str, seed: int) -> Path:
    """Return the folder that nnU-Net writes a training to."""
    model = f"{VARIANTS[variant].trainer}__{name_plans(name, variant, seed)}__3d_fullres"
    return find_folder("results") / find_dataset(DATA[name].number) / model / "fold_0"


def train(name: str, variant: str, seed: int, iterations: int | None, device: str) -> None:
    """Train and validate one variant with one seed, unless that is done."""
    if (find_fold(name, variant, seed) / "validation" / "scores.json").exists():
        return
    data, choice = DATA[name], VARIANTS[variant]
    folder = find_folder("preprocessed") / find_dataset(data.number)
    plans = json.loads((folder / "DuPLUSPlans.json").read_text())
    configuration, settings = plans["configurations"]["3d_fullres"], plans["duplus"]["settings"]
    configuration["patch_size"] = data.patch or configuration["patch_size"]
    own = {
        key: {**settings[key], **value} if isinstance(value, dict) else value for key, value in choice.settings.items()
    }
    length = {"epochs": (iterations or data.epochs * data.iterations) // data.iterations}
    settings |= {**COMMON, "iterations_per_epoch": data.iterations, **length, "seed": seed, **own}
    plans["plans_name"] = name_plans(name, variant, seed)
    (folder / f"{plans['plans_name']}.json").write_text(json.dumps(plans))
    words = (data.number, "3d_fullres", 0, "-tr", choice.trainer, "-p", plans["plans_name"], "-device", device, "--c")
    call("nnUNetv2_train", *words)


def read_scores(name: str, variant: str, seed: int) -> list[Score]:
    """Read the Dice of each held-out case and target; an absent target that was not predicted has none."""
    content = json.loads((find_fold(name, variant, seed) / "validation" / "scores.json").read_text())
    return [
        Score(str(seed), case["patient"], target, row["dice"], case["source"], case=image)
        for image, case in content["cases"].items()
        for target, row in case["targets"].items()
        if row["dice"] is not None
    ]


def list_trained(name: str) -> list[str]:
    """List the variants of which a training is finished."""
    folder = find_folder("results") / find_dataset(DATA[name].number)
    return [
        variant
        for variant, choice in VARIANTS.items()
        if any(folder.glob(f"{choice.trainer}__{name_plans(name, variant, 0)[:-1]}*/fold_0/validation/scores.json"))
    ]


def report_variant(name: str, variant: str, seeds: Sequence[int], scores: Sequence[Score]) -> dict[str, Any]:
    """Report the trainings of one variant: Dice, iterations until all targets were found, and the worst training."""
    each = {seed: estimate([score for score in scores if score.training == str(seed)])["mean"] for seed in seeds}
    logs = [read_fold(find_fold(name, variant, seed)) for seed in seeds]
    worst = min(each, key=lambda seed: each[seed])
    return {
        "seeds": each,
        "dice": estimate(scores),
        "worst": {"seed": worst, "dice": each[worst]},
        "targets": estimate_each(scores),
        "starts": {
            str(threshold): summarise([log.find_start(threshold, DATA[name].iterations) for log in logs])
            for threshold in THRESHOLDS
        },
    }


def report_difference(scores: Sequence[Score], reference: Sequence[Score]) -> dict[str, Any]:
    """Report the difference to the reference with the same seeds, over targets and for each target."""
    others = group_by_target(reference)
    targets = {name: compare_pairs(own, others.get(name, [])) for name, own in group_by_target(scores).items()}
    return {**compare_pairs(scores, reference), "targets": targets}


def report(name: str, variants: Sequence[str], seeds: Sequence[int], reference: str) -> dict[str, Any]:
    """Report all finished trainings, and the difference of each variant to the reference."""
    order = dict.fromkeys([reference, *variants])
    done = {
        variant: [seed for seed in seeds if (find_fold(name, variant, seed) / "validation" / "scores.json").is_file()]
        for variant in order
    }
    missing = [f"{variant}, seed {seed}" for variant, own in done.items() for seed in seeds if seed not in own]
    scores = {
        variant: [score for seed in own for score in read_scores(name, variant, seed)]
        for variant, own in done.items()
        if own
    }
    rows = {variant: report_variant(name, variant, done[variant], own) for variant, own in scores.items()}
    for variant, row in rows.items():
        if variant != reference and reference in scores:
            row["difference"] = report_difference(scores[variant], scores[reference])
    about = "iterations until the online Dice of all targets is above a threshold; -1: never"
    return {"data": name, "reference": reference, "starts": about, "missing": missing, "variants": rows}


def main() -> int:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("prepare", "train", "report"))
    parser.add_argument("data", choices=tuple(DATA))
    parser.add_argument("variants", nargs="*", help=", ".join(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    lengths = "bodies 400, bodies_short 200, contrasts 500, head_and_neck 1000"
    parser.add_argument("--iterations", type=int, help=f"default: {lengths}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--reference", choices=tuple(VARIANTS), default="adamw", help="report: what others are compared to"
    )
    args = parser.parse_args()
    if unknown := [name for name in args.variants if name not in VARIANTS]:
        parser.error(f"unknown variants {unknown}; there are {', '.join(VARIANTS)}")
    if args.stage == "prepare":
        prepare(args.data)
    elif args.stage == "train":
        for seed in args.seeds:
            for variant in args.variants:
                train(args.data, variant, seed, args.iterations, args.device)
    else:
        variants = args.variants or list_trained(args.data)
        print(json.dumps(report(args.data, variants, args.seeds, args.reference), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
