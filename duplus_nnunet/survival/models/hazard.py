"""Models the discrete-time logistic hazard: the probability of the event in each time bin, given survival up to it.

Source: Gensheimer and Narasimhan 2019, PeerJ 7:e6257; Kvamme and Borgan 2021.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.survival_loss import LossTargets
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

HIDDEN = 16
KNOTS = 21
# Distinct knots, less one, of a column that is continuous.
LEAST_STEPS = 5
# Standard deviation 1 of a uniform distribution of this width.
UNIFORM_SCALE = math.sqrt(12)


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


def discretise_outcomes(outcome: Outcome, edges: Numbers) -> LossTargets:
    """Convert the outcomes of N patients to time bins with the right edges (T) in days."""
    # A patient who is censored at an edge survived the bin that ends there: events come before censoring.
    survived = np.searchsorted(edges, outcome.time, side="right").astype(np.int64)
    places = np.where(outcome.event, assign_bins(outcome.time, edges), survived)
    seen = torch.from_numpy(outcome.event & (places < len(edges)))
    entered = None if outcome.entry is None else _measure_bins(outcome.entry, edges)
    return LossTargets(torch.from_numpy(places), seen, entered, _measure_bins(outcome.time, edges))


def _measure_bins(times: Numbers, edges: Numbers) -> torch.Tensor:
    """Return times in bins, with the fraction of the last one, 0 to T, float32 (N)."""
    bins = np.interp(times, np.concatenate([[0.0], edges]), np.arange(len(edges) + 1.0))
    return torch.from_numpy(bins.astype(np.float32))


def compute_exposure(targets: LossTargets, bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the share of each bin in which each patient was at risk, and the bin of the event; both float32 (N, T).

    A patient who is censored within a bin is at risk in it until then, as in an actuarial life table; otherwise the
    hazard of a wide bin in which many are censored would be far too high. The bin of a delayed entry counts by the
    share after the entry. The bin of the event counts fully, which in the bin of entry scales the likelihood, for small
    hazards, by a constant.

    Args:
        targets: Outcomes of N patients.
        bins: T.
    """
    columns = torch.arange(bins)[None, :]
    event = targets.seen[:, None] & (columns == targets.places[:, None])
    ended = targets.places.float() if targets.ended is None else targets.ended
    at_risk = (ended[:, None] - columns).clamp(0, 1)
    if targets.entered is not None:
        at_risk = at_risk - (targets.entered[:, None] - columns).clamp(0, 1)
    return torch.where(event, 1.0, at_risk), event.float()


def make_hazard_targets(outcome: Outcome, edges: Numbers) -> tuple[torch.Tensor, torch.Tensor]:
    """Return in which bins each patient was at risk, and the bin of the event; see `compute_exposure`."""
    return compute_exposure(discretise_outcomes(outcome, edges), len(edges))


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
    """Maps encoded records (N, P) to logits of hazards (N, T), in double precision.

    Each patient differs from the baseline by one number, the sum of a linear part and of a hidden layer. Both take the
    values, and the ranks among the training patients of values that are continuous.

    Args:
        features: P.
        bins: T.
        hidden: Width of the hidden layer.
    """

    knots: torch.Tensor

    def __init__(self, features: int, bins: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(features, hidden)
        self.hidden_of_ranks = torch.nn.Linear(features, hidden, bias=False)
        self.risk = torch.nn.Linear(hidden, 1, bias=False)
        self.linear = torch.nn.Linear(features, 1, bias=False)
        self.linear_of_ranks = torch.nn.Linear(features, 1, bias=False)
        self.base = torch.nn.Parameter(torch.zeros(bins))
        self.register_buffer("knots", torch.zeros(features, KNOTS))
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map records (N, P) to logits (N, T)."""
        values = x.double()
        ranks = rank_values(values, self.knots)
        hidden = functional.silu(self.hidden(values) + self.hidden_of_ranks(ranks))
        score = self.risk(hidden) + self.linear(values) + self.linear_of_ranks(ranks)
        logits: torch.Tensor = self.base + score
        return logits


def choose_knots(values: torch.Tensor) -> torch.Tensor:
    """Return the quantiles of each column of N patients, ascending, (P, 21), from which `rank_values` ranks."""
    shares = np.linspace(0, 1, KNOTS)
    return torch.from_numpy(np.quantile(values.numpy(), shares, axis=0, method="inverted_cdf").T.copy())


def rank_values(values: torch.Tensor, knots: torch.Tensor) -> torch.Tensor:
    """Return the ranks of values among the training patients, (N, P), with mean 0 and standard deviation 1 of theirs.

    Values between two knots are interpolated, those beyond the last knot take its rank, and tied values share theirs.
    Columns of five knots or fewer are not continuous: their ranks are 0.

    Args:
        values: Encoded records, (N, P).
        knots: Quantiles of the training patients, ascending, (P, K).
    """
    knots = knots.contiguous()
    count = knots.shape[1]
    first, after = (torch.searchsorted(knots, knots, right=right) for right in (False, True))
    levels = (first + after - 1) / 2 / (count - 1)
    columns = values.T.contiguous().clamp(knots[:, :1], knots[:, -1:])
    upper = torch.searchsorted(knots, columns).clamp(1, count - 1)
    low, high = (knots.gather(1, index) for index in (upper - 1, upper))
    width = high - low
    share = torch.where(width > 0, (columns - low) / width.where(width > 0, torch.ones_like(width)), 1.0)
    low_level, high_level = (levels.gather(1, index) for index in (upper - 1, upper))
    ranks = (low_level + share * (high_level - low_level) - 0.5) * UNIFORM_SCALE
    continuous = (knots.diff(dim=1) > 0).sum(1, keepdim=True) >= LEAST_STEPS
    return (ranks * continuous).T.to(values.dtype)
