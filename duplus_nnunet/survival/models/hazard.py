"""Models the discrete-time logistic hazard: the probability of the event in each time bin, given survival up to it.

Source: Gensheimer and Narasimhan 2019, PeerJ 7:e6257; Kvamme and Borgan 2021.
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
    """Choose time bins with equal numbers of training events.

    Args:
        outcome: Outcomes of training patients.
        count: Number of bins; there are fewer if there are fewer distinct event times.

    Returns:
        Right edges in days, ascending, (T); the last event lies on the last edge.

    Raises:
        DataError: No patient has the event.
    """
    times = outcome.time[outcome.event]
    if len(times) == 0:
        raise DataError("No training patient has the event, so no time bins can be chosen. Use fewer, larger folds.")
    edges: Numbers = np.unique(np.quantile(times, np.linspace(0, 1, count + 1)[1:], method="inverted_cdf"))
    return edges


def assign_bins(times: Numbers, edges: Numbers) -> NDArray[np.int64]:
    """Return the bin of each time, 0 to T - 1; T for times beyond the last edge."""
    return np.searchsorted(edges, times, side="left").astype(np.int64)


def discretise_outcomes(outcome: Outcome, edges: Numbers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Convert the outcomes of N patients to time bins.

    Returns:
        The number of bins that each patient survived, 0 to T, int64; whether the event occurred in the next bin, bool;
        and the delayed entry in bins, with the fraction of the last one, 0 to T, float32, or None.
    """
    # A patient who is censored at an edge survived the bin that ends there: events come before censoring.
    survived = np.searchsorted(edges, outcome.time, side="right").astype(np.int64)
    places = np.where(outcome.event, assign_bins(outcome.time, edges), survived)
    seen = torch.from_numpy(outcome.event & (places < len(edges)))
    if outcome.entry is None:
        return torch.from_numpy(places), seen, None
    entered = np.interp(outcome.entry, np.concatenate([[0.0], edges]), np.arange(len(edges) + 1.0))
    return torch.from_numpy(places), seen, torch.from_numpy(entered.astype(np.float32))


