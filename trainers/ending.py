"""Ends an interrupted training cleanly: with a message, and without leftover worker processes."""

from collections.abc import Iterator
from contextlib import contextmanager

from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.trainers.checkpoint import FULL_DISK


@contextmanager
def end_in_order(trainer: nnUNetTrainer) -> Iterator[None]:
    """Stop the workers of a training that ends with an error, and report a full disk, whatever was being written.

    nnU-Net only stops its workers after a completed training. Otherwise they are killed with the process, and a thread
    that monitors them may print a stack trace after the message.

    Raises:
        DataError: The disk is full.
    """
    try:
        yield
    except (DuplusError, OSError) as error:
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            if isinstance(loader, (NonDetMultiThreadedAugmenter, MultiThreadedAugmenter)):
                loader._finish()  # as nnU-Net does
        if not isinstance(error, OSError) or error.errno not in FULL_DISK:
            raise
        raise DataError(
            f"The training stopped in epoch {trainer.current_epoch}: {error}. Free some space and continue it with "
            f"--c; what was written before is in {trainer.output_folder}."
        ) from error
