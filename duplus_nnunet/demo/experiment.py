"""The demonstration's steps: what a user would do by hand with the commands of nnU-Net and of this package.

In: options, a folder, and a way to run commands. Out: files in the folder, and what was measured on them.
"""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom_sources import PHANTOM_MR, PHANTOM_SOURCES, write_phantom_sources
from duplus_nnunet.demo.cases import UnseenCase, list_cases, list_unannotated, name_apart
from duplus_nnunet.demo.control import Exchange, copy_model, exchange_contexts, exchange_targets
from duplus_nnunet.demo.host_commands import HostCommands
from duplus_nnunet.demo.measurement import Measurement
from duplus_nnunet.demo.picture import draw
from duplus_nnunet.demo.scores import Results
from duplus_nnunet.demo.workspace import DATASET_ID, DATASET_NAME, Workspace

FOLD = "0"
# Names of selections, beside those of single targets.
ALL = "all targets"
TRANSFER = "unannotated targets"
T2_EXCHANGED, T1_EXCHANGED = "T2 exchanged", "T1 exchanged"

_MODEL = ("-d", DATASET_ID, "-c", "3d_fullres", "-f", FOLD, "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans")
# nnU-Net plans for a GPU; two cores train a network with half the features three times as fast.
_THINNER = 2
# Most of a body, in voxels; the planned patch holds all of it, and takes half as long again.
_PATCH = (24, 32, 32)
# Left is told from right last in MR.
_DRAWN_TIMES = ((PHANTOM_MR, 1.25),)


@dataclass(frozen=True)
class DemoOptions:
    """What a user may change about the demonstration.

    Attributes:
        training_cases: Phantoms of each contrast to train on, five or more (they are split into five folds).
        test_cases: Unseen bodies, each scanned in every contrast.
        seed: Of the phantoms.
        epochs: Length of the training.
        iterations: Training iterations in an epoch.
        targets: Names that are asked for one at a time on the first unseen body.
        device: As nnU-Net's `-device`.
    """

    training_cases: int
    test_cases: int
    seed: int
    epochs: int
    iterations: int
    targets: tuple[str, ...]
    device: str


@dataclass(frozen=True)
class Experiment:
    """One run of the demonstration."""

    options: DemoOptions
    workspace: Workspace
    commands: HostCommands

    def write_data(self) -> None:
        """Generate a dataset a contrast; gather the unseen images, with a table of their contexts."""
        options, work = self.options, self.workspace
        write_phantom_sources(work.raw, options.training_cases, options.test_cases, options.seed)
        cases = list_cases(options.test_cases)
        self._gather(work.images, cases)
        self._gather(work.one_body, [case for case in cases if case.number == 0])
        lines = ["case,context", *(f"{case.name},{case.source.context}" for case in cases)]
        work.contexts.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def compose(self) -> None:
        """Make one dataset of all contrasts with the command of this package."""
        sources = [str(source.number) for source in PHANTOM_SOURCES]
        self.commands.run("duplus", "compose", "-o", DATASET_ID, "-n", DATASET_NAME, *sources)

    def plan(self) -> None:
        """Plan and preprocess with nnU-Net's command, then edit the plans: a short run, a thin network.

        Paraphrases are left out, since left is told from right sooner by the same two texts each time.
        """
        self.commands.run(
            "nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-pl", "DuPLUSPlanner", "-c", "3d_fullres",
            "-npfp", "1", "-np", "1",
        )  # fmt: skip
        plans = json.loads(self.workspace.plans.read_text(encoding="utf-8"))
        plans["duplus"]["settings"] |= {
            "epochs": self.options.epochs,
            "iterations_per_epoch": self.options.iterations,
            "validation_iterations": 4,
            "paraphrase_probability": 0.0,
            # A few hundred iterations are not enough to tell sides without what lies beside them, such as the liver.
            "mirror_left_right": False,
            "cpu_bfloat16": True,
        }
        for source, times in _DRAWN_TIMES:
            plans["duplus"]["sources"][source.dataset.split("_")[1]]["weight"] *= times
        configuration = plans["configurations"]["3d_fullres"]
        configuration["patch_size"] = _PATCH
        network = configuration["architecture"]["arch_kwargs"]
        network["features_per_stage"] = [features // _THINNER for features in network["features_per_stage"]]
        self.workspace.plans.write_text(json.dumps(plans), encoding="utf-8")

    def train(self) -> None:
        """Train with nnU-Net's command."""
        self.commands.run(
            "nnUNetv2_train", DATASET_ID, "3d_fullres", FOLD, "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans",
            "-device", self.options.device,
        )  # fmt: skip

    def predict_all(self) -> None:
        """Predict on all unseen images the targets that were trained in their context, which a table says."""
        self.commands.run(*self._ask("nnUNetv2_predict", self.workspace.images, ALL, *_MODEL))

    def predict_one_body(self) -> None:
        """Predict the targets one by one on the body of the picture in every contrast; only the texts differ."""
        body = self.workspace.one_body
        self.commands.run_side_by_side([
            self._ask("nnUNetv2_predict", body, target, *_MODEL, "--targets", target) for target in self.options.targets
        ])  # fmt: skip

    def predict_transfer_and_controls(self) -> None:
        """Predict what the first prediction is compared with, on all unseen images.

        That is every target in every contrast, those too that are annotated in other contrasts only; and the same as
        `predict_all`, by copies of the model: in one T1 is exchanged, in one a contrast T2.
        """
        images = self.workspace.images
        calls = [
            self._ask("nnUNetv2_predict", images, TRANSFER, *_MODEL, "--targets", *LABELS),
            self._ask_control(T1_EXCHANGED, images, exchange_contexts),
        ]
        for source in PHANTOM_SOURCES:
            folder = self.workspace.raw / source.dataset / "imagesTs"
            exchange = partial(exchange_targets, context=source.context)
            calls.append(self._ask_control(name_apart(T2_EXCHANGED, source), folder, exchange))
        self.commands.run_side_by_side(calls)

    def measure(self) -> Results:
        """Score all predictions of unseen images."""
        measurement = self._measurement
        return Results(
            dice=measurement.score(ALL),
            transfer=measurement.score(TRANSFER, list_unannotated),
            targets_exchanged=measurement.score(T2_EXCHANGED, apart=True),
            contexts_exchanged=measurement.score(T1_EXCHANGED),
            confusion=measurement.measure_sides(ALL),
        )

    def draw(self) -> None:
        """Draw the picture: image, prediction under each prompt, and truth."""
        draw(self._measurement, self.options.targets, ALL)

    @property
    def _measurement(self) -> Measurement:
        return Measurement(self.workspace, self.options.test_cases)

    def _gather(self, folder: Path, cases: list[UnseenCase]) -> None:
        folder.mkdir()
        for case in cases:
            shutil.copy(self.workspace.raw / case.source.dataset / "imagesTs" / f"{case.name}_0000.nii.gz", folder)

    def _ask_control(self, name: str, images: Path, exchange: Exchange) -> tuple[str, ...]:
        folder = self.workspace.control_model(name)
        copy_model(self.workspace.model, folder, exchange)
        return self._ask("nnUNetv2_predict_from_modelfolder", images, name, "-m", str(folder), "-f", FOLD)

    def _ask(self, command: str, images: Path, selection: str, *words: str) -> tuple[str, ...]:
        folder = self.workspace.predictions(selection)
        shared = ("-i", str(images), "-o", str(folder), "--context", str(self.workspace.contexts))
        short = ("--disable_tta", "-npp", "1", "-nps", "1", "-device", self.options.device)
        return command, *shared, *short, *words
