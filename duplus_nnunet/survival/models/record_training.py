"""Trains networks of clinical records, side by side: one for each penalty and each inner fold of the training patients.

The weights of a network are penalised as by a normal prior. The strength of the penalty is chosen by the likelihood of
inner held-out patients, once among linear networks and once among those with a hidden layer; the networks of both, one
for each inner fold, are kept and predict together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from duplus_nnunet.survival.models.hazard import (
    HIDDEN,
    RecordNetwork,
    choose_bin_edges,
    choose_knots,
    make_hazard_targets,
    rank_values,
)
from duplus_nnunet.survival.models.threads import use_one_thread
from duplus_nnunet.survival.records.folds import Fold
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

# Standard deviations of the prior of a weight of the linear part and of the last layer, of linear networks and of those
# with a hidden layer; benchmarks/records.py says on which tables they were chosen.
LINEAR_SPREADS = (0.03, 0.1, 0.3, 1.0)
HIDDEN_SPREADS = (0.03, 0.1, 0.3)
# Biases of the hidden layer, and its weights together, are drawn with these spreads and held near what was drawn.
_DRAWN_BIAS, _DRAWN, _HELD = 1.0, 3.0, 0.5
_LEAST_INPUTS = 4
_STEPS, _WARM_UP, _RATE = 200, 10, 0.03


@dataclass(frozen=True)
class _Targets:
    """What N patients are compared with; float32 (N, T).

    Attributes:
        at_risk: Share of each bin in which each patient was at risk.
        event: 1 in the bin of the event.
    """

    at_risk: torch.Tensor
    event: torch.Tensor

    def sum_losses(self, base: torch.Tensor, scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihood of M networks, summed over patients, (M).

        Args:
            base: Logits of the baseline hazards, (M, T).
            scores: What each patient differs by, (M, N).
            weights: Weight of each patient, (M, N).
        """
        survived = (functional.softplus(base[:, None, :] + scores[:, :, None]) * self.at_risk).sum(2)
        return (weights * (survived - base @ self.event.T - scores * self.event.sum(1))).sum(1)


class _Networks(torch.nn.Module):
    """M networks side by side, of inputs (N, D).

    Args:
        base: Logits of the baseline hazards, (M, T).
        spreads: Standard deviation of the prior of each network's weights, (M).
        inputs: D.
        hidden: Width of the hidden layer; 0: the networks are linear.
    """

    def __init__(self, base: torch.Tensor, spreads: torch.Tensor, inputs: int, hidden: int) -> None:
        super().__init__()
        count = len(base)
        self.spreads = spreads
        self.base = torch.nn.Parameter(base)
        self.linear = torch.nn.Parameter(torch.zeros(count, inputs))
        self.risk = torch.nn.Parameter(torch.zeros(count, hidden))
        self.drawn = torch.randn(count, hidden, inputs + 1) * _DRAWN_BIAS
        self.drawn[:, :, :-1] *= _DRAWN / math.sqrt(max(_LEAST_INPUTS, inputs))
        self.weights = torch.nn.Parameter(self.drawn.clone())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs (N, D) to what each patient differs by, (M, N)."""
        scores = self.linear @ inputs.T
        if not self.risk.shape[1]:
            return scores
        biases = self.weights[:, None, :, -1]
        hidden = functional.silu(torch.einsum("nd,mhd->mnh", inputs, self.weights[:, :, :-1]) + biases)
        both: torch.Tensor = scores + torch.einsum("mnh,mh->mn", hidden, self.risk)
        return both

    def penalise(self) -> torch.Tensor:
        """Return the negative log prior density of the weights, but for a constant, (M)."""
        outer = (self.linear.square().sum(1) + self.risk.square().sum(1)) / self.spreads.square()
        return (outer + (self.weights - self.drawn).square().sum((1, 2)) / _HELD**2) / 2


@use_one_thread()
def train_record_networks(
    features: NDArray[np.float32], outcome: Outcome, folds: Sequence[Fold], seed: int, bins: int = 10
) -> tuple[list[RecordNetwork], Numbers]:
    """Train networks whose predictions are to be averaged.

    Args:
        features: Encoded records of training patients, (N, P).
        outcome: Outcomes of the same patients.
        folds: Inner folds, as rows of the same patients.
        seed: Seed of the weights.
        bins: Number of time bins.

    Returns:
        The networks in eval mode, two for each inner fold, and the right edges of their bins in days.

    Raises:
        DataError: No patient has the event.
    """
    edges = choose_bin_edges(outcome, bins)
    values, targets = torch.from_numpy(features), _Targets(*make_hazard_targets(outcome, edges))
    knots = choose_knots(values)
    inputs = torch.cat([values, rank_values(values, knots)], 1)
    held_out = torch.zeros(len(folds), len(values))
    for number, fold in enumerate(folds):
        held_out[number, list(fold.test)] = 1.0
    chosen = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for spreads, hidden in ((LINEAR_SPREADS, 0), (HIDDEN_SPREADS, HIDDEN)):
            networks = _train(inputs, targets, held_out, spreads, hidden)
            best = _choose_spread(networks, inputs, targets, held_out)
            rows = range(best * len(folds), (best + 1) * len(folds))
            chosen += [_export(networks, row, knots) for row in rows]
    return chosen, edges


def _train(
    inputs: torch.Tensor, targets: _Targets, held_out: torch.Tensor, spreads: Sequence[float], hidden: int
) -> _Networks:
    """Train a network for each spread of the prior and each inner fold, in this order."""
    weights = (1 - held_out).repeat(len(spreads), 1)
    hazards = (weights @ targets.event + 0.5) / (weights @ targets.at_risk + 1.0)
    of_network = torch.tensor(spreads).repeat_interleave(len(held_out))
    networks = _Networks(torch.logit(hazards), of_network, inputs.shape[1], hidden)
    optimizer = torch.optim.Adam(networks.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _make_rate())
    for _ in range(_STEPS):
        optimizer.zero_grad()
        losses = targets.sum_losses(networks.base, networks(inputs), weights) + networks.penalise()
        (losses / weights.sum(1)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return networks


def _make_rate() -> Callable[[int], float]:
    """Return the share of the learning rate at a step: it rises for ten steps, and falls to 0 as a cosine."""
    return lambda step: min(1.0, (step + 1) / _WARM_UP) * (1 + math.cos(math.pi * step / _STEPS)) / 2


def _choose_spread(networks: _Networks, inputs: torch.Tensor, targets: _Targets, held_out: torch.Tensor) -> int:
    """Return the index of the prior under which held-out patients are most likely."""
    with torch.no_grad():
        weights = held_out.repeat(len(networks.base) // len(held_out), 1)
        losses = targets.sum_losses(networks.base, networks(inputs), weights)
        return int(losses.reshape(-1, len(held_out)).sum(1).argmin())


def _export(networks: _Networks, row: int, knots: torch.Tensor) -> RecordNetwork:
    """Return one of the networks, with a hidden layer that adds nothing if it is linear."""
    features, hidden = len(knots), networks.risk.shape[1]
    network = RecordNetwork(features, networks.base.shape[1])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.knots.copy_(knots)
        network.base.copy_(networks.base[row])
        network.linear.weight.copy_(networks.linear[[row], :features])
        network.linear_of_ranks.weight.copy_(networks.linear[[row], features:])
        if hidden:
            network.hidden.weight.copy_(networks.weights[row, :, :features])
            network.hidden_of_ranks.weight.copy_(networks.weights[row, :, features:-1])
            network.hidden.bias.copy_(networks.weights[row, :, -1])
            network.risk.weight.copy_(networks.risk[[row]])
    return network.eval()
