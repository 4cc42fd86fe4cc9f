"""Two processes with gloo: nnU-Net's own DDP insists on CUDA and NCCL, so our network and loss are driven directly."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from duplus_nnunet.networks import Prompts, condition
from duplus_nnunet.trainers.loss import TargetLoss


def make_network() -> Any:
    torch.manual_seed(0)
    unet = PlainConvUNet(
        1, 2, [4, 8], nn.Conv3d, 3, [1, 2], 1, 1, 1, True, nn.InstanceNorm3d, {"affine": True}, None, None,
        nn.LeakyReLU, {"inplace": True}, False,
    )  # fmt: skip
    return condition(unet, (3, 6))


def step(rank: int, store: str, batch_dice: bool) -> None:
    """Train one step on a rank; rank 1 has other prompts, and no annotated target."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}/sync{batch_dice}", rank=rank, world_size=2)
    network = DistributedDataParallel(make_network())
    torch.manual_seed(rank + 1)
    prompts = Prompts(torch.randn(1, 3), torch.randn(2, 6))
    network.module.bind(prompts)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    labels = torch.randint(0, 3, (1, 1, 8, 8, 8), dtype=torch.int16)
    annotated = torch.full((1, 2), rank == 0)
    loss = TargetLoss([1, 2], batch_dice, ddp=True)(network(torch.randn(1, 1, 8, 8, 8)), labels, annotated)
    loss.backward()
    optimizer.step()
    kept = torch.equal(network.module.prompts.targets, prompts.targets)
    torch.save({"weights": network.module.state_dict(), "kept": kept}, f"{store}/{rank}.pth")
    dist.barrier()
    dist.destroy_process_group()


def check_ranks(folder: Path, batch_dice: bool) -> None:
    mp.spawn(step, args=(str(folder), batch_dice), nprocs=2, join=True)
    first, second = (torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2))
    start = make_network().state_dict()
    assert first["kept"]
    assert second["kept"]
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in start)
    assert any(not torch.equal(first["weights"][name], start[name]) for name in start)


def test_ranks_stay_equal_and_a_rank_without_targets_does_not_hang(tmp_path: Path) -> None:
    check_ranks(tmp_path, batch_dice=False)


def test_ranks_stay_equal_where_dice_is_gathered(tmp_path: Path) -> None:
    check_ranks(tmp_path, batch_dice=True)
