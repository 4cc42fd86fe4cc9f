"""Lists the trainings of an experiment, and writes the command of each."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.checkpoint_files import CHECKPOINTS
from duplus_nnunet.errors import DataError

TRAIN, TRAIN_NODES = "nnUNetv2_train", "duplus_nnunet.train"
PRETRAINED, CONTINUE = "-pretrained_weights", "--c"
RESULTS = "nnUNet_results"
# Arguments of nnUNetv2_train that this package sets, or that contradict --c, and what to do instead.
_OWN = {
    "-tr": "name the trainer before `--`",
    "-p": "name the plans before `--`",
    "-num_gpus": "use `--gpus` before `--`",
    CONTINUE: "it is always added, so that a training continues after an interruption",
    "--val": "it trains nothing; run nnUNetv2_train for it",
    "--disable_checkpointing": "without checkpoints, a training cannot continue after an interruption",
}


@dataclass(frozen=True)
class Training:
    """One training, as nnUNetv2_train takes it.

    Attributes:
        dataset: nnU-Net's name of the dataset, such as Dataset004_Hippocampus.
        configuration: Name of the configuration.
        fold: Number of the fold, or "all".
        trainer: Name of the trainer class.
        plans: Name of the plans.
        further: Further arguments of nnUNetv2_train.
    """

    dataset: str
    configuration: str
    fold: str
    trainer: str
    plans: str
    further: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name for messages and tables."""
        return f"{self.dataset} {self.plans} fold {self.fold}"

    @property
    def output(self) -> Path:
        """Folder in nnUNet_results into which nnU-Net writes it."""
        model = f"{self.trainer}__{self.plans}__{self.configuration}"
        return Path(os.environ[RESULTS]).absolute() / self.dataset / model / f"fold_{self.fold}"

    @property
    def is_finished(self) -> bool:
        """Whether it was trained and validated; fold "all" has no validation of its own."""
        ends = ("checkpoint_final.pth",) if self.fold == "all" else ("checkpoint_final.pth", "validation/summary.json")
        return all((self.output / end).is_file() for end in ends)

    def write_command(self, gpus: int, nodes: int) -> list[str]:
        """Write its command: of nnU-Net on one node, of this package on several; it has no --c yet.

        Args:
            gpus: GPUs on each node.
            nodes: Number of nodes.
        """
        words = [self.dataset, self.configuration, self.fold, "-tr", self.trainer, "-p", self.plans, *self.further]
        if nodes > 1:
            return ["python", "-m", TRAIN_NODES, *words]
        return [TRAIN, *words, *(["-num_gpus", str(gpus)] if gpus > 1 else [])]


def read_further(words: Sequence[str]) -> tuple[str, ...]:
    """Check further arguments of nnUNetv2_train.

    Raises:
        DataError: This package sets one of them, or it would keep the training from being continued.
    """
    for word in words:
        if word in _OWN:
            raise DataError(f"`{word}` cannot stand after `--`: {_OWN[word]}.")
    return tuple(words)


def continue_command(words: Sequence[str], output: Path) -> list[str]:
    """Add --c to the command of a training, unless it begins from pretrained weights, which exclude each other.

    Args:
        words: The command without --c.
        output: Folder of the training; once there is a checkpoint in it, pretrained weights are left out.
    """
    if PRETRAINED not in words:
        return [*words, CONTINUE]
    if not any((output / name).is_file() for name in CHECKPOINTS):
        return list(words)
    index = list(words).index(PRETRAINED)
    return [*words[:index], *words[index + 2 :], CONTINUE]


def leave_finished_out(trainings: Iterable[Training]) -> tuple[list[Training], list[Training]]:
    """Split trainings into those to send and those that are finished; what is named twice is sent once."""
    distinct = list(dict.fromkeys(trainings))
    finished = [training for training in distinct if training.is_finished]
    return [training for training in distinct if training not in finished], finished
