"""Compares ways to adapt a base model to new data (head, LoRA, all weights) with training from scratch.

The base is trained on datasets 4 and 50, composed; the new dataset is 62. The old targets are scored before and after
adaptation. All models have the network of benchmarks/universal.py and the same number of iterations. imagesTs is used
for testing only. Stages can be run separately, and an interrupted training is continued. nnU-Net's three folders must
be set.

Examples:
  python benchmarks/adaptation.py base          # composes, plans and trains the base
  python benchmarks/adaptation.py prepare       # plans dataset 62 for it
  python benchmarks/adaptation.py train lora_8  # or lora_4, lora_16, lora_4_encoder, head, full, scratch
  python benchmarks/adaptation.py score lora_8 full scratch      # as JSON
"""

import argparse
import json
import re
import resource
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running import call, find_dataset, find_folder, find_model
from universal import evaluate_folder, read_tests, shrink

NUMBER, NAME, OLD, NEW = 502, "Base", (4, 50), 62
BASE_ITERATIONS, ITERATIONS = 1000, 500
SETTINGS = {
    "iterations_per_epoch": 50, "validation_iterations": 5, "cpu_bfloat16": True,
    "mirror_left_right": True, "mirror_other_axes": True,
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """One way to learn the new dataset: plans, trainer, whether it starts from the base, and changed settings."""

    plans: str
    trainer: str = "DuPLUSLoRATrainerShort"
    pretrained: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


WAIT = ITERATIONS // SETTINGS["iterations_per_epoch"]
METHODS = {
    **{
        f"lora_{r}": Method(f"DuPLUSLoRA{r}", settings={"adaptation": {"r": r, "lora_alpha": 2 * r}})
        for r in (4, 8, 16)
    },
    "lora_4_encoder": Method(
        "DuPLUSLoRA4Encoder", settings={"adaptation": {"r": 4, "lora_alpha": 8, "target_modules": ["^encoder"]}}
    ),
    "head": Method(
        "DuPLUSHead", "DuPLUSTrainerShort", settings={"frozen_encoder_epochs": WAIT, "frozen_decoder_epochs": WAIT}
    ),
    "full": Method("DuPLUSFull", "DuPLUSTrainerShort"),
    "scratch": Method("DuPLUSScratch", "DuPLUSTrainerShort", pretrained=False),
}


def find_base() -> Path:
    """Return the folder of the base."""
    return find_model(NUMBER, "DuPLUSTrainerShort", "DuPLUSPlans")


def train_base(device: str) -> None:
    """Compose, plan, preprocess and train the base; finished steps are skipped, interrupted training is continued."""
    call("duplus", "compose", "-o", NUMBER, "-n", NAME, *OLD)
    file = find_folder("preprocessed") / find_dataset(NUMBER) / "DuPLUSPlans.json"
    if not file.is_file():
        call("nnUNetv2_plan_and_preprocess", "-d", NUMBER, "-pl", "DuPLUSPlanner", "-c", "3d_fullres", "--no_pp")
        plans = json.loads(file.read_text())
        shrink(plans)
        plans["duplus"]["settings"] |= {**SETTINGS, "epochs": BASE_ITERATIONS // SETTINGS["iterations_per_epoch"]}
        file.write_text(json.dumps(plans, indent=1))
        call("nnUNetv2_preprocess", "-d", NUMBER, "-plans_name", "DuPLUSPlans", "-c", "3d_fullres", "-np", 2)
    words = (NUMBER, "3d_fullres", 0, "-tr", "DuPLUSTrainerShort", "-p", "DuPLUSPlans", "-device", device)
    call("nnUNetv2_train", *words, "--c")


def prepare() -> None:
    """Plan and preprocess the new dataset for the base, and write the plans of each method."""
    call("duplus", "adapt", "plan", NEW, "--from-model", find_base(), "-np", 2)
    file = find_folder("preprocessed") / find_dataset(NEW) / "DuPLUSPlans.json"
    for method in METHODS.values():
        plans = json.loads(file.read_text())
        settings = plans["duplus"]["settings"] | {**SETTINGS, "epochs": WAIT}
        plans["duplus"]["settings"] = settings | method.settings
        plans["plans_name"] = method.plans
        file.with_name(f"{method.plans}.json").write_text(json.dumps(plans, indent=1))


def train(name: str, device: str) -> None:
    """Train with one method, and record the peak memory; an interrupted training is continued."""
    method = METHODS[name]
    model = find_model(NEW, method.trainer, method.plans)
    words = [NEW, "3d_fullres", 0, "-tr", method.trainer, "-p", method.plans, "-device", device]
    started = any((model / "fold_0").glob("checkpoint_*.pth"))
    start = ["-pretrained_weights", find_base() / "fold_0" / "checkpoint_final.pth"] if method.pretrained else []
    call("nnUNetv2_train", *words, *(["--c"] if started else start))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    (model / "fold_0" / "peak_gib.json").write_text(json.dumps(round(peak, 2)))


def predict(model: Path, number: int, out: Path, device: str, contexts: dict[str, str]) -> dict[str, Any]:
    """Predict the test images of a dataset, each in its context, and score them by target."""
    raw = find_folder("raw") / find_dataset(number)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "contexts.json"
        table.write_text(json.dumps(contexts))
        options = ("-f", 0, "-device", device, "--disable_tta", "-npp", 1, "-nps", 1, "--continue_prediction")
        words = ("-i", raw / "imagesTs", "-o", out, "-m", model, *options, "--context", table)
        call("nnUNetv2_predict_from_modelfolder", *words)
    home = raw if (raw / "duplus_cases.json").is_file() else model
    scores = evaluate_folder(out, raw, home=home)["sources"]
    return {name: {key: source["mean"][key] for key in ("dice", "dice_interval")} for name, source in scores.items()}


def list_contexts(number: int) -> dict[str, str]:
    """Return the context of each test case of a dataset: from its case table, else the only context."""
    raw = find_folder("raw") / find_dataset(number)
    if (raw / "duplus_cases.json").is_file():
        return {case: context for case, (_, context) in read_tests(number).items()}
    plans = json.loads((find_folder("preprocessed") / find_dataset(number) / "DuPLUSPlans.json").read_text())
    (context,) = plans["duplus"]["contexts"]
    return {file.name.removesuffix("_0000.nii.gz"): context for file in (raw / "imagesTs").glob("*_0000.nii.gz")}


def make_old_model(base: Path, tuned: Path, folder: Path, fold: str = "0") -> Path:
    """Copy the weights of a tuned fold into a copy of the base's model folder, which has the old prompts."""
    import torch

    fold_folder = folder / f"fold_{fold}"
    fold_folder.mkdir(parents=True, exist_ok=True)
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        shutil.copy(base / name, folder / name)
    checkpoint, weights = (
        torch.load(part / "checkpoint_final.pth", weights_only=True) for part in (base / fold_folder.name, tuned)
    )
    torch.save({**checkpoint, "network_weights": weights["network_weights"]}, fold_folder / "checkpoint_final.pth")
    return folder


def read_log(fold: Path) -> dict[str, Any]:
    """Read the seconds per iteration and the number of adapter weights from a training log."""
    text = "\n".join(file.read_text(errors="replace") for file in sorted(fold.glob("training_log_*.txt")))
    seconds = [float(found) for found in re.findall(r"Epoch time: ([\d.]+) s", text)]
    weights = re.search(r"convolutions, (\d+) weights \(([\d.]+)% of the base's \d+\); .*generators.*: (\d+)", text)
    lora = (
        {} if weights is None else {"lora": int(weights[1]), "share": float(weights[2]), "generators": int(weights[3])}
    )
    return {"seconds_an_iteration": round(statistics.median(seconds) / SETTINGS["iterations_per_epoch"], 3), **lora}


def score(names: list[str], out: Path, device: str) -> dict[str, Any]:
    """Score each method on the new target and on the old targets."""
    old, new = list_contexts(NUMBER), list_contexts(NEW)
    results: dict[str, Any] = {"base": {"old": predict(find_base(), NUMBER, out / "base_old", device, old)}}
    for name in names:
        method = METHODS[name]
        model = find_model(NEW, method.trainer, method.plans)
        peak = model / "fold_0" / "peak_gib.json"
        results[name] = {"new": predict(model, NEW, out / name, device, new), **read_log(model / "fold_0")}
        results[name]["peak_gib"] = json.loads(peak.read_text()) if peak.is_file() else None
        if method.trainer.startswith("DuPLUSLoRA"):
            results[name]["megabytes"] = round((model / "fold_0" / "adapter.safetensors").stat().st_size / 1e6, 2)
            keeper = model
        else:
            keeper = make_old_model(find_base(), model / "fold_0", out / f"{name}_model")
        if method.pretrained:
            results[name]["old"] = predict(keeper, NUMBER, out / f"{name}_old", device, old)
    return results


def main() -> int:
    """Run one stage and print its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("base", "prepare", "train", "score"))
    parser.add_argument("methods", nargs="*", help=", ".join(METHODS))
    parser.add_argument("--out", type=Path, default=Path("adaptation_predictions"), help="folder for predictions")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    result: dict[str, Any] = {}
    if args.stage == "base":
        train_base(args.device)
    elif args.stage == "prepare":
        prepare()
    elif args.stage == "train":
        for name in args.methods:
            train(name, args.device)
    else:
        result = score(args.methods, args.out.resolve(), args.device)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