def compute_exposure(
    places: torch.Tensor, seen: torch.Tensor, entered: torch.Tensor | None, bins: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the share of each bin in which each patient was at risk, and the bin of the event; both float32 (N, T).

    A censored patient is at risk in the survived bins only. The bin of a delayed entry counts by the share after the
    entry; if the event occurred in it, it counts fully, which for small hazards scales the likelihood by a constant.

    Args:
        places: Number of bins that each patient survived, (N).
        seen: Whether the event occurred in the next bin, (N).
        entered: Delayed entry in bins, (N); None without delayed entry.
        bins: T.
    """
    columns = torch.arange(bins)[None, :]
    event = (seen[:, None] & (columns == places[:, None])).float()
    survived = (columns < places[:, None]).float()
    if entered is not None:
        survived = survived * (columns + 1 - entered[:, None]).clamp(0, 1)
    return survived + event, event


def make_hazard_targets(outcome: Outcome, edges: Numbers) -> tuple[torch.Tensor, torch.Tensor]:
    """Return in which bins each patient was at risk, and the bin of the event; see `compute_exposure`."""
    return compute_exposure(*discretise_outcomes(outcome, edges), len(edges))


def logistic_hazard_loss(logits: torch.Tensor, at_risk: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood, averaged over patients.

    Args:
        logits: Logits of the hazards, (N, T).
        at_risk: Share of each bin in which each patient was at risk, 0 to 1, (N, T).
        event: 1 in the bin of the event, else 0, (N, T).
    """
    terms = functional.binary_cross_entropy_with_logits(logits, event, reduction="none")
    return (terms * at_risk).sum(1).mean()


def predict_survival(logits: torch.Tensor, edges: Numbers, times: Numbers) -> Numbers:
    """Return the survival probability at some times, (N, times).

    The hazard is constant within a bin, and 0 beyond the last edge.

    Args:
        logits: Logits of the hazards, (N, T).
        edges: Right edges of the bins, in days, (T).
        times: Times in days.
    """
    return interpolate_survival(functional.logsigmoid(-logits.double()).cumsum(1).numpy(), edges, times)


def interpolate_survival(logs: Numbers, edges: Numbers, times: Numbers) -> Numbers:
    """Return the survival probability at some times, (N, times), from its logarithm at the right edges, (N, T)."""
    logs = np.concatenate([np.zeros((len(logs), 1)), logs], axis=1)
    knots = np.concatenate([[0.0], edges])
    curves = np.exp([np.interp(times, knots, row) for row in logs])
    return np.asarray(curves, np.float64).reshape(len(logs), len(times))


def predict_risk(logits: torch.Tensor) -> Numbers:
    """Return the risk, (N); higher is worse: the cumulative hazard at the last edge."""
    risk: Numbers = -functional.logsigmoid(-logits.double()).sum(1).numpy()
    return risk


class RecordNetwork(torch.nn.Module):
    """MLP from encoded records (N, P) to logits of hazards (N, T).

    Args:
        features: P.
        bins: T.
        hidden: Width of the hidden layer.
        dropout: Dropout probability of the inputs.
    """

    def __init__(self, features: int, bins: int, hidden: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(dropout)
        self.hidden = torch.nn.Linear(features, hidden)
        self.risk = torch.nn.Linear(hidden, 1, bias=False)
        # Logit of the baseline hazard of each bin; initially, patients differ from it by one number each.
        self.base = torch.nn.Parameter(torch.zeros(bins))
        self.shape = torch.nn.Linear(hidden, bins, bias=False)
        torch.nn.init.zeros_(self.shape.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map records (N, P) to logits (N, T)."""
        hidden = functional.leaky_relu(self.hidden(self.dropout(x)), 0.01)
        logits: torch.Tensor = self.base + self.risk(hidden) + self.shape(hidden)
        return logits


def initialise_base_hazards(network: RecordNetwork, at_risk: torch.Tensor, event: torch.Tensor) -> None:
    """Set the baseline to the average hazards of all training patients."""
    hazards = (event.sum(0) + 0.5) / (at_risk.sum(0) + 1.0)
    with torch.no_grad():
        network.base.copy_(torch.logit(hazards))


def train_record_network(
    features: NDArray[np.float32], outcome: Outcome, validation: Sequence[int], seed: int, bins: int = 10
) -> tuple[RecordNetwork, Numbers]:
    """Train a network with early stopping on a validation part of the training patients.

    Args:
        features: Encoded records of training patients, (N, P).
        outcome: Outcomes of the same patients.
        validation: Rows of the patients that are used for early stopping only; one or more.
        seed: Seed of weights and dropout.
        bins: Number of time bins.

    Returns:
        The network in eval mode, and the right edges of its bins.
    """
    validation_rows = np.asarray(validation, np.int64)
    train = np.setdiff1d(np.arange(len(outcome)), validation_rows)
    edges = choose_bin_edges(outcome.take(train), bins)
    inputs, (at_risk, event) = torch.from_numpy(features), make_hazard_targets(outcome, edges)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = RecordNetwork(features.shape[1], len(edges))
        initialise_base_hazards(network, at_risk[train], event[train])
        _fit(network, (inputs, at_risk, event), train, validation_rows)
    return network.eval(), edges


def _fit(
    network: RecordNetwork,
    data: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)

    def train_epoch() -> None:
        for batch in torch.split(torch.from_numpy(train)[torch.randperm(len(train))], _BATCH):
            optimizer.zero_grad()
            loss = logistic_hazard_loss(network(data[0][batch]), data[1][batch], data[2][batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def validation_loss() -> float:
        return float(logistic_hazard_loss(network(data[0][validation]), data[1][validation], data[2][validation]))

    train_with_early_stopping(network, train_epoch, validation_loss)
