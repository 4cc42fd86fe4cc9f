"""One rank of two with a text adapter, for test_text_adaptation.py: python ddp_text_rank.py RANK FOLDER."""

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from duplus_nnunet.networks import Prompts, TextTable, condition
from duplus_nnunet.trainers.text_adaptation import keep_buffers_apart


def make_network(adapter: dict[str, nn.Parameter]) -> Any:
    unet = PlainConvUNet(
        1, 2, [4, 8], nn.Conv3d, 3, [1, 2], 1, 1, 1, True, nn.InstanceNorm3d, {"affine": True}, None, None,
        nn.LeakyReLU, {"inplace": True}, False,
    )  # fmt: skip
    table = TextTable(torch.arange(3), torch.randn(3, 4))
    table.attach(adapter)
    return condition(unet, (4, 8), texts=table)


def train(network: Any, lora: nn.Parameter) -> None:
    """Train two steps; each rank has texts of its own, embedded outside of the network."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for _ in range(2):
        texts = torch.randn(5, 4) @ lora
        network.module.bind(Prompts(texts[:1], texts[1:].reshape(2, 8)))
        optimizer.zero_grad()
        (network(torch.randn(1, 1, 8, 8, 8)) - 1).square().mean().backward()
        optimizer.step()


def run(rank: int, store: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}/sync", rank=rank, world_size=2)
    torch.manual_seed(0)
    lora = nn.Parameter(torch.eye(4))
    start = lora.detach().clone()
    network = DistributedDataParallel(make_network({"layer.lora_B": lora}))
    keep_buffers_apart(network)
    torch.manual_seed(rank)
    train(network, lora)
    network.module.texts.fill((torch.eye(4)[:3] @ lora).detach())
    rows = torch.tensor([[0]]), torch.tensor([[1, 2]])
    network.module.bind(Prompts(torch.zeros(1, 4), torch.zeros(1, 8), rows))
    network.eval()
    with torch.no_grad():
        for _ in range(2 * rank):
            network(torch.randn(1, 1, 8, 8, 8))
    dist.barrier()
    torch.save({"weights": network.module.state_dict(), "start": start}, f"{store}/{rank}.pth")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(int(sys.argv[1]), sys.argv[2])
