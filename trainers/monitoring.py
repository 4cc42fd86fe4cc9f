"""Sends the values of a training to TensorBoard and Weights & Biases, beside nnU-Net's own log and figure.

Both are loggers of nnU-Net's interface, which it calls with each value that it logs. That of Weights & Biases is
nnU-Net's, that of TensorBoard is ours. Both also get the Dice by the names of source and target, where nnU-Net numbers
the classes, and the shares of sources and targets in the training images.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.errors import HostError
from duplus_nnunet.reporting.aggregate import ScoreRow

VARIABLE = "DUPLUS_TENSORBOARD"
FOLDER = "tensorboard"
# As nnU-Net reads the variable for Weights & Biases.
_CHOICES = {"": False, "0": False, "false": False, "1": True, "true": True}
_START, _END = "epoch_start_timestamps", "epoch_end_timestamps"
# Of classes by number; the final Dice of classes and their mean also count cases in which a target is not annotated.
_REPLACED = ("dice_per_class_or_region/", "final_val/")


class TensorBoardLogger:
    """A logger of nnU-Net's interface that writes scalars for TensorBoard, one by key and epoch.

    Args:
        folder: Where its files are written.
        epoch: The first epoch of this run; values that an earlier run wrote of it and of later epochs are superseded.

    Raises:
        HostError: The package tensorboard is not installed.
    """

    def __init__(self, folder: Path, epoch: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise HostError(
                f"{VARIABLE} is set, but the package tensorboard is not installed. Install it: pip install "
                f"'duplus-nnunet[monitoring]'; or unset {VARIABLE}."
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=epoch)
        self._started = math.nan
        self._epoch = epoch

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Ignore the configuration, which stands in plans.json and debug.json."""

    def log(self, key: str, value: float, step: int) -> None:
        """Write a value of an epoch; of the times at which it started and ended, its duration in s."""
        self._epoch = step
        if key == _START:
            self._started = float(value)
        elif key == _END:
            self._add("epoch_duration", float(value) - self._started)
            self._writer.flush()
        else:
            self._add(key, float(value))

    def log_summary(self, key: str, value: float) -> None:
        """Write a value of the whole training, such as a Dice of the final validation, at the last epoch."""
        self._add(key, float(value))
        self._writer.flush()

    def _add(self, key: str, value: float) -> None:
        if math.isfinite(value) and not key.startswith(_REPLACED):
            self._writer.add_scalar(key, value, self._epoch)


class DrawnImages:
    """Counts the images of the training batches of an epoch by source, and by annotated target.

    Args:
        table: All cases.
    """

    def __init__(self, table: CaseTable) -> None:
        self._table = table
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._images = 0

    def count(self, keys: Sequence[str]) -> None:
        """Count the images of a batch, by the identifiers of their cases."""
        for key in keys:
            case = self._table.find(key)
            self._counts.update([(case.source,), *((case.source, target) for target in case.annotated)])
        self._images += len(keys)

    def take(self) -> dict[tuple[str, ...], float]:
        """Return the shares, and set the counts to zero.

        Returns:
            For each source, and for each target of a source, the share of images that came from this source and in
            which this target is annotated, between 0 and 1. Empty if no image was counted.
        """
        counts, images = self._counts, self._images
        self._counts, self._images = Counter(), 0
        sources = self._table.sources.items()
        names = [key for name, source in sources for key in [(name,), *((name, target) for target in source.targets)]]
        return {name: counts[name] / images for name in names} if images else {}


def is_wanted() -> bool:
    """Report whether scalars for TensorBoard are asked for.

    Raises:
        HostError: The variable is neither 0 nor 1.
    """
    text = os.environ.get(VARIABLE, "")
    if text.casefold() not in _CHOICES:
        raise HostError(f"The variable {VARIABLE} is {text!r}; expected 1 (on) or 0 (off).")
    return _CHOICES[text.casefold()]


def open_logs(trainer: Any) -> None:
    """Add the logger for TensorBoard to those of a trainer, if it is asked for; one of several ranks writes.

    Raises:
        HostError: The variable has another value, or tensorboard is not installed.
    """
    if is_wanted() and trainer.local_rank == 0:
        folder = Path(trainer.output_folder) / FOLDER
        trainer.logger.loggers.append(TensorBoardLogger(folder, trainer.current_epoch))
        trainer.print_to_log_file(f"scalars for TensorBoard: tensorboard --logdir {folder}")


def log_epoch(trainer: Any, pairs: Iterable[tuple[str, str]], shares: Mapping[tuple[str, ...], float]) -> None:
    """Log Dice and shares of the current epoch by names.

    Args:
        trainer: The trainer, whose local logger has a Dice for each pair.
        pairs: Source and target of each Dice.
        shares: Share of the training images by source, and by source and target.
    """
    names = [f"dice/{source}/{target}" for source, target in pairs]
    if names and trainer.logger.loggers:
        dice = trainer.logger.get_value("dice_per_class_or_region", trainer.current_epoch)
        log_scores(trainer, dict(zip(names, map(float, dice), strict=True)))
    log_scores(trainer, {"/".join(("sampling", *name)): share for name, share in shares.items()})


def log_concordance(trainer: Any, score: float) -> None:
    """Log a concordance index: in nnU-Net's own log as its pseudo Dice, which chooses the epoch, elsewhere by name."""
    others, trainer.logger.loggers = trainer.logger.loggers, []
    trainer.logger.log("mean_fg_dice", score, trainer.current_epoch)
    trainer.logger.log("dice_per_class_or_region", [score], trainer.current_epoch)
    trainer.logger.loggers = others
    log_scores(trainer, {"concordance_index": score})


def log_scores(trainer: Any, scores: Mapping[str, float]) -> None:
    """Give scores of the current epoch to all loggers but nnU-Net's own; NaN, as of an absent target, is left out."""
    for logger in trainer.logger.loggers:
        for name, score in scores.items():
            if math.isfinite(score):
                logger.log(name, score, trainer.current_epoch)


def log_final_scores(trainer: Any, rows: Iterable[ScoreRow]) -> None:
    """Log the mean Dice of the final validation by source and target; a target that is in no case has none."""
    for row in rows:
        if math.isfinite(row.dice.value):
            trainer.logger.log_summary(f"final_dice/{row.source}/{row.target}", row.dice.value)
