"""What a prediction over a cluster asks of Ray: the address, and how many workers with which share of a GPU."""

import argparse
from dataclasses import dataclass

from duplus_nnunet.errors import DataError

# What `--ray` without an address stands for, in Ray's words too.
LOCAL = "local"


@dataclass(frozen=True)
class ClusterSettings:
    """How a prediction is shared among workers.

    Attributes:
        address: Of a running cluster, as ray.init takes it; LOCAL: one is started on this machine, and ended.
        workers: Number of workers; None: as many as GPUs allow, or one for each machine without GPUs.
        gpus: GPUs of a worker, such as 0.5; None: one with `-device cuda`, else none.
        cpus: Processors of a worker; None: its share of a machine.

    Raises:
        DataError: A number is out of range.
    """

    address: str = LOCAL
    workers: int | None = None
    gpus: float | None = None
    cpus: int | None = None

    def __post_init__(self) -> None:
        for option, value, least in (("--ray-workers", self.workers, 1), ("--cpus-per-worker", self.cpus, 1)):
            if value is not None and value < least:
                raise DataError(f"{option} is {value}; expected {least} or more.")
        if self.gpus is not None and not 0 <= self.gpus <= 1:
            raise DataError(f"--gpus-per-worker is {self.gpus:g}; expected 0 to 1: a network runs on one GPU.")


def read_cluster(parsed: argparse.Namespace) -> ClusterSettings | None:
    """Read the options of a prediction over a cluster; None if `--ray` is not given.

    Raises:
        DataError: The other options are given without it, or a number is out of range.
    """
    others = {
        "--ray-workers": parsed.ray_workers,
        "--gpus-per-worker": parsed.gpus_per_worker,
        "--cpus-per-worker": parsed.cpus_per_worker,
    }
    if parsed.ray is None:
        for option, value in others.items():
            if value is not None:
                raise DataError(f"{option} is given without --ray. Add --ray, or leave it out.")
        return None
    return ClusterSettings(parsed.ray, *others.values())
