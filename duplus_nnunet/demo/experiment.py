"""The steps of the demonstration, each run with the commands of nnU-Net and this package that a user would run."""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom_sources import PHANTOM_MR, PHANTOM_SOURCES, PhantomSource, write_phantom_sources
from duplus_nnunet.demo.cases import UnseenCase, list_cases, list_unannotated, name_separately
from duplus_nnunet.demo.control import Exchange, copy_model, exchange_contexts, exchange_targets
from duplus_nnunet.demo.host_commands import HostCommands
from duplus_nnunet.demo.measurement import Measurement
from duplus_nnunet.demo.picture import draw
from duplus_nnunet.demo.scores import Results
from duplus_nnunet.demo.workspace import DATASET_ID, DATASET_NAME, Workspace

FOLD = "0"
# Names of selections of several targets.
ALL = "all targets"
TRANSFER = "unannotated targets"
TARGETS_EXCHANGED, CONTEXTS_EXCHANGED = "target prompts exchanged", "context prompts exchanged"

_MODEL = ("-d", DATASET_ID, "-c", "3d_fullres", "-f", FOLD, "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans")
# nnU-Net plans for a GPU; on two cores, a network with half the features trains three times as fast.
_FEATURE_DIVISOR = 2
# Most of a body, in voxels; the planned patch contains all of it, and takes 1.5 times as long.
_PATCH = (24, 32, 32)
# In MR, left and right are learned last.
_WEIGHT_FACTORS = ((PHANTOM_MR, 1.25),)


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demonstration.

    Attributes:
        training_cases: Number of training phantoms in each contrast, at least five (they are split into five folds).
        test_cases: Number of unseen bodies, each scanned in every contrast.
        seed: Seed of the phantoms and of the training.
        epochs: Number of training epochs.
        iterations: Number of training iterations per epoch.
        targets: Targets that are predicted one at a time on the first unseen body.
        device: Device, as for nnU-Net's `-device`.
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
        """Generate one dataset for each contrast; collect the unseen images and write a table of their contexts."""
        options, work = self.options, self.workspace
        write_phantom_sources(work.raw, options.training_cases, options.test_cases, options.seed)
        cases = list_cases(options.test_cases)
        self._collect(work.images, cases)
        self._collect(work.one_body, [case for case in cases if case.number == 0])
        lines = ["case,context", *(f"{case.name},{case.source.context}" for case in cases)]
        work.contexts.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def compose(self) -> None:
        """Compose one dataset from all contrasts with `duplus compose`."""
        sources = [str(source.number) for source in PHANTOM_SOURCES]
        self.commands.run("duplus", "compose", "-o", DATASET_ID, "-n", DATASET_NAME, *sources)

    def plan(self) -> None:
        """Plan and preprocess with nnU-Net's command, then edit the plans for a short training of a small network.

        Paraphrases are not used, since left and right are learned faster with one wording each.
        """
        self.commands.run(
            "nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-pl", "DuPLUSPlanner", "-c", "3d_fullres",
            "-npfp", "1", "-np", "1",
        )  # fmt: skip
        plans = json.loads(self.workspace.plans.read_text(encoding="utf-8"))
        plans["duplus"]["settings"] |= {
            "seed": self.options.seed,
            "epochs": self.options.epochs,
            "iterations_per_epoch": self.options.iterations,
            "validation_iterations": 4,
            "paraphrase_probability": 0.0,
            "cpu_bfloat16": True,
        }
        for source, factor in _WEIGHT_FACTORS:
            plans["duplus"]["sources"][source.dataset.split("_")[1]]["weight"] *= factor
        configuration = plans["configurations"]["3d_fullres"]
        configuration["patch_size"] = _PATCH
        network = configuration["architecture"]["arch_kwargs"]
        network["features_per_stage"] = [features // _FEATURE_DIVISOR for features in network["features_per_stage"]]
        self.workspace.plans.write_text(json.dumps(plans), encoding="utf-8")

    def train(self) -> None:
        """Train with nnU-Net's command."""
        self.commands.run(
            "nnUNetv2_train", DATASET_ID, "3d_fullres", FOLD, "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans",
            "-device", self.options.device,
        )  # fmt: skip

    def predict(self) -> None:
        """Predict the unseen images as a user would, target by target for the picture, and with the controls.

        All of these commands are independent, and run in parallel.
        """
        everything = self._build_call("nnUNetv2_predict", self.workspace.images, ALL, *_MODEL)
        controls = [self._exchange_targets(source) for source in PHANTOM_SOURCES]
        others = [self._predict_transfer(), self._exchange_contexts(), *controls]
        self.commands.run_in_few_processes([everything, *others, *self._predict_picture()])

    def _predict_picture(self) -> list[tuple[str, ...]]:
        """Predict targets one by one in every contrast of the body in the picture; only the prompts differ."""
        body = self.workspace.one_body
        return [
            self._build_call("nnUNetv2_predict", body, target, *_MODEL, "--targets", target)
            for target in self.options.targets
        ]

    def _predict_transfer(self) -> tuple[str, ...]:
        """Predict every target in every contrast, including those annotated in other contrasts only."""
        return self._build_call("nnUNetv2_predict", self.workspace.images, TRANSFER, *_MODEL, "--targets", *LABELS)

    def _exchange_contexts(self) -> tuple[str, ...]:
        """Predict everything once more with exchanged context prompts, as a control."""
        return self._build_control_call(CONTEXTS_EXCHANGED, self.workspace.images, exchange_contexts)

    def _exchange_targets(self, source: PhantomSource) -> tuple[str, ...]:
        """Predict one contrast once more with exchanged target prompts, as a control."""
        folder = self.workspace.raw / source.dataset / "imagesTs"
        exchange = partial(exchange_targets, context=source.context)
        return self._build_control_call(name_separately(TARGETS_EXCHANGED, source), folder, exchange)

    def measure(self) -> Results:
        """Score all predictions of unseen images."""
        measurement = self._measurement
        return Results(
            dice=measurement.score(ALL),
            transfer=measurement.score(TRANSFER, list_unannotated),
            target_prompts_exchanged=measurement.score(TARGETS_EXCHANGED, separately=True),
            context_prompts_exchanged=measurement.score(CONTEXTS_EXCHANGED),
            confusion=measurement.measure_sides(ALL),
        )

    def draw(self) -> None:
        """Draw the picture: image, prediction for each prompt, and truth."""
        draw(self._measurement, self.options.targets, ALL)

    def write_report(self) -> None:
        """Write the report on the trained model."""
        report = str(self.workspace.report)
        self.commands.run("duplus", "report", str(self.workspace.model), "-o", report, "-device", self.options.device)

    @property
    def _measurement(self) -> Measurement:
        return Measurement(self.workspace, self.options.test_cases)

    def _collect(self, folder: Path, cases: list[UnseenCase]) -> None:
        folder.mkdir()
        for case in cases:
            shutil.copy(self.workspace.raw / case.source.dataset / "imagesTs" / f"{case.name}_0000.nii.gz", folder)

    def _build_control_call(self, name: str, images: Path, exchange: Exchange) -> tuple[str, ...]:
        folder = self.workspace.control_model(name)
        copy_model(self.workspace.model, folder, exchange)
        return self._build_call("nnUNetv2_predict_from_modelfolder", images, name, "-m", str(folder), "-f", FOLD)

    def _build_call(self, command: str, images: Path, selection: str, *words: str) -> tuple[str, ...]:
        folder = self.workspace.predictions(selection)
        shared = ("-i", str(images), "-o", str(folder), "--context", str(self.workspace.contexts))
        short = ("--disable_tta", "-npp", "1", "-nps", "1", "-device", self.options.device)
        return command, *shared, *short, *words
