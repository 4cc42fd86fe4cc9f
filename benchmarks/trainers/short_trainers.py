"""Trainers that nnU-Net finds through `nnUNet_extTrainer`; what they do stands in the plans, under "benchmark".

Stock trainings are seeded: weights, and what the main process draws. nnU-Net's augmentation workers draw from the
operating system, so that two stock trainings with equal seeds are equal only without workers (nnUNet_n_proc_DA=0).
"""

import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from duplus_nnunet.trainers import DuPLUSLoRATrainer, DuPLUSTrainer
from duplus_nnunet.trainers.optimization import make_adamw

# Set to 1, held-out cases are predicted with mirror images, into a folder of their own.
MIRRORED = "BENCHMARK_MIRRORED"
ADAMW_RATE = 1e-3


@dataclass(frozen=True)
class Choice:
    """What a stock training is to be: seed, optimizer ("sgd" or "adamw"), length, and whether images are mirrored."""

    seed: int = 0
    optimizer: str = "sgd"
    epochs: int = 1000
    iterations: int = 250
    validation_iterations: int = 50
    mirror: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in the plans under "benchmark"."""
        return asdict(self)


def validate(trainer: Any, run: Callable[[], None]) -> None:
    """Run nnU-Net's validation without mirror images, or with them into the folder `mirrored`."""
    folder = trainer.output_folder
    if os.environ.get(MIRRORED) == "1":
        trainer.output_folder = os.path.join(folder, "mirrored")
        os.makedirs(trainer.output_folder, exist_ok=True)
    else:
        trainer.inference_allowed_mirroring_axes = None
    try:
        run()
    finally:
        trainer.output_folder = folder


class StockTrainer(nnUNetTrainer):
    """Differs from nnU-Net: length, seed and optimizer are those in the plans; a CPU computes in bfloat16, as ours."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.choice = Choice(**plans["benchmark"])
        self.num_epochs, self.num_iterations_per_epoch = self.choice.epochs, self.choice.iterations
        self.num_val_iterations_per_epoch, self.save_every = self.choice.validation_iterations, 1
        if self.choice.optimizer == "adamw":
            self.initial_lr = ADAMW_RATE

    def initialize(self) -> None:
        """Differs from nnU-Net: seeds the weights, and mixes precision on a CPU."""
        words = np.random.SeedSequence([self.choice.seed, int(self.fold)]).generate_state(3)
        random.seed(int(words[0]))
        np.random.seed(words[1])
        torch.manual_seed(int(words[2]))
        super().initialize()
        if self.device.type == "cpu":
            self._mix_precision()

    def _mix_precision(self) -> None:
        """Run the network in bfloat16, which nnU-Net does on a GPU only."""
        forward = self.network.forward

        def mixed(x: torch.Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                out = forward(x)
            return [level.float() for level in out] if isinstance(out, list) else out.float()

        self.network.forward = mixed

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Differs from nnU-Net: AdamW as in DuPLUSTrainer, if the plans say so."""
        if self.choice.optimizer == "sgd":
            pair: tuple[Any, Any] = super().configure_optimizers()
            return pair
        optimizer = make_adamw(self.network.parameters(), self.initial_lr, self.device)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        """Differs from nnU-Net: mirrors no image, in training and in prediction, if the plans say so."""
        *others, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.choice.mirror:
            return *others, axes
        self.inference_allowed_mirroring_axes = None
        return *others, None

    def save_checkpoint(self, filename: str) -> None:
        """Differs from nnU-Net: the file is whole or not there, if a training is ended while it is written."""
        super().save_checkpoint(f"{filename}.partial")
        if os.path.isfile(f"{filename}.partial"):
            os.replace(f"{filename}.partial", filename)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from nnU-Net: mirrors on request only."""
        validate(self, lambda: nnUNetTrainer.perform_actual_validation(self, save_probabilities))


class StockTrainerUnvalidated(StockTrainer):
    """Leaves out the validation of whole images, where other images are scored."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from nnU-Net: does nothing."""


class DuPLUSTrainerValidated(DuPLUSTrainer):
    """DuPLUSTrainer whose held-out cases are predicted as those of StockTrainer."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from DuPLUSTrainer: mirrors on request only."""
        validate(self, lambda: DuPLUSTrainer.perform_actual_validation(self, save_probabilities))


class DuPLUSTrainerShort(DuPLUSTrainer):
    """Leaves out the validation of whole images, where other images are scored."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from DuPLUSTrainer: does nothing."""


class DuPLUSLoRATrainerShort(DuPLUSLoRATrainer):
    """Leaves out the validation of whole images, where other images are scored."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Differs from DuPLUSLoRATrainer: does nothing."""
