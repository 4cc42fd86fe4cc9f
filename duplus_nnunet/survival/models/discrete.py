"""Computes the discrete-time losses: logistic hazard, MTLR and DeepHit.

A patient's place is the number of time bins that the patient is known to have survived; a censored patient contributes
these bins, and the next one until the end of observation, with a constant hazard within it. With delayed entry, the
likelihood is conditional on being free of the event at entry.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from duplus_nnunet.survival.models.hazard import (
    compute_exposure,
    discretise_outcomes,
    interpolate_survival,
    logistic_hazard_loss,
)
from duplus_nnunet.survival.models.survival_loss import LossTargets, SurvivalLoss
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

# DeepHit's weight of the likelihood against the ranking loss, and scale of the ranking loss; the defaults of pycox.
_ALPHA, _SIGMA = 0.2, 0.1
# Lower bound of a cumulative hazard, so that its logarithm is finite.
_LEAST_HAZARD = 1e-6


@dataclass(frozen=True)
class DiscreteLoss(SurvivalLoss):
    """A loss over time bins.

    Attributes:
        edges: Right edges of the T bins in days, ascending.
    """

    edges: Numbers

    @property
    def outputs(self) -> int:
        """Number of time bins."""
        return len(self.edges)

    def make_targets(self, outcome: Outcome) -> LossTargets:
        """Count the bins that each patient survived, and mark those with the event in the next one."""
        return discretise_outcomes(outcome, self.edges)

    def _make_exposure(self, targets: LossTargets) -> tuple[torch.Tensor, torch.Tensor]:
        return compute_exposure(targets, self.outputs)

    @abstractmethod
    def cumulative_hazard(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the cumulative hazard, -log(survival), at the right edge of each bin, (N, T)."""

    def initial_outputs(self, targets: LossTargets) -> torch.Tensor:
        """Return the outputs that predict the average hazards of all patients."""
        at_risk, event = self._make_exposure(targets)
        return self.encode_hazards((event.sum(0) + 0.5) / (at_risk.sum(0) + 1.0))

    @abstractmethod
    def encode_hazards(self, hazards: torch.Tensor) -> torch.Tensor:
        """Return the outputs that stand for given hazards, that is probabilities of the event in each bin; both (T)."""

    def predict_risk(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability of the event by each bin edge, averaged over edges, 0 to 1.

        As it is bounded, no single network can dominate an ensemble.
        """
        return -torch.expm1(-self.cumulative_hazard(logits)).mean(1)

    def predict_survival(self, logits: torch.Tensor, times: Numbers) -> Numbers:
        """Return survival; the hazard is constant within a bin, and 0 beyond the last edge."""
        return interpolate_survival(-self.cumulative_hazard(logits.double()).numpy(), self.edges, times)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data that can be stored as JSON."""
        return {"name": self.name, "edges": self.edges.tolist()}


@dataclass(frozen=True)
class LogisticHazard(DiscreteLoss):
    """Logistic hazard: the outputs are logits of hazards. Source: Gensheimer and Narasimhan 2019, PeerJ 7:e6257."""

    name: ClassVar[str] = "logistic hazard"

    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return the negative log-likelihood, averaged over patients."""
        at_risk, event = self._make_exposure(targets)
        return logistic_hazard_loss(logits, at_risk, event)

    def cumulative_hazard(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the cumulative hazard at the right edge of each bin, (N, T)."""
        return -functional.logsigmoid(-logits).cumsum(1)

    def encode_hazards(self, hazards: torch.Tensor) -> torch.Tensor:
        """Return the logits of hazards."""
        return torch.logit(hazards)


@dataclass(frozen=True)
class Multinomial(DiscreteLoss):
    """A loss whose outputs give the probability of the event in each bin, and of none, whose score is fixed at 0."""

    @abstractmethod
    def bin_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Convert outputs (N, T) to scores of the bins (N, T), the logits of a softmax over bins and no event."""

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of the event in each of T bins, and of no event, (N, T + 1)."""
        return functional.pad(self.bin_scores(logits), (0, 1)).log_softmax(1)

    def _negative_log_likelihood(self, logs: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        log_survival = logs.flip(1).logcumsumexp(1).flip(1)
        ended = targets.places.float() if targets.ended is None else targets.ended
        event = logs.gather(1, targets.places[:, None])[:, 0]
        terms = torch.where(targets.seen, event, _interpolate(log_survival, targets.places, ended))
        if targets.entered is not None:
            terms = _condition_on_entry(terms, log_survival, targets.seen, targets.places, targets.entered)
        return -terms.mean()

    def cumulative_hazard(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the cumulative hazard at the right edge of each bin, (N, T)."""
        return -self.log_probabilities(logits).flip(1).logcumsumexp(1).flip(1)[:, 1:]


@dataclass(frozen=True)
class MultiTaskRegression(Multinomial):
    """MTLR: the score of a bin is the sum of the outputs from that bin on. Source: Yu et al. 2011, NeurIPS 24."""

    name: ClassVar[str] = "mtlr"

    def bin_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Sum the outputs from each bin to the last one."""
        return logits.flip(1).cumsum(1).flip(1)

    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return the negative log-likelihood, averaged over patients."""
        return self._negative_log_likelihood(self.log_probabilities(logits), targets)

    def encode_hazards(self, hazards: torch.Tensor) -> torch.Tensor:
        """Return the outputs whose sums stand for the hazards."""
        scores = _log_odds_of_bins(hazards)
        return scores - functional.pad(scores[1:], (0, 1))


@dataclass(frozen=True)
class DeepHit(Multinomial):
    """DeepHit for a single event type: the likelihood plus a ranking loss.

    Source: Lee et al. 2018, AAAI; the weighting follows Kvamme et al. 2019, JMLR 20(129).
    """

    name: ClassVar[str] = "deephit"

    def bin_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the outputs unchanged."""
        return logits

    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return the weighted sum of the negative log-likelihood, averaged over patients, and the ranking loss."""
        logs = self.log_probabilities(logits)
        # Cumulative incidence at the end of each bin; for pairs (i, j), at the bin of i's event.
        incidence = logs.exp().cumsum(1)
        own = incidence.gather(1, targets.places[:, None])
        others = incidence.T[targets.places]
        comparable = targets.seen[:, None] & (targets.places[None, :] > targets.places[:, None])
        if targets.entered is not None:  # j has to be at risk when the bin begins
            comparable &= targets.entered[None, :] <= targets.places[:, None]
        costs = torch.exp((others - own) / _SIGMA) * comparable
        return _ALPHA * self._negative_log_likelihood(logs, targets) + (1 - _ALPHA) * costs.mean()

    def encode_hazards(self, hazards: torch.Tensor) -> torch.Tensor:
        """Return the scores that stand for the hazards."""
        return _log_odds_of_bins(hazards)


def _condition_on_entry(
    terms: torch.Tensor, log_survival: torch.Tensor, seen: torch.Tensor, places: torch.Tensor, entered: torch.Tensor
) -> torch.Tensor:
    """Return log-likelihoods (N), conditional on being free of the event at entry.

    Args:
        terms: Unconditional log-likelihoods, (N).
        log_survival: Logarithm of survival at the left edge of each bin and at the last right edge, (N, T + 1).
        seen: As in `LossTargets`, (N).
        places: As in `LossTargets`, (N).
        entered: As in `LossTargets`, (N).
    """
    entry_bin = entered.long().clamp(max=log_survival.shape[1] - 2)
    after = log_survival.gather(1, (entry_bin + 1)[:, None])[:, 0]
    at_entry = _interpolate(log_survival, entry_bin, entered)
    event_in_bin = torch.log(-torch.expm1((after - at_entry).clamp(max=-_LEAST_HAZARD)))
    return torch.where(seen & (places == entry_bin), event_in_bin, terms - at_entry)


def _interpolate(log_survival: torch.Tensor, bins: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of survival at times in bins (N), which lie in given bins (N); hazards in bins are constant.

    Args:
        log_survival: Logarithm of survival at the left edge of each bin and at the last right edge, (N, T + 1).
        bins: The bin of each time; T at the last right edge, int64 (N).
        times: Times in bins, with the fraction of the last one, 0 to T, (N).
    """
    places = torch.stack([bins, (bins + 1).clamp(max=log_survival.shape[1] - 1)], 1)
    before, after = log_survival.gather(1, places).unbind(1)
    return before + (times - bins) * (after - before)


def _log_odds_of_bins(hazards: torch.Tensor) -> torch.Tensor:
    """Return the log odds of the event in each bin against no event, (T)."""
    survival = torch.cat([torch.ones(1), (1 - hazards).cumprod(0)])
    return torch.log(hazards * survival[:-1]) - torch.log(survival[-1])
