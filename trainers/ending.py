"""How a training ends before its time: with a message, and with nobody left working for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from duplus_nnunet.errors import DataError, DuplusError
from duplus_nnunet.trainers.checkpoint import FULL_DISK


@contextmanager
def end_in_order(trainer: nnUNetTrainer) -> Iterator[None]:
    """Name a disk that filled up, whatever was being written, and end the workers of a training that ends early.

    nnU-Net ends them after a training that went to its end only. Left alone they are killed with the process, and a
    thread that watches them may still print a stack trace after the message.

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
            f"--c; what was finished before lies in {trainer.output_folder}."
        ) from error
