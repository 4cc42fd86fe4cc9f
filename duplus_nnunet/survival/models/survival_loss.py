"""Defines the interface of survival losses, which also convert a network's outputs to risk and survival."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from duplus_nnunet.survival.records.outcome import Numbers, Outcome


@dataclass(frozen=True)
class LossTargets:
    """Outcomes of N patients in the form that losses take.

    Attributes:
        places: Number of time bins that each patient survived, 0 to T; for Cox, the rank of the time; int64 (N).
        seen: Whether the event was observed in the next bin, or for Cox at that time; bool (N).
        entered: Delayed entry in time bins, with the fraction of the last one: 0 to T, float32 (N); None: all patients
            are at risk from time 0.
        ended: End of observation in time bins, with the fraction of the last one: 0 to T, float32 (N); None: that of
            censored patients is the end of the last bin that they survived.
    """

    places: torch.Tensor
    seen: torch.Tensor
    entered: torch.Tensor | None = None
    ended: torch.Tensor | None = None

    def take(self, rows: torch.Tensor) -> "LossTargets":
        """Select patients by their rows."""
        entered, ended = (None if bins is None else bins[rows] for bins in (self.entered, self.ended))
        return LossTargets(self.places[rows], self.seen[rows], entered, ended)


@dataclass(frozen=True)
class SurvivalLoss(ABC):
    """A loss, and the meaning of the outputs of a network that is trained with it."""

    name: ClassVar[str]
    # Whether all patients have to be in one batch, because the loss compares them with each other.
    needs_full_batch: ClassVar[bool] = False

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs of the network."""

    @abstractmethod
    def make_targets(self, outcome: Outcome) -> LossTargets:
        """Convert the outcomes of N patients to targets."""

    @abstractmethod
    def initial_outputs(self, targets: LossTargets) -> torch.Tensor:
        """Return the outputs, (outputs), that predict the average survival of all patients."""

    @abstractmethod
    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return the loss of outputs (N, outputs), a scalar; it and its gradients are finite for all outcomes."""

    @abstractmethod
    def predict_risk(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the risk, (N); higher is worse."""

    @abstractmethod
    def predict_survival(self, logits: torch.Tensor, times: Numbers) -> Numbers:
        """Return the survival probability at some times in days, (N, times)."""

    def compute_held_out(self, logits: torch.Tensor, targets: LossTargets, held_out: torch.Tensor) -> torch.Tensor:
        """Return the loss of held-out rows, given the outputs of all patients."""
        return self.compute(logits[held_out], targets.take(held_out))

    def fit_baseline(self, logits: torch.Tensor, outcome: Outcome) -> Self:
        """Fit what survival needs in addition to the network, from outputs and outcomes of all training patients."""
        return self

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Return plain data that can be stored as JSON."""
