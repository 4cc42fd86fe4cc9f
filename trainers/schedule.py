"""Learning rates by parameter group: nnU-Net's polynomial schedule times a factor for each group."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

# Maps an epoch to the factor of nnU-Net's learning rate in it.
Factor = Callable[[int], float]


def always(factor: float) -> Factor:
    """Return the same factor in every epoch."""
    return lambda epoch: factor


def from_epoch(start: int) -> Factor:
    """Return a factor of 0 before an epoch, and of 1 from it on.

    At a rate of 0, weights do not change, not even by weight decay. Parameters still have gradients, which DDP requires
    from the first step on.
    """
    return lambda epoch: float(epoch >= start)


def separate(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Move some parameters of the optimizer's first group to a new group, the last one."""
    chosen = {id(parameter) for parameter in parameters}
    first = optimizer.param_groups[0]
    moved = [parameter for parameter in first["params"] if id(parameter) in chosen]
    first["params"] = [parameter for parameter in first["params"] if id(parameter) not in chosen]
    optimizer.add_param_group({**{key: value for key, value in first.items() if key != "params"}, "params": moved})


class GroupSchedule(PolyLRScheduler):
    """nnU-Net's schedule, which sets the same rate for all groups, times a factor for each group.

    Args:
        optimizer: nnU-Net's optimizer.
        schedule: nnU-Net's schedule, which this one replaces.
        factors: Factor of each group.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Any, factors: Sequence[Factor]) -> None:
        self.factors = list(factors)
        super().__init__(optimizer, schedule.initial_lr, schedule.max_steps)

    def step(self, current_step: int | None = None) -> None:
        """Set the learning rates of an epoch."""
        epoch = self.ctr if current_step is None or current_step == -1 else current_step
        super().step(current_step)
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] *= factor(epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
