"""DistributedTrainer: nnU-Net's trainer whose processes may be on several nodes, on GPUs or on CPUs."""

import hashlib
import os
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.networks import unwrap
from duplus_nnunet.nodes.place import count_threads
from duplus_nnunet.substitution import call_with


class DistributedTrainer(nnUNetTrainer):
    """nnU-Net's trainer, which in a process group uses the GPU that was chosen for its process, or the CPU.

    nnU-Net's attribute `local_rank` is the rank among all processes of all nodes; its rank 0 writes all files. nnU-Net
    also takes it for the number of the GPU, which here is that of `device`.
    """

    # Whether several processes can train it; duplus_nnunet.train refuses others.
    spreads = True

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        """Differs from nnU-Net: in a process group, the device may be a CPU, or a GPU with another number."""
        if not dist.is_initialized():
            super().__init__(plans, configuration, fold, dataset_json, device)
            return
        own = find_own_device(device)
        names = {"torch": _TorchOf(own), "print": _do_nothing}  # it prints the rank as the local one
        call_with(super().__init__, names, plans, configuration, fold, dataset_json, device)
        if own.type == "cpu":
            torch.set_num_threads(count_threads(os.environ))

    def initialize(self) -> None:
        """Differs from nnU-Net: DDP uses the device of this process; the log lists those of all."""
        if not self.is_ddp:
            super().initialize()
            return

        def wrap(network: nn.Module, device_ids: list[int]) -> DistributedDataParallel:
            return DistributedDataParallel(network, device_ids=None if self.device.index is None else [self.device])

        call_with(super().initialize, {"DDP": wrap})
        rows = gather(f"{platform.node()} {self.device}, batch size {self.batch_size}")
        listed = "; ".join(f"rank {rank}: {row}" for rank, row in enumerate(rows))
        self.print_to_log_file(f"{len(rows)} processes by {dist.get_backend()}: {listed}")

    def _set_batch_size_and_oversample(self) -> None:
        """Differs from nnU-Net: a batch that cannot be divided is refused with the numbers."""
        size = self.configuration_manager.batch_size
        world = dist.get_world_size() if self.is_ddp else 1
        if size < world:
            raise HostError(
                f"The batch size of {self.configuration_name!r} is {size}, and {world} processes train, so that some "
                f"would have no image. Start at most {size} processes, or raise batch_size in the plans."
            )
        super()._set_batch_size_and_oversample()

    def print_to_log_file(self, *args: Any, **kwargs: Any) -> None:
        """Differs from nnU-Net: ranks other than 0 print nothing, where nnU-Net's repeat each line."""
        if self.local_rank == 0:
            super().print_to_log_file(*args, **kwargs)

    def do_split(self) -> Any:
        """Differs from nnU-Net: several processes may write the file of the splits at the same time."""
        return call_with(super().do_split, {"save_json": _save_json}) if self.is_ddp else super().do_split()

    def on_train_start(self) -> None:
        """Differs from nnU-Net: plans.json and the files beside it are written by rank 0 alone."""
        if self.local_rank == 0:
            super().on_train_start()
        else:
            shutil = SimpleNamespace(copyfile=_do_nothing)
            call_with(super().on_train_start, {"save_json": _do_nothing, "shutil": shutil})

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Differs from nnU-Net: all processes must have read the same.

        Raises:
            DataError: They have not.
        """
        super().load_checkpoint(filename_or_checkpoint)
        if dist.is_initialized():
            states = gather((platform.node(), self.current_epoch, digest_weights(self.network)))
            for rank, state in enumerate(states):
                if state[1:] != states[0][1:]:
                    raise DataError(
                        f"Rank 0 ({states[0][0]}) read a checkpoint at epoch {states[0][1]}, and rank {rank} "
                        f"({state[0]}) another one, at epoch {state[1]}, from {filename_or_checkpoint}. nnUNet_results "
                        "must be a folder on a disk that all nodes see; if it is, wait until it shows the same file on "
                        "all of them, and start again with --c."
                    )


def find_own_device(device: torch.device) -> torch.device:
    """Return the device of this process in a process group: the GPU that was set for it, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else torch.device(device.type)


def gather(value: Any) -> list[Any]:
    """Return what all processes give, by rank."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def digest_weights(network: nn.Module) -> str:
    """Return a digest of all weights of a network, to the bit."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in unwrap(network).state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _TorchOf:
    """Stands for the module torch, whose every device is that of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def device(self, *_: Any, **__: Any) -> torch.device:
        return self._device

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stands for a function of nnU-Net that is not to be called."""


def _save_json(content: Any, file: str) -> None:
    """Save JSON as nnU-Net does, but atomically: another process finds the whole file, or none."""
    with open_new_file(Path(file)) as new:
        save_json(content, str(new))
