"""Discrete-time logistic hazard: the chance to have the event in a time bin, for those who came that far.

In come features (N, P), out come hazards (N, T) of T bins; survival curves follow from them. Bins are cut from the
times of training events alone. Source: Gensheimer and Narasimhan 2019, PeerJ 7:e6257; Kvamme and Borgan 2021.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.early_stopping import train_with_early_stopping
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

_BATCH = 128
_LEARNING_RATE, _WEIGHT_DECAY = 1e-2, 1e-2


def choose_bin_edges(outcome: Outcome, count: int) -> Numbers:
    """Cut time into bins with as many training events each.

    Args:
        outcome: Of training patients.
        count: Number of bins that are wanted; fewer if there are not as many different times of events.

    Returns:
        Right edges in days, ascending, (T); the last event lies on the last edge.

    Raises:
        DataError: There is no event.
    """
    times = outcome.time[outcome.event]
    if len(times) == 0:
        raise DataError("No training patient has the event, so that time cannot be cut into bins. Use larger folds.")
    edges: Numbers = np.unique(np.quantile(times, np.linspace(0, 1, count + 1)[1:], method="inverted_cdf"))
    return edges


def assign_bins(times: Numbers, edges: Numbers) -> NDArray[np.int64]:
    """Give the bin of each time, 0 to T - 1; times beyond the last edge are T."""
    return np.searchsorted(edges, times, side="left").astype(np.int64)


def discretise_outcomes(outcome: Outcome, edges: Numbers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Say between which bins each of N patients was under observation, and whether the event came next.

    Returns:
        The number of bins that each outlived, 0 to T, int64; whether the event came in the next one, bool; and how many
        had passed at the entry, the last of them in part, 0 to T, float32, or None if nobody entered late.
    """
    # Who is censored at an edge outlived the bin that ends there: of equal times, events come first.
    outlived = np.searchsorted(edges, outcome.time, side="right").astype(np.int64)
    places = np.where(outcome.event, assign_bins(outcome.time, edges), outlived)
    seen = torch.from_numpy(outcome.event & (places < len(edges)))
    if outcome.entry is None:
        return torch.from_numpy(places), seen, None
    passed = np.interp(outcome.entry, np.concatenate([[0.0], edges]), np.arange(len(edges) + 1.0))
    return torch.from_numpy(places), seen, torch.from_numpy(passed.astype(np.float32))


