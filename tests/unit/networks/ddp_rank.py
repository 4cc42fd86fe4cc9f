"""Runs one of two ranks through all settings, for test_ddp.py: python ddp_rank.py RANK FOLDER."""

import itertools
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from duplus_nnunet.networks import Prompts, condition
from duplus_nnunet.networks.adaptation import AdapterSpec, attach_adapter, choose_convolutions
from duplus_nnunet.trainers.loss import TargetLoss


def make_network(adapted: bool) -> Any:
    torch.manual_seed(0)
    unet = PlainConvUNet(
        1, 2, [4, 8], nn.Conv3d, 3, [1, 2], 1, 1, 1, True, nn.InstanceNorm3d, {"affine": True}, None, None,
        nn.LeakyReLU, {"inplace": True}, False,
    )  # fmt: skip
    network = condition(unet, (3, 6))
    if adapted:
        attach_adapter(network, AdapterSpec("new", 2, 2, 0.0, choose_convolutions(network, (), 2), True, True))
        network.default_adapter = "new"
    return network


def step(rank: int, store: str, batch_dice: bool, adapted: bool) -> None:
    """Train one step on a rank; rank 1 has other prompts, no annotated target and, without batch Dice, fewer targets.

    With Dice over the batch, sums are gathered from all ranks, which then need the same number of targets.
    """
    network = DistributedDataParallel(make_network(adapted))
    torch.manual_seed(rank + 1)
    count = 2 if batch_dice or rank == 0 else 1
    prompts = Prompts(torch.randn(1, 3), torch.randn(1, count, 6))
    network.module.bind(prompts)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    labels = torch.randint(0, 3, (1, 1, 8, 8, 8), dtype=torch.int16)
    annotated = torch.full((1, count), rank == 0)
    loss = TargetLoss([1, 2], batch_dice, ddp=True)
    loss.select(torch.arange(count), annotated)
    loss(network(torch.randn(1, 1, 8, 8, 8)), labels).backward()
    optimizer.step()
    kept = torch.equal(network.module.prompts.targets, prompts.targets)
    start = make_network(adapted).state_dict()
    result = {"weights": network.module.state_dict(), "start": start, "kept": kept}
    torch.save(result, f"{store}/{rank}_{batch_dice}_{adapted}.pth")
    dist.barrier()


def run(rank: int, store: str) -> None:
    """Join the other rank once, and train a step in each setting."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}/sync", rank=rank, world_size=2)
    for batch_dice, adapted in itertools.product((False, True), repeat=2):
        step(rank, store, batch_dice, adapted)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(int(sys.argv[1]), sys.argv[2])
