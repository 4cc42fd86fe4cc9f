"""Optimizer and warm-up."""

import pytest
import torch
from torch import nn

from duplus_nnunet.trainers.optimization import make_adamw, warm_up


def test_adamw_has_the_rate_and_constants_that_were_measured() -> None:
    group = make_adamw([nn.Parameter(torch.zeros(2))], 1e-3, torch.device("cpu")).param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.9, 0.98), 1e-2)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0)])
def test_warm_up_rises_linearly_to_the_full_rate(step: int, rate: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    warm_up(optimizer, [1.0], step, 4)
    assert optimizer.param_groups[0]["lr"] == rate


def test_warm_up_of_no_iterations_changes_nothing() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    warm_up(optimizer, [1.0], 0, 0)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_groups_keep_their_ratio_in_the_warm_up() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1})
    warm_up(optimizer, [1.0, 0.1], 0, 2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]
