"""Optimizer and warm-up."""

from types import SimpleNamespace

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from duplus_nnunet.errors import DataError
from duplus_nnunet.trainers import DuPLUSTrainer
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


@pytest.mark.parametrize(
    ("losses", "weight", "ends"),
    [((1.0, 0.5), 0.0, False), ((float("inf"), 0.5), 0.0, False), ((float("-inf"), float("nan")), 0.0, True),
     ((1.0, 0.5), float("nan"), True)],
)  # fmt: skip
def test_a_training_that_is_no_longer_one_ends(
    losses: tuple[float, ...], weight: float, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nnUNetTrainer, "on_train_epoch_end", lambda *_: None)
    trainer = DuPLUSTrainer.__new__(DuPLUSTrainer)
    trainer.network = SimpleNamespace(parameters=lambda: [torch.tensor([weight])])
    trainer.current_epoch = 3
    outputs = [{"loss": loss} for loss in losses]
    if not ends:
        trainer.on_train_epoch_end(outputs)
        return
    with pytest.raises(DataError, match="epoch 3"):
        trainer.on_train_epoch_end(outputs)
