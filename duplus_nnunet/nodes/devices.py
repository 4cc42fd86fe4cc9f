"""Chooses the device of one process among those of its node, and how the processes of a training communicate."""

from typing import Any

import torch

from duplus_nnunet.errors import HostError
from duplus_nnunet.nodes.place import Place


def choose_local_device(kind: str, place: Place) -> torch.device:
    """Choose the device of a process.

    Args:
        kind: "cuda" or "cpu".
        place: Place of the process; its local rank is the number of its GPU, unless it is shown a single one, as by
            SLURM's --gpus-per-task.

    Raises:
        HostError: There are fewer GPUs than processes on this node, or the kind has no DDP.
    """
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if kind == "cuda" else 0
    if kind != "cuda":
        raise HostError(f"-device {kind} is not possible with several processes; use cuda or cpu.")
    if place.local_rank < count:
        return torch.device("cuda", place.local_rank)
    if count == 1:
        return torch.device("cuda", 0)
    raise HostError(
        f"{place} has local rank {place.local_rank}, and PyTorch finds {count} GPUs there. Start as many processes on "
        "a node as it has GPUs for the job: --nproc-per-node of torchrun, or --ntasks-per-node and --gres of SLURM."
    )


def identify(device: torch.device) -> str:
    """Name a device uniquely on its node: "cpu", or the identifier of a GPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else device.type


def choose_process_group(device: torch.device) -> dict[str, Any]:
    """Choose the arguments of torch's process group: NCCL between GPUs, gloo between CPUs."""
    return {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
