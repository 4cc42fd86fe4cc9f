"""What each job asks of the scheduler, as it is read from the command line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from duplus_nnunet.errors import DataError, describe_unknown

Executor = Literal["slurm", "local"]
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d{1,3}):(?P<minutes>\d{2})(?::(?P<seconds>\d{2}))?")
_NUMBER = re.compile(r"(?P<number>\d+)(?P<unit>[dhm])")
_UNITS = {"d": 1440, "h": 60, "m": 1}
# Minutes of a year: tasks on this machine have no time limit unless one is given.
UNLIMITED_MIN = 525_600
# Options of sbatch that this package or submitit sets, and the option that sets them here.
_TAKEN = {
    "time": "--time",
    "mem": "--mem",
    "partition": "--partition",
    "account": "--account",
    "nodes": "--nodes",
    "gpus-per-node": "--gpus",
    "cpus-per-task": "--cpus",
    "array": "--parallel",
    "ntasks-per-node": "--gpus with --nodes",
    "output": "--output",
    "error": "--output",
    "requeue": "--requeues",
    "signal": "--time",
    "open-mode": "--output",
}


@dataclass(frozen=True)
class Resources:
    """What each job asks for.

    Attributes:
        executor: "slurm", or "local": processes of this machine.
        gpus: GPUs on each node.
        nodes: Nodes of each training.
        cpus: CPU cores for each GPU.
        memory_gb: Memory on each node, GB.
        minutes: Time limit, minutes, after which a job is queued again.
        parallel: Trainings at the same time; 0: all.
        requeues: How often a job is queued again at its time limit.
        partition: Partition of SLURM; empty: the default.
        account: Account of SLURM; empty: the default.
        setup: Commands of the shell that precede a training.
        slurm: Further options of sbatch; an empty value stands for an option without one.
    """

    executor: Executor
    gpus: int = 1
    nodes: int = 1
    cpus: int = 8
    memory_gb: float = 32.0
    minutes: int = 1440
    parallel: int = 0
    requeues: int = 20
    partition: str = ""
    account: str = ""
    setup: tuple[str, ...] = ()
    slurm: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        least = {"gpus": 0, "nodes": 1, "cpus": 1, "minutes": 1, "parallel": 0, "requeues": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise DataError(f"--{name} is {getattr(self, name)}; it must be {minimum} or more.")
        if not self.memory_gb > 0:
            raise DataError(f"--mem is {self.memory_gb:g} GB; it must be above 0.")
        if self.nodes > 1 and (self.executor == "local" or not self.gpus):
            raise DataError(
                f"--nodes {self.nodes} needs SLURM and GPUs: one process trains on each GPU. Without SLURM, start "
                "the training by torchrun on each node: see docs/how-to/cluster.md."
            )

    @property
    def processes(self) -> int:
        """Processes of each training, over which its batch is divided."""
        return max(1, self.gpus) * self.nodes

    @property
    def workers(self) -> int:
        """Processes that prepare the batches of one GPU."""
        return self.cpus


def read_minutes(text: str) -> int:
    """Read a time limit: SLURM's D-HH:MM:SS or HH:MM:SS, a number with d, h or m, or a number of minutes.

    Raises:
        DataError: It is none of these, or zero.

    Example:
        >>> read_minutes("1-12:00:00"), read_minutes("36h"), read_minutes("90")
        (2160, 2160, 90)
    """
    minutes = 0
    if match := _TIME.fullmatch(text):
        days, hours, least, seconds = (int(part or 0) for part in match.groups())
        minutes = days * 1440 + hours * 60 + least + (1 if seconds else 0)
    elif match := _NUMBER.fullmatch(text):
        minutes = int(match["number"]) * _UNITS[match["unit"]]
    elif text.isdecimal():
        minutes = int(text)
    if not minutes:
        raise DataError(f"--time {text!r} is no time limit. Write 24:00:00, 1-12:00:00, 36h, 2d or minutes.")
    return minutes


def read_slurm_options(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read further options of sbatch, KEY=VALUE, or KEY for one without a value.

    Raises:
        DataError: An option has another way to be set.

    Example:
        >>> read_slurm_options(["qos=high", "exclusive"])
        (('qos', 'high'), ('exclusive', ''))
    """
    options = []
    for pair in pairs:
        key, _, value = pair.removeprefix("--").partition("=")
        key = key.strip().replace("_", "-")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            raise DataError(f"--slurm {pair!r} is no option of sbatch. Write KEY=VALUE, such as qos=high.")
        if key in _TAKEN:
            raise DataError(f"--slurm {pair!r}: {key} is set by {_TAKEN[key]}.")
        options.append((key, value))
    return tuple(options)


def choose_fold_numbers(folds: Sequence[str], default: Sequence[int]) -> list[str]:
    """Read the folds of the command line: numbers, or `all`.

    Raises:
        DataError: One of them is neither.
    """
    for fold in folds:
        if not fold.isdecimal() and fold != "all":
            raise DataError(describe_unknown("fold", fold, [*map(str, default), "all"]))
    return [str(int(fold)) if fold.isdecimal() else fold for fold in folds] or list(map(str, default))
