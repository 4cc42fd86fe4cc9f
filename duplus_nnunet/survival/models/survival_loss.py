"""What a network's outputs mean for survival: the interface that all losses share.

In come outputs ("logits") and outcomes, out come a loss, a risk and a survival curve.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from duplus_nnunet.survival.records.outcome import Numbers, Outcome


@dataclass(frozen=True)
class LossTargets:
    """Outcomes as a loss wants them.

    Attributes:
        places: Bins that each patient outlived, 0 to T; for Cox, the rank of the time; int64 (N).
        seen: Whether the event is seen in the next bin, or for Cox at that time; bool (N).
        entered: Bins that had passed when each came under observation, the last one in part: 0 to T, float32 (N);
            None: nobody entered late.
    """

    places: torch.Tensor
    seen: torch.Tensor
    entered: torch.Tensor | None = None

    def take(self, rows: torch.Tensor) -> "LossTargets":
        """Choose some patients by their rows."""
        return LossTargets(self.places[rows], self.seen[rows], None if self.entered is None else self.entered[rows])


@dataclass(frozen=True)
class SurvivalLoss(ABC):
    """A loss, and how its network's outputs are read."""

    name: ClassVar[str]
    # Whether all patients have to enter a step together, because they are compared with each other.
    needs_full_batch: ClassVar[bool] = False

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs that the network has."""

    @abstractmethod
    def make_targets(self, outcome: Outcome) -> LossTargets:
        """Turn outcomes of N patients into targets."""

    @abstractmethod
    def initial_outputs(self, targets: LossTargets) -> torch.Tensor:
        """Give outputs, (outputs), that describe all patients together."""

    @abstractmethod
    def compute(self, logits: torch.Tensor, targets: LossTargets) -> torch.Tensor:
        """Return the loss, a scalar, of logits (N, outputs); finite, with finite gradients, whatever the outcomes."""

    @abstractmethod
    def predict_risk(self, logits: torch.Tensor) -> torch.Tensor:
        """Return a risk, (N), higher is worse."""

    @abstractmethod
    def predict_survival(self, logits: torch.Tensor, times: Numbers) -> Numbers:
        """Return the probability to be free of the event at some times in days, (N, times)."""

    def compute_held_out(self, logits: torch.Tensor, targets: LossTargets, held: torch.Tensor) -> torch.Tensor:
        """Return the loss of rows that were not learned from, given the logits of all patients."""
        return self.compute(logits[held], targets.take(held))

    def fit_baseline(self, logits: torch.Tensor, outcome: Outcome) -> Self:
        """Fit what a curve needs beside the network, from outputs and outcomes of all training patients."""
        return self

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data that JSON takes."""
