"""Computes the Cox loss: torchsurv's partial likelihood, with Breslow's baseline hazard for survival curves.

Delayed entry is not supported: every patient is at risk from time 0.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.breslow import fit_breslow_baseline
from duplus_nnunet.survival.models.survival_loss import LossTargets, SurvivalLoss
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

# Log hazards are clamped to this distance from their mean, as torchsurv exponentiates them in float32.
_WIDEST = 40.0


def require_torchsurv() -> Any:
    """Import torchsurv's Cox loss.

    Raises:
        DataError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, raised by torchsurv's dependency torchmetrics
            from torchsurv.loss import cox
    except ImportError as error:
        raise DataError(
            "The loss 'cox' needs torchsurv. Install it: pip install 'duplus-nnunet[survival]'; or choose "
            "'logistic hazard', which needs no further package."
        ) from error
    return cox


def log_partial_likelihood(log_hazards: torch.Tensor, event: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """Return the log partial likelihood, summed over events; ties by Efron's method.

    Args:
        log_hazards: Log relative hazards, (N); only their differences count.
        event: Whether the event was observed, bool (N).
        ranks: Ranks of the times, int64 (N).

    Returns:
        A scalar; 0, with gradients of 0, if there is no event or a single patient.

    Raises:
        DataError: torchsurv is not installed.

    Source: Cox 1972; Efron 1977, JASA 72(359).
    """
    cox = require_torchsurv()
    if len(log_hazards) < 2 or not bool(event.any()):
        return log_hazards.sum() * 0.0
    centred = (log_hazards - log_hazards.detach().mean()).clamp(-_WIDEST, _WIDEST)
    # At equal times, events come before censoring: without tied events, torchsurv's risk sets follow the row order.
    times = (2 * ranks + ~event).float()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Ties in `time` detected")
        likelihood: torch.Tensor = -cox.neg_partial_log_likelihood(
            centred, event, times, ties_method="efron", reduction="sum"
        )
    return likelihood


@dataclass(frozen=True)
class Cox(SurvivalLoss):
    """Cox loss: the one output is a log hazard relative to Breslow's baseline hazard.

    Attributes:
        times: Distinct event times of training patients, in days, ascending, (K).
        hazards: Cumulative baseline hazard at each, (K).
        centre: Mean output of training patients, at which the risk is 0.
    """

    name: ClassVar[str] = "cox"
    needs_full_batch: ClassVar[bool] = True
    times: Numbers = field(default_factory=lambda: np.zeros(0))
    hazards: Numbers = field(default_factory=lambda: np.zeros(0))
    centre: float = 0.0

    @property
    def outputs(self) -> int:
        """Number of outputs: one."""
        return 1

    def make_targets(self, outcome: Outcome) -> LossTargets:
        """Rank the times; the partial likelihood depends on their order only."""
        ranks = np.unique(outcome.time, return_inverse=True)[1].astype(np.int64)
        return LossTargets(torch.from_numpy(ranks), torch.from_numpy(outcome.event.copy()))

    def initial_outputs(self, targets: LossTargets) -> torch.Tensor:
        """Return 0: the baseline hazard is not part of the network."""
        return torch.zeros(1)

    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return the negative log partial likelihood, averaged over events; 0 if there is none."""
        count = max(1, int(targets.seen.sum()))
        return -log_partial_likelihood(logits[:, 0], targets.seen, targets.places) / count

    def compute_held_out(self, logits: torch.Tensor, targets: LossTargets, held_out: torch.Tensor) -> torch.Tensor:
        """Return the loss of all patients less that of the others, averaged over held-out events.

        The risk sets of held-out patients thus include all patients.

        Source: Verweij and van Houwelingen 1993, Statistics in Medicine 12(24): cross-validated partial likelihood.
        """
        rest = torch.ones(len(logits), dtype=torch.bool)
        rest[held_out] = False
        whole = log_partial_likelihood(logits[:, 0], targets.seen, targets.places)
        part = log_partial_likelihood(logits[rest, 0], targets.seen[rest], targets.places[rest])
        return (part - whole) / max(1, int(targets.seen[held_out].sum()))

    def fit_baseline(self, logits: torch.Tensor, outcome: Outcome) -> "Cox":
        """Fit Breslow's baseline hazard."""
        centre = float(logits.double().mean())
        return Cox(*fit_breslow_baseline((logits[:, 0].double() - centre).numpy(), outcome), centre)

    def predict_risk(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log hazards relative to the mean of training patients."""
        return logits[:, 0] - self.centre

    def predict_survival(self, logits: torch.Tensor, times: Numbers) -> Numbers:
        """Return the survival probability, a step function that falls at the event times of training patients."""
        steps = np.concatenate([[0.0], self.hazards])[np.searchsorted(self.times, times, side="right")]
        ratios = self.predict_risk(logits.double()).exp().numpy()
        survival: Numbers = np.exp(-steps[None, :] * ratios[:, None])
        return survival

    def to_plain(self) -> dict[str, Any]:
        """Return plain data that can be stored as JSON."""
        return {
            "name": self.name,
            "times": self.times.tolist(),
            "hazards": self.hazards.tolist(),
            "centre": self.centre,
        }
