"""Begins and ends a training in order: one process in a fold, a message on errors, no leftover worker processes.

A training that is no longer one, since its numbers are not finite, ends too.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.locks import hold
from duplus_nnunet.trainers.checkpoint import FULL_DISK


@contextmanager
def end_in_order(trainer: Any) -> Iterator[None]:
    """Stop the workers of a training that ends with an error, and report a full disk, whatever was being written.

    nnU-Net only stops its workers after a completed training. Otherwise they are killed with the process, and a thread
    that monitors them may print a stack trace after the message.

    Raises:
        DataError: The disk is full, or another process trains or validates the same fold.
    """
    try:
        with hold_fold(trainer, "training"):
            yield
    except (DuplusError, OSError) as error:
        trainer.progress.close()
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            if isinstance(loader, (NonDetMultiThreadedAugmenter, MultiThreadedAugmenter)):
                loader._finish()  # as nnU-Net does
        if not isinstance(error, OSError) or error.errno not in FULL_DISK:
            raise
        raise DataError(
            f"The training stopped in epoch {trainer.current_epoch}: {error}. Free some space and continue it with "
            f"--c; what was written before is in {trainer.output_folder}."
        ) from error


@contextmanager
def hold_fold(trainer: Any, purpose: str) -> Iterator[None]:
    """Keep other processes from training or validating the same fold; of several ranks, the first one does.

    Args:
        trainer: A DuPLUSTrainer.
        purpose: "training" or "validating".

    Raises:
        DataError: Another process trains or validates it.
    """
    advice = "Wait until it has finished, end it, or train another fold, or the same one into another nnUNet_results."
    lock = hold(Path(trainer.output_folder), purpose, advice) if trainer.local_rank == 0 else nullcontext()
    with lock:
        yield


def require_finite(weights: Iterable[torch.Tensor], losses: Sequence[float], epoch: int) -> None:
    """Check that an epoch was one: its weights are finite, and so is the loss of some iteration.

    Raises:
        DataError: They are not.
    """
    advice = (
        "Look for NaN in the images (nnUNetv2_plan_and_preprocess --verify_dataset_integrity finds them), or lower "
        "settings.initial_learning_rate in the plans, and continue with --c."
    )
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise DataError(
            f"The weights became NaN or infinite in epoch {epoch}; earlier checkpoints are intact. {advice}"
        )
    if not np.isfinite(losses).any():
        raise DataError(
            f"The loss was NaN or infinite in all iterations of epoch {epoch}; earlier checkpoints are intact. {advice}"
        )
