"""The demonstration's steps: what a user would do by hand with nnU-Net's commands, and what is then measured.

In: options, a folder, and a way to run commands. Out: files in the folder, and the scores.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom import write_phantom_dataset
from duplus_nnunet.data.scans import CT
from duplus_nnunet.demo.control import copy_shuffled
from duplus_nnunet.demo.host_commands import HostCommands
from duplus_nnunet.demo.scores import LabelMap, measure_confusion, measure_dice, score_cases
from duplus_nnunet.demo.workspace import DATASET_ID, Workspace
from duplus_nnunet.reporting.figure import Row, Volume, save_comparison
from duplus_nnunet.reporting.volumes import read_axial, read_label_map

FOLD = "0"
ALL = "all targets"
CONTROL = "shuffled prompts"

_MODEL = ("-d", DATASET_ID, "-c", "3d_fullres", "-f", FOLD, "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans")
# nnU-Net plans for a GPU; two cores train a network with half the features three times as fast.
_THINNER = 2
_WINDOW = (-160.0, 320.0)


@dataclass(frozen=True)
class Options:
    """What a user may change about the demonstration.

    Attributes:
        training_cases: Phantoms to train on, five or more (nnU-Net splits them into five folds).
        test_cases: Unseen phantoms.
        seed: Of the phantoms.
        epochs: Length of the training.
        iterations: Training iterations in an epoch.
        targets: Names that are asked for one at a time on the first unseen image.
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

    options: Options
    workspace: Workspace
    commands: HostCommands

    def write_data(self) -> None:
        """Generate the dataset, and set one unseen image aside for the picture."""
        options, work = self.options, self.workspace
        write_phantom_dataset(work.dataset, options.training_cases, options.test_cases, options.seed, CT)
        work.one_image.mkdir()
        shutil.copy(work.dataset / "imagesTs" / f"{self._shown}_0000.nii.gz", work.one_image)

    def plan(self) -> None:
        """Plan and preprocess with nnU-Net's command, then edit the plans: a short run, a thin network."""
        self.commands.run(
            "nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-pl", "DuPLUSPlanner", "-c", "3d_fullres",
            "-npfp", "1", "-np", "1",
        )  # fmt: skip
        plans = json.loads(self.workspace.plans.read_text(encoding="utf-8"))
        plans["duplus"]["settings"] |= {
            "epochs": self.options.epochs,
            "iterations_per_epoch": self.options.iterations,
            "validation_iterations": 2,
            "save_every": 1,
            # A few hundred iterations are not enough to tell sides without what lies beside them, such as the liver.
            "mirror_left_right": False,
        }
        network = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        network["features_per_stage"] = [features // _THINNER for features in network["features_per_stage"]]
        self.workspace.plans.write_text(json.dumps(plans), encoding="utf-8")

    def train(self) -> None:
        """Train with nnU-Net's command."""
        self.commands.run(
            "nnUNetv2_train", DATASET_ID, "3d_fullres", FOLD, "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans",
            "-device", self.options.device,
        )  # fmt: skip

    def predict_one_image(self, target: str) -> None:
        """Predict one target on the image of the picture; only the text differs from call to call."""
        work = self.workspace
        self._predict("nnUNetv2_predict", work.one_image, work.predictions(target), *_MODEL, "--targets", target)

    def predict_all(self) -> None:
        """Predict all targets on all unseen images."""
        work = self.workspace
        self._predict("nnUNetv2_predict", work.dataset / "imagesTs", work.predictions(ALL), *_MODEL)

    def predict_control(self) -> None:
        """Predict all targets on all unseen images with each target's embeddings exchanged for another's."""
        work = self.workspace
        copy_shuffled(work.model, work.control_model)
        images, folder = work.dataset / "imagesTs", work.predictions(CONTROL)
        model = ("-m", str(work.control_model), "-f", FOLD)
        self._predict("nnUNetv2_predict_from_modelfolder", images, folder, *model)

    def score(self, predictions: str) -> dict[str, list[float]]:
        """Measure the Dice of every target in every unseen case, 0 to 1."""
        pairs = [(self._read(predictions, case), self._read_truth(case)) for case in self._cases]
        return score_cases(pairs, LABELS)

    def measure_sides(self) -> dict[str, float]:
        """Measure which share of each predicted kidney lies in the other one, 0 to 1, averaged over unseen cases."""
        found = {}
        for name, other in (("left kidney", "right kidney"), ("right kidney", "left kidney")):
            shares = [
                measure_confusion(self._read(ALL, case), self._read_truth(case), LABELS[name], LABELS[other])
                for case in self._cases
            ]
            found[f"share of the predicted {name} inside the true {other}"] = sum(shares) / len(shares)
        return found

    def draw(self) -> None:
        """Draw the picture: the image, the prediction under each prompt, the truth."""
        image, spacing = read_axial(self.workspace.dataset / "imagesTs" / f"{self._shown}_0000.nii.gz")
        truth = self._read_truth(self._shown)
        sentences = self._read_sentences()
        rows = []
        for target in self.options.targets:
            prediction, only = self._read(target, self._shown), truth * (truth == LABELS[target])
            note = f"Dice {measure_dice(prediction, truth, LABELS[target]):.2f}"
            rows.append(Row(sentences[target], prediction, only, note))
        prediction = self._read(ALL, self._shown)
        dice = [measure_dice(prediction, truth, value) for value in LABELS.values()]
        rows.append(Row(ALL, prediction, truth, f"mean Dice {sum(dice) / len(dice):.2f}"))
        save_comparison(self.workspace.picture, Volume(image, spacing, _WINDOW), rows, LABELS)

    @property
    def _cases(self) -> list[str]:
        return [f"test_{number:03d}" for number in range(self.options.test_cases)]

    @property
    def _shown(self) -> str:
        return self._cases[0]

    def _predict(self, command: str, images: Path, folder: Path, *words: str) -> None:
        shared = ("-i", str(images), "-o", str(folder), "-npp", "1", "-nps", "1", "-device", self.options.device)
        self.commands.run(command, *shared, *words)

    def _read(self, predictions: str, case: str) -> LabelMap:
        return read_label_map(self.workspace.predictions(predictions) / f"{case}.nii.gz")

    def _read_truth(self, case: str) -> LabelMap:
        return read_label_map(self.workspace.dataset / "labelsTs" / f"{case}.nii.gz")

    def _read_sentences(self) -> Mapping[str, str]:
        section = json.loads((self.workspace.model / "plans.json").read_text(encoding="utf-8"))["duplus"]
        prompts = section["contexts"][section["default_context"]]["target_prompts"]
        return {name: sentences[0] for name, sentences in prompts.items()}
