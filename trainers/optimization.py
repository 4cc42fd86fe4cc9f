"""Makes the optimizer of a training, warms it up, and lists the parts of the network that have rates of their own."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from duplus_nnunet.networks import ConditionedUNet

# The second beta is that of trainings of transformers, whose second moments also change fast early on.
BETAS, WEIGHT_DECAY = (0.9, 0.98), 1e-2


def make_adamw(parameters: Iterable[nn.Parameter], rate: float, device: torch.device) -> torch.optim.AdamW:
    """Make AdamW, as one kernel for all parameters where the device has it.

    Source: Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=fused)


def warm_up(optimizer: torch.optim.Optimizer, rates: Sequence[float], step: int, length: int) -> None:
    """Raise the learning rates linearly over the first iterations of a training, up to those of the epoch.

    Args:
        optimizer: The optimizer.
        rates: Learning rate of each of its groups in this epoch.
        step: Number of the iteration, from 0.
        length: Number of iterations until the full rate; 0: no warm-up.
    """
    if step < length:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (step + 1) / length


def list_part(network: ConditionedUNet, part: str) -> list[nn.Parameter]:
    """List the weights of nnU-Net's own `encoder` or `decoder`, without the projections of the dynamic head."""
    named = network.named_parameters()
    return [value for name, value in named if name.startswith(f"{part}.") and ".seg_layers." not in name]
