"""Tests what the context prompt does: images of sarcoma are predicted with prompts of their own and other modalities.

The models are those that `universal.py` trains. nnU-Net's three folders must be set. Prints JSON.

Examples:
  python benchmarks/universal.py train full no_film --seeds 1
  python benchmarks/context_exchange.py full no_film --seeds 1
  python benchmarks/context_exchange.py full --seeds 1 --exchange-target-prompts
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from universal import MODELS, NUMBER, Run, evaluate, predict, read_tests

SARCOMA = {"sarcoma_ct": "SarcomaCT", "sarcoma_mr": "SarcomaMR", "sarcoma_pet": "SarcomaPET"}


def swap_contexts(model: Path, copy: Path, shift: int, and_targets: bool) -> None:
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
        if and_targets:
            contexts[name]["target_prompts"] = other["target_prompts"]
    (copy / "plans.json").write_text(json.dumps(plans))


def compare_contexts(runs: Sequence[Run], out: Path, device: str, with_targets: bool = False) -> dict[str, Any]:
    """Measure the Dice of the sarcoma with the correct prompts, and with prompts of other modalities."""
    cases = [case for case, (source, _) in read_tests().items() if source in SARCOMA.values()]
    table: dict[str, Any] = {}
    for run in runs:
        name, model = run.plans, run.models[NUMBER]
        both = ((1, True), (2, True)) if with_targets else ()
        for shift, and_targets in ((0, False), (1, False), (2, False), *both):
            texts = "both prompts" if and_targets else "context prompt"
            what = f"{texts} of modality +{shift}" if shift else "right prompts"
            folder = out / f"{name}_{shift}{and_targets}"
            swap_contexts(model, folder / "model", shift, and_targets)
            predict(folder / "model", folder / "predictions", cases, device)
            means = evaluate(folder / "predictions", "--allow-missing")["sources"]
            table.setdefault(name, {})[what] = {source: means[source]["mean"]["dice"] for source in SARCOMA.values()}
    return table


def main() -> int:
    """Predict and score with exchanged prompts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=tuple(MODELS), metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--iterations", type=int, help="that they were trained for (default: as in universal.py)")
    parser.add_argument("--out", type=Path, default=Path("universal_predictions"), help="folder for predictions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--exchange-target-prompts", action="store_true", help="also exchange both prompts")
    args = parser.parse_args()
    runs = [
        Run(name, seed, args.iterations or MODELS[name].iterations, False)
        for seed in args.seeds
        for name in args.models
    ]
    table = compare_contexts(runs, args.out.resolve(), args.device, args.exchange_target_prompts)
    print(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
