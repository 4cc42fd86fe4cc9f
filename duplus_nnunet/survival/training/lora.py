"""The second stage of the prognosis: a LoRA in the encoder that learns from outcomes, and whether it is worth keeping.

In come patches of training patients, out comes a hazard loss with gradients to the LoRA; the base stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from duplus_nnunet.errors import PlansError
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.networks.adaptation import AdapterSpec, attach_adapter, list_convolutions
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.models.hazard import choose_bin_edges, logistic_hazard_loss, make_hazard_targets
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers, read_outcome
from duplus_nnunet.survival.records.table import Record

ADAPTER = "survival"
# nnU-Net's SGD at 1e-2 is made for a network that starts from nothing; a LoRA is trained by Adam (Hu et al. 2021).
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
_HIDDEN = 16
_SMALL = 1e-6


def make_spec(network: ConditionedUNet, settings: SurvivalSettings) -> AdapterSpec:
    """Choose the encoder's convolutions that get a LoRA: those whose weights have its rank.

    Raises:
        PlansError: None has.
    """
    r, layers = settings.lora_r, list_convolutions(network)
    fits = {name: min(layer.out_channels, layer.weight[0].numel()) >= r for name, layer in layers.items()}
    chosen = tuple(name for name, fit in fits.items() if fit and name.startswith("encoder."))
    if not chosen:
        raise PlansError(
            f"settings.survival.lora_r is {r} in the plans, and no convolution of the encoder has weights of that "
            "rank. Lower it, or set settings.survival.lora_epochs to 0."
        )
    return AdapterSpec(ADAPTER, r, settings.lora_alpha, 0.0, chosen, film=False, head=False)


def attach_lora(network: ConditionedUNet, spec: AdapterSpec) -> list[nn.Parameter]:
    """Put the LoRA into a network that goes on answering as the base; return its weights."""
    attach_adapter(network, spec)
    return [value for name, value in network.named_parameters() if f".lora_A.{spec.name}." in name
            or f".lora_B.{spec.name}." in name]  # fmt: skip


class HazardHead(nn.Module):
    """From F_dense of a patch to hazards: what the LoRA learns through. It is dropped afterwards.

    Args:
        features: F.
        contexts: Number of contexts; features of each are standardised by themselves.
        bins: T.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int, contexts: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(contexts, features))
        self.register_buffer("scale", torch.ones(contexts, features))
        self.hidden = nn.Linear(features, _HIDDEN)
        self.risk = nn.Linear(_HIDDEN, 1, bias=False)
        self.base = nn.Parameter(torch.zeros(bins))

    def forward(self, pooled: torch.Tensor, contexts: torch.Tensor) -> torch.Tensor:
        """Map F_dense (B, F) of images of some contexts (B) to logits of hazards (B, T)."""
        standard = (pooled - self.mean[contexts]) / self.scale[contexts]
        logits: torch.Tensor = self.base + self.risk(functional.leaky_relu(self.hidden(standard)))
        return logits

    @torch.no_grad()
    def start(self, table: FeatureTable, contexts: Sequence[str], patients: Sequence[str]) -> None:
        """Standardise by the frozen features of training patients; those that do not differ keep their scale."""
        for place, context in enumerate(contexts):
            rows = table.select(("pooled",), (context,)).take(patients)
            rows = rows[~np.isnan(rows).any(axis=1)]
            if rows.size:
                mean, spread = rows.mean(0), rows.std(0)
                differs = spread > _SMALL * np.maximum(1, np.abs(mean))  # not where a single patient has it
                self.mean[place] = torch.from_numpy(mean)
                self.scale[place] = torch.from_numpy(np.where(differs, spread, 1))


@dataclass(frozen=True)
class HazardTargets:
    """What a patch's hazards are compared with, by patient.

    Attributes:
        edges: Right edges of T bins, in days, cut from the events of inner training patients alone.
        places: Row of each patient.
        risk: Bins in which each was at risk, (N, T).
        had: The bin in which they had the event, (N, T).
    """

    edges: Numbers
    places: dict[str, int]
    risk: torch.Tensor
    had: torch.Tensor

    @classmethod
    def of(cls, train: Sequence[Record], everybody: Sequence[Record], bins: int) -> "HazardTargets":
        """Cut bins by some patients and place all of them in these."""
        edges = choose_bin_edges(read_outcome(train), bins)
        risk, had = make_hazard_targets(read_outcome(everybody), edges)
        return cls(edges, {record.patient: place for place, record in enumerate(everybody)}, risk, had)

    def measure(self, logits: torch.Tensor, patients: Sequence[str]) -> torch.Tensor:
        """Return the loss of logits (B, T) of images of some patients."""
        rows = [self.places[patient] for patient in patients]
        return logistic_hazard_loss(logits, self.risk[rows].to(logits.device), self.had[rows].to(logits.device))

    def base_hazards(self, patients: Sequence[str]) -> torch.Tensor:
        """Return logits of the hazards (T) of some patients together."""
        rows = [self.places[patient] for patient in patients]
        return torch.logit((self.had[rows].sum(0) + 0.5) / (self.risk[rows].sum(0) + 1.0))


def measure_curves(survival: Numbers, targets: HazardTargets, patients: Sequence[str]) -> Numbers:
    """Return the loss of survival curves: the negative log-likelihood of what happened, (N).

    Args:
        survival: Probability to be free of the event at the edges of the bins, (N, T).
        targets: Says what happened.
        patients: Who it is, N.
    """
    rows = [targets.places[patient] for patient in patients]
    before = np.concatenate([np.ones((len(survival), 1)), survival[:, :-1]], axis=1)
    hazards = np.clip(1 - survival / np.maximum(before, _SMALL), _SMALL, 1 - _SMALL)
    risk, had = targets.risk[rows].numpy(), targets.had[rows].numpy()
    found: Numbers = -(risk * (had * np.log(hazards) + (1 - had) * np.log1p(-hazards))).sum(1)
    return found


def is_gain(before: Numbers, after: Numbers) -> bool:
    """Whether patients' losses, (N) each, fell by more than one standard error of their mean difference.

    Few patients judge, so that a smaller fall is as likely to be chance.
    """
    gains = before - after
    error = float(np.std(gains, ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else float("inf")
    return float(gains.mean()) > error