def compute_exposure(
    places: torch.Tensor, seen: torch.Tensor, entered: torch.Tensor | None, bins: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Say in which bins each patient was at risk, and in which one they had the event; both float32 (N, T).

    A censored patient counts in the bins that they outlived. A bin in which a patient entered counts by what was left
    of it; if the event came in it, it counts whole, which for small hazards changes the likelihood by a factor alone.

    Args:
        places: Number of bins that each outlived, (N).
        seen: Whether the event came in the next one, (N).
        entered: How many had passed at the entry, (N); None: nobody entered late.
        bins: T.
    """
    columns = torch.arange(bins)[None, :]
    had = (seen[:, None] & (columns == places[:, None])).float()
    outlived = (columns < places[:, None]).float()
    if entered is not None:
        outlived = outlived * (columns + 1 - entered[:, None]).clamp(0, 1)
    return outlived + had, had


def make_hazard_targets(outcome: Outcome, edges: Numbers) -> tuple[torch.Tensor, torch.Tensor]:
    """Say in which bins each patient was at risk, and in which one they had the event; see `compute_exposure`."""
    return compute_exposure(*discretise_outcomes(outcome, edges), len(edges))


def logistic_hazard_loss(logits: torch.Tensor, risk: torch.Tensor, had: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood, a mean over patients.

    Args:
        logits: Of the hazards, (N, T).
        risk: Share of each bin in which each patient was at risk, 0 to 1, (N, T).
        had: The bin in which they had the event, (N, T).
    """
    parts = functional.binary_cross_entropy_with_logits(logits, had, reduction="none")
    return (parts * risk).sum(1).mean()


def predict_survival(logits: torch.Tensor, edges: Numbers, times: Numbers) -> Numbers:
    """Return the probability to be free of the event at some times, (N, times).

    Within a bin the hazard is taken to be constant; beyond the last edge the curve stays where it is.

    Args:
        logits: Of the hazards, (N, T).
        edges: Right edges of the bins, in days, (T).
        times: In days.
    """
    return interpolate_survival(functional.logsigmoid(-logits.double()).cumsum(1).numpy(), edges, times)


def interpolate_survival(logs: Numbers, edges: Numbers, times: Numbers) -> Numbers:
    """Return survival at some times, (N, times), given its logarithm at the right edges of bins, (N, T)."""
    logs = np.concatenate([np.zeros((len(logs), 1)), logs], axis=1)
    knots = np.concatenate([[0.0], edges])
    curves = np.exp([np.interp(times, knots, row) for row in logs])
    return np.asarray(curves, np.float64).reshape(len(logs), len(times))


def predict_risk(logits: torch.Tensor) -> Numbers:
    """Return a risk, (N), higher is worse: the expected number of events, as the cumulative hazard over all bins."""
    risk: Numbers = -functional.logsigmoid(-logits.double()).sum(1).numpy()
    return risk


class RecordNetwork(torch.nn.Module):
    """MLP from a record's numbers (N, P) to logits of hazards (N, T).

    Args:
        features: P.
        bins: T.
        hidden: Width of its hidden layer.
        dropout: Share of a record's numbers that is left out in training.
    """

    def __init__(self, features: int, bins: int, hidden: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(dropout)
        self.hidden = torch.nn.Linear(features, hidden)
        self.risk = torch.nn.Linear(hidden, 1, bias=False)
        # A base hazard, a bin each: what changes from patient to patient is one number, unless the data say more.
        self.base = torch.nn.Parameter(torch.zeros(bins))
        self.shape = torch.nn.Linear(hidden, bins, bias=False)
        torch.nn.init.zeros_(self.shape.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map records (N, P) to logits (N, T)."""
        hidden = functional.leaky_relu(self.hidden(self.dropout(x)), 0.01)
        logits: torch.Tensor = self.base + self.risk(hidden) + self.shape(hidden)
        return logits


def initialise_base_hazards(network: RecordNetwork, risk: torch.Tensor, had: torch.Tensor) -> None:
    """Start from the hazards of all training patients together."""
    shares = (had.sum(0) + 0.5) / (risk.sum(0) + 1.0)
    with torch.no_grad():
        network.base.copy_(torch.logit(shares))


def train_record_network(
    features: NDArray[np.float32], outcome: Outcome, held: Sequence[int], seed: int, bins: int = 10
) -> tuple[RecordNetwork, Numbers]:
    """Train a network; a part of the training patients says when to stop, and nobody else.

    Args:
        features: Of training patients, (N, P).
        outcome: Of the same.
        held: Places of those that are not learned from, but say when to stop; one or more.
        seed: Of weights and dropout.
        bins: Number of time bins.

    Returns:
        The network in eval mode, and the right edges of its bins.
    """
    learn = np.setdiff1d(np.arange(len(outcome)), np.asarray(held, np.int64))
    edges = choose_bin_edges(outcome.take(learn), bins)
    inputs, (risk, had) = torch.from_numpy(features), make_hazard_targets(outcome, edges)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = RecordNetwork(features.shape[1], len(edges))
        initialise_base_hazards(network, risk[learn], had[learn])
        _fit(network, (inputs, risk, had), learn, np.asarray(held, np.int64))
    return network.eval(), edges


def _fit(
    network: RecordNetwork,
    data: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    learn: NDArray[np.int64],
    held: NDArray[np.int64],
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)

    def learn_once() -> None:
        for batch in torch.split(torch.from_numpy(learn)[torch.randperm(len(learn))], _BATCH):
            optimizer.zero_grad()
            loss = logistic_hazard_loss(network(data[0][batch]), data[1][batch], data[2][batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def measure() -> float:
        return float(logistic_hazard_loss(network(data[0][held]), data[1][held], data[2][held]))

    train_with_early_stopping(network, learn_once, measure)
