"""Finds out from the environment which of the processes of a training this one is, as torchrun or SLURM started it."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from duplus_nnunet.errors import HostError
from duplus_nnunet.nodes.slurm import expand_hosts

TORCHRUN, SRUN = "torchrun", "srun"
# Variables by which torchrun tells a process its place; all of them are needed.
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Ports of SLURM's jobs, one by the number of the job; Linux hands out ports above these to other programs.
_FIRST_PORT, _PORTS = 20000, 12000


@dataclass(frozen=True)
class Place:
    """Place of a process among those of a training.

    Attributes:
        launcher: What started it, "torchrun" or "srun".
        rank: Its number among all processes, from 0; rank 0 writes logs, checkpoints and scores.
        world: Number of processes on all nodes.
        local_rank: Its number on its node, from 0, which chooses its GPU.
        address: Host at which the processes find each other.
        port: Port on that host.
        restart: How often torchrun has restarted the processes before.
    """

    launcher: str
    rank: int
    world: int
    local_rank: int
    address: str
    port: int
    restart: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.world and 0 <= self.local_rank <= self.rank and 0 < self.port < 1 << 16):
            raise HostError(
                f"{self.launcher} gave this process rank {self.rank} of {self.world}, local rank {self.local_rank} and "
                f"port {self.port}; expected ranks from 0, a local rank that is not above the rank, and a port below "
                "65536. Start all processes by one torchrun for each node, or by one srun."
            )

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world} ({platform.node()})"


def find_place(variables: Mapping[str, str]) -> Place | None:
    """Find the place of this process.

    Args:
        variables: Environment variables.

    Returns:
        Its place; None if neither torchrun nor an srun of several tasks started it.

    Raises:
        HostError: The variables contradict each other, or the process belongs to a job of several tasks, but srun did
            not start it.
    """
    if "LOCAL_RANK" in variables or "TORCHELASTIC_RUN_ID" in variables:
        return _read_torchrun(variables)
    if "SLURM_STEP_ID" in variables or "SLURM_STEPID" in variables:
        return _read_srun(variables)
    tasks = variables.get("SLURM_NTASKS", "1")
    if "SLURM_PROCID" in variables and tasks != "1":
        raise HostError(
            f"This process is in a SLURM job of {tasks} tasks, but srun did not start it, so it would train alone. "
            "Write `srun python -m duplus_nnunet.train ...`, or torchrun."
        )
    return None


def count_threads(variables: Mapping[str, str]) -> int:
    """Count the threads of one of several processes on a CPU: OMP_NUM_THREADS, else its CPUs of SLURM, else 1."""
    given = variables.get("OMP_NUM_THREADS") or variables.get("SLURM_CPUS_PER_TASK") or "1"
    return int(given) if given.isdecimal() and int(given) else 1


def export_place(place: Place) -> None:
    """Set the variables of torchrun, from which torch and other libraries read the place."""
    values = (place.rank, place.local_rank, place.world, place.address, place.port)
    os.environ.update({name: str(value) for name, value in zip(_TORCHRUN, values, strict=True)})


def _read_torchrun(variables: Mapping[str, str]) -> Place:
    missing = [name for name in _TORCHRUN if name not in variables]
    if missing:
        raise HostError(
            f"torchrun sets {', '.join(_TORCHRUN)}; {', '.join(missing)} is missing. Start the training by "
            "`torchrun ... -m duplus_nnunet.train ...`."
        )
    return Place(
        TORCHRUN,
        _read_number(variables, "RANK"),
        _read_number(variables, "WORLD_SIZE"),
        _read_number(variables, "LOCAL_RANK"),
        variables["MASTER_ADDR"],
        _read_number(variables, "MASTER_PORT"),
        _read_number(variables, "TORCHELASTIC_RESTART_COUNT") if "TORCHELASTIC_RESTART_COUNT" in variables else 0,
    )


def _read_srun(variables: Mapping[str, str]) -> Place | None:
    """Read the place from SLURM's variables; those of the step precede those of its job, which may be larger."""
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in variables else "SLURM_NTASKS"
    world = _read_number(variables, tasks)
    if world == 1:
        return None
    hosts = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST") or ""
    address = variables.get("MASTER_ADDR") or expand_hosts(hosts)[0]
    job = _read_number(variables, "SLURM_JOB_ID")
    port = _read_number(variables, "MASTER_PORT") if "MASTER_PORT" in variables else _FIRST_PORT + job % _PORTS
    rank, local_rank = _read_number(variables, "SLURM_PROCID"), _read_number(variables, "SLURM_LOCALID")
    return Place(SRUN, rank, world, local_rank, address, port)


def _read_number(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name)
    if text is None or not text.isdecimal():
        found = "is not set" if text is None else f"is {text!r}"
        raise HostError(f"The variable {name} {found}; expected a number. Start all processes by torchrun or by srun.")
    return int(text)
