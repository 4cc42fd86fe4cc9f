"""Losses over bins of time: logistic hazard, MTLR and DeepHit.

Bins are cut from the times of training events alone. A place is the number of bins that a patient is known to have
outlived; those censored count in these bins and no others. Of who entered late, the likelihood is that of somebody who
was free of the event at the entry.
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

# DeepHit's weight of the likelihood against the ranking, and how steeply a pair in wrong order costs; both as in pycox.
_ALPHA, _SIGMA = 0.2, 0.1
# A cumulative hazard that is no smaller keeps logarithms finite.
_LEAST = 1e-6


@dataclass(frozen=True)
class DiscreteLoss(SurvivalLoss):
    """A loss over bins of time.

    Attributes:
        edges: Right edges of the T bins in days, ascending.
    """

    edges: Numbers

    @property
    def outputs(self) -> int:
        """Count the bins."""
        return len(self.edges)

    def make_targets(self, outcome: Outcome) -> LossTargets:
        """Say how many bins each patient outlived, and whether the event is in the next one."""
        return LossTargets(*discretise_outcomes(outcome, self.edges))

    def _make_exposure(self, targets: LossTargets) -> tuple[torch.Tensor, torch.Tensor]:
        return compute_exposure(targets.places, targets.seen, targets.entered, self.outputs)

    @abstractmethod
    def cumulative_hazard(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the cumulative hazard, -log(survival), at the right edge of each bin, (N, T)."""

    def initial_outputs(self, targets: LossTargets) -> torch.Tensor:
        """Give outputs that describe all patients together."""
        at_risk, had = self._make_exposure(targets)
        return self.encode_hazards((had.sum(0) + 0.5) / (at_risk.sum(0) + 1.0))

    @abstractmethod
    def encode_hazards(self, hazards: torch.Tensor) -> torch.Tensor:
        """Give the outputs that mean some hazards, the chance to have the event in a bin; both (T)."""

    def predict_risk(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the chance of the event by each edge, a mean over edges, 0 to 1: what survival curves lack of 1.

        As it is bounded, one network of an ensemble cannot outvote the others.
        """
        return -torch.expm1(-self.cumulative_hazard(logits)).mean(1)

    def predict_survival(self, logits: torch.Tensor, times: Numbers) -> Numbers:
        """Return survival; within a bin the hazard is constant, beyond the last edge the curve stays where it is."""
        return interpolate_survival(-self.cumulative_hazard(logits.double()).numpy(), self.edges, times)

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"name": self.name, "edges": self.edges.tolist()}


@dataclass(frozen=True)
class LogisticHazard(DiscreteLoss):
    """Outputs are logits of hazards. Source: Gensheimer and Narasimhan 2019, PeerJ 7:e6257."""

    name: ClassVar[str] = "logistic hazard"

    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return the negative log-likelihood, a mean over patients."""
        at_risk, had = self._make_exposure(targets)
        return logistic_hazard_loss(logits, at_risk, had)

    def cumulative_hazard(self, logits: torch.Tensor) -> torch.Tensor:
        """Return cumulative hazards, (N, T)."""
        return -functional.logsigmoid(-logits).cumsum(1)

    def encode_hazards(self, hazards: torch.Tensor) -> torch.Tensor:
        """Give the logits of hazards."""
        return torch.logit(hazards)


@dataclass(frozen=True)
class Multinomial(DiscreteLoss):
    """Outputs give the chance of the event in each bin, and of none in all of them, whose own score is 0."""

    @abstractmethod
    def bin_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn outputs (N, T) into scores of the bins (N, T), of which a softmax gives chances."""

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logarithms of the chances of T bins and of none, (N, T + 1)."""
        return functional.pad(self.bin_scores(logits), (0, 1)).log_softmax(1)

    def _negative_log_likelihood(self, logs: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        # Those censored are somewhere in what is left from their place on.
        left = logs.flip(1).logcumsumexp(1).flip(1)
        chosen = torch.where(targets.seen[:, None], logs, left).gather(1, targets.places[:, None])[:, 0]
        if targets.entered is not None:
            chosen = _condition_on_entry(chosen, left, targets.seen, targets.places, targets.entered)
        return -chosen.mean()

    def cumulative_hazard(self, logits: torch.Tensor) -> torch.Tensor:
        """Return cumulative hazards, (N, T)."""
        return -self.log_probabilities(logits).flip(1).logcumsumexp(1).flip(1)[:, 1:]


@dataclass(frozen=True)
class MultiTaskRegression(Multinomial):
    """MTLR: the score of a bin is the sum of the outputs from it on. Source: Yu et al. 2011, NeurIPS 24."""

    name: ClassVar[str] = "mtlr"

    def bin_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Sum up outputs from the last bin backwards."""
        return logits.flip(1).cumsum(1).flip(1)

    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return the negative log-likelihood, a mean over patients."""
        return self._negative_log_likelihood(self.log_probabilities(logits), targets)

    def encode_hazards(self, hazards: torch.Tensor) -> torch.Tensor:
        """Give outputs of which the sums mean the hazards."""
        scores = _log_odds_of_bins(hazards)
        return scores - functional.pad(scores[1:], (0, 1))


@dataclass(frozen=True)
class DeepHit(Multinomial):
    """DeepHit for one kind of event: the likelihood, and a cost of pairs whose order is wrong.

    Source: Lee et al. 2018, AAAI; weighted against each other as in Kvamme et al. 2019, JMLR 20(129).
    """

    name: ClassVar[str] = "deephit"

    def bin_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Take outputs as they are."""
        return logits

    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return likelihood and ranking together; means over patients, and over pairs."""
        logs = self.log_probabilities(logits)
        # By the end of each bin, the chance to have had the event; of pairs (i, j), at i's own bin.
        by_then = logs.exp().cumsum(1)
        own = by_then.gather(1, targets.places[:, None])
        others = by_then.T[targets.places]
        counts = targets.seen[:, None] & (targets.places[None, :] > targets.places[:, None])
        if targets.entered is not None:  # by the time that the bin began
            counts &= targets.entered[None, :] <= targets.places[:, None]
        costs = torch.exp((others - own) / _SIGMA) * counts
        return _ALPHA * self._negative_log_likelihood(logs, targets) + (1 - _ALPHA) * costs.mean()

    def encode_hazards(self, hazards: torch.Tensor) -> torch.Tensor:
        """Give scores that mean the hazards."""
        return _log_odds_of_bins(hazards)


def _condition_on_entry(
    chosen: torch.Tensor, left: torch.Tensor, seen: torch.Tensor, places: torch.Tensor, entered: torch.Tensor
) -> torch.Tensor:
    """Return log-likelihoods (N) of patients who were free of the event at their entry.

    Args:
        chosen: The same without this condition, (N).
        left: Logarithm of survival at the left edge of each bin, and of that beyond the last one, (N, T + 1).
        seen: As in `LossTargets`, (N).
        places: The same.
        entered: The same.
    """
    begun = entered.long().clamp(max=left.shape[1] - 2)
    before, after = (left.gather(1, (begun + step)[:, None])[:, 0] for step in (0, 1))
    at_entry = before + (entered - begun) * (after - before)  # as the hazard within a bin is constant
    soon = torch.log(-torch.expm1((after - at_entry).clamp(max=-_LEAST)))
    # Who was censored in the bin of the entry outlived no more of it.
    within = torch.where(seen, soon, torch.zeros_like(soon))
    return torch.where(places == begun, within, chosen - at_entry)


def _log_odds_of_bins(hazards: torch.Tensor) -> torch.Tensor:
    """Give the logarithm of the chance of each bin relative to that of none, (T)."""
    alive = torch.cat([torch.ones(1), (1 - hazards).cumprod(0)])
    return torch.log(hazards * alive[:-1]) - torch.log(alive[-1])
