"""Makes the model that `duplus example` writes: composes phantoms, plans, trains on the CPU, scores, and packs.

`make example-model` runs it: minutes on two quiet cores. With --pack-only, it scores and packs what was trained in the
folder before.

Example:
  python benchmarks/example_model.py --folder example_training --output duplus_nnunet/example/files
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np

from duplus_nnunet.api import DuPLUSPredictor
from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.demo.host_commands import HostCommands
from duplus_nnunet.demo.scores import score_cases
from duplus_nnunet.demo.workspace import DATASET_ID, DATASET_NAME, Workspace
from duplus_nnunet.example.folder import VERSION
from duplus_nnunet.example.packing import CHECKPOINT, pack_model, unpack_model
from duplus_nnunet.example.sources import EXAMPLE_SOURCES, TARGETS, make_unseen_body, write_training_data
from duplus_nnunet.files import write_text
from duplus_nnunet.settings import read_settings

PATCH = (24, 32, 32)
FEATURES_DIVISOR = 4
# Bodies that the model is scored on, each scanned in all contrasts.
SCORED_BODIES = 5
LEAST_MEAN, LEAST_TARGET = 0.9, 0.8


@dataclass(frozen=True)
class Making:
    """One making of the example.

    Attributes:
        workspace: Folder of nnU-Net's files.
        commands: Runs nnU-Net's commands.
        seed: Seed of bodies and training.
        cases: Number of bodies in each contrast, of which a fifth is held out.
        epochs: Number of epochs.
        iterations: Training iterations in an epoch.
    """

    workspace: Workspace
    commands: HostCommands
    seed: int
    cases: int
    epochs: int
    iterations: int

    def train(self) -> None:
        """Write data, compose, plan and train, with the commands that a user would type."""
        write_training_data(self.workspace.raw, self.cases, self.seed)
        sources = [str(source.number) for source in EXAMPLE_SOURCES]
        self.commands.run("duplus", "compose", "-o", DATASET_ID, "-n", DATASET_NAME, *sources)
        self.commands.run(
            "nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-pl", "DuPLUSPlanner", "-c", "3d_fullres",
            "-npfp", "1", "-np", "1",
        )  # fmt: skip
        self.edit_plans()
        # One process makes batches and trains: on two cores a worker would take the time of the training.
        alone = replace(self.commands, environment={**self.commands.environment, "nnUNet_n_proc_DA": "0"})
        alone.run(
            "nnUNetv2_train", DATASET_ID, "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans",
            "-device", "cpu",
        )  # fmt: skip

    def edit_plans(self) -> None:
        """Set a thin network, a small patch, and a short training without mirror images from left to right."""
        plans = json.loads(self.workspace.plans.read_text(encoding="utf-8"))
        plans["duplus"]["settings"] |= {
            "seed": self.seed,
            "epochs": self.epochs,
            "iterations_per_epoch": self.iterations,
            "validation_iterations": 6,
            "paraphrase_probability": 0.1,
            "mirror_left_right": False,
            "mirror_other_axes": True,
            "cpu_bfloat16": True,
        }
        configuration = plans["configurations"]["3d_fullres"]
        configuration["patch_size"] = PATCH
        network = configuration["architecture"]["arch_kwargs"]
        network["features_per_stage"] = [features // FEATURES_DIVISOR for features in network["features_per_stage"]]
        self.workspace.plans.write_text(json.dumps(plans), encoding="utf-8")


def score_model(model: Path, seed: int, exchanged: bool = False) -> dict[str, dict[str, float]]:
    """Compute the mean Dice of each target, by context, on unseen bodies, without mirror images.

    Args:
        model: Model folder.
        seed: Seed of the bodies.
        exchanged: Whether each image is predicted in the next context instead of its own.
    """
    predictor = DuPLUSPredictor.from_folder(model, folds=(0,), device="cpu", mirroring=False)
    scores = {}
    for source, next_source in zip(EXAMPLE_SOURCES, [*EXAMPLE_SOURCES[1:], EXAMPLE_SOURCES[0]], strict=True):
        context = next_source.context if exchanged else source.context
        pairs = []
        for number in range(SCORED_BODIES):
            body = make_unseen_body(source, number, seed)
            prediction = predictor.predict(nibabel.Nifti1Image(body.image, body.affine), context=context)
            pairs.append((np.asarray(prediction.to_nibabel().dataobj), body.labels))
        dice = score_cases(pairs, {name: LABELS[name] for name in TARGETS})
        scores[source.context] = {name: round(float(np.mean(values)), 3) for name, values in dice.items()}
        print(context, "prompted for", source.context, scores[source.context], flush=True)
    return scores


def pack(model: Path, output: Path, cases: int) -> None:
    """Pack a trained model, score it before and after, and write the record beside it.

    Args:
        model: The model folder.
        output: Folder for model.zip and record.json.
        cases: Number of bodies in each contrast, for the record.
    """
    file = output / "model.zip"
    checkpoint = read_checkpoint(model / CHECKPOINT)
    settings = read_settings(checkpoint["init_args"]["plans"])
    print("as trained:")
    score_model(model, settings.seed)
    pack_model(model, file)
    with tempfile.TemporaryDirectory() as folder:
        unpack_model(file, Path(folder))
        print("as packed:")
        dice = score_model(Path(folder), settings.seed)
        wrong = score_model(Path(folder), settings.seed, exchanged=True)
    record = {
        "version": VERSION,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "seed": settings.seed,
        "training": {
            "bodies": cases,
            "planned_epochs": settings.epochs,
            "epochs": checkpoint["current_epoch"],
            "iterations_per_epoch": settings.iterations_per_epoch,
        },
        "bodies": SCORED_BODIES,
        "dice": dice,
        "wrong_context": wrong,
    }
    write_text(output / "record.json", json.dumps(record, indent=1) + "\n")
    means = [float(np.mean(list(scores.values()))) for scores in dice.values()]
    least = min(value for scores in dice.values() for value in scores.values())
    print(f"{file}: {file.stat().st_size} bytes; mean Dice {means}, lowest of a target {least}")
    if min(means) < LEAST_MEAN or least < LEAST_TARGET:
        raise SystemExit(f"expected means of {LEAST_MEAN} or more, and {LEAST_TARGET} or more for each target")


def main() -> None:
    """Make the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="folder for the training's files")
    add("--output", type=Path, required=True, help="folder for model.zip and record.json")
    add("--seed", type=int, default=0, help="seed of bodies and training (default: %(default)s)")
    add("--cases", type=int, default=30, help="bodies in each contrast (default: %(default)s)")
    add("--epochs", type=int, default=15, help="epochs (default: %(default)s)")
    add("--iterations", type=int, default=100, help="iterations in an epoch (default: %(default)s)")
    add("--pack-only", action="store_true", help="score and pack what was trained in the folder before")
    args = parser.parse_args()
    workspace = Workspace(args.folder.resolve())
    commands = HostCommands(workspace.environment(os.environ), workspace.log, lambda text: None)
    making = Making(workspace, commands, args.seed, args.cases, args.epochs, args.iterations)
    if not args.pack_only:
        started = time.monotonic()
        workspace.prepare()
        making.train()
        print(f"trained in {time.monotonic() - started:.0f} s")
    pack(workspace.model, args.output, args.cases)


if __name__ == "__main__":
    main()
