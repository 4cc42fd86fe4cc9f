"""Learning rates by group of parameters: nnU-Net's polynomial schedule, times what each group asks for."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

# From an epoch to what nnU-Net's learning rate is multiplied by there.
Factor = Callable[[int], float]


def always(factor: float) -> Factor:
    """Return the same factor in every epoch."""
    return lambda epoch: factor


def from_epoch(start: int) -> Factor:
    """Return 0 before an epoch, and 1 from it on.

    At a rate of 0 weights stay as they are, with weight decay too; DDP, which wants a gradient of every parameter
    from the first step on, is left in peace.
    """
    return lambda epoch: float(epoch >= start)


def separate(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Make some parameters of the optimizer's first group a group of their own, the last one."""
    chosen = {id(parameter) for parameter in parameters}
    first = optimizer.param_groups[0]
    moved = [parameter for parameter in first["params"] if id(parameter) in chosen]
    first["params"] = [parameter for parameter in first["params"] if id(parameter) not in chosen]
    optimizer.add_param_group({**{key: value for key, value in first.items() if key != "params"}, "params": moved})


class GroupSchedule(PolyLRScheduler):
    """nnU-Net's schedule, which sets all groups alike, times each group's own factor.

    Args:
        optimizer: nnU-Net's.
        schedule: nnU-Net's, which this one takes the place of.
        factors: One a group.
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
