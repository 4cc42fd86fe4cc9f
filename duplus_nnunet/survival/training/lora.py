"""Second stage of the training: a LoRA in the encoder that is trained on outcomes, and the decision to keep it.

A hazard loss of patches of training patients trains the LoRA; the weights of the base are not changed.
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
# nnU-Net's SGD at 1e-2 is meant for training from scratch; a LoRA is trained with Adam (Hu et al. 2021).
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
_HIDDEN = 16
_SMALL = 1e-6


def make_lora_spec(network: ConditionedUNet, settings: SurvivalSettings) -> AdapterSpec:
    """Choose the convolutions of the encoder that get a LoRA: those whose weights allow its rank.

    Raises:
        PlansError: There is none.
    """
    r, layers = settings.lora_r, list_convolutions(network)
    fits = {name: min(layer.out_channels, layer.weight[0].numel()) >= r for name, layer in layers.items()}
    chosen = tuple(name for name, fit in fits.items() if fit and name.startswith("encoder."))
    if not chosen:
        raise PlansError(
            f"settings.survival.lora_r is {r} in the plans, but no convolution of the encoder allows that rank. "
            "Lower it, or set settings.survival.lora_epochs to 0."
        )
    return AdapterSpec(ADAPTER, r, settings.lora_alpha, 0.0, chosen, film=False, head=False)


def attach_lora(network: ConditionedUNet, spec: AdapterSpec) -> list[nn.Parameter]:
    """Add the LoRA to a network, inactive by default, and return its weights."""
    attach_adapter(network, spec)
    return [value for name, value in network.named_parameters() if f".lora_A.{spec.name}." in name
            or f".lora_B.{spec.name}." in name]  # fmt: skip


class HazardHead(nn.Module):
    """Predicts hazards from F_dense of a patch, to train the LoRA; it is discarded after the training.

    Args:
        features: F, number of features.
        contexts: Number of contexts; features are standardised for each context.
        bins: T, number of time bins.
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
        """Return logits of hazards (B, T) for F_dense (B, F) of images with context indices (B)."""
        standard = (pooled - self.mean[contexts]) / self.scale[contexts]
        logits: torch.Tensor = self.base + self.risk(functional.leaky_relu(self.hidden(standard)))
        return logits

    @torch.no_grad()
    def start(self, table: FeatureTable, contexts: Sequence[str], patients: Sequence[str]) -> None:
        """Set the standardisation from frozen features of training patients; constant features keep their scale."""
        for index, context in enumerate(contexts):
            rows = table.select(("pooled",), (context,)).take(patients)
            rows = rows[~np.isnan(rows).any(axis=1)]
            if rows.size:
                mean, spread = rows.mean(0), rows.std(0)
                differs = spread > _SMALL * np.maximum(1, np.abs(mean))  # False where a single patient has the modality
                self.mean[index] = torch.from_numpy(mean)
                self.scale[index] = torch.from_numpy(np.where(differs, spread, 1))


@dataclass(frozen=True)
class HazardTargets:
    """Targets of the hazard loss, by patient.

    Attributes:
        edges: Right edges of T time bins, in days, from the events of the inner training patients only.
        places: Row of each patient.
        risk: Whether each patient was at risk in each bin, (N, T).
        had: Whether each patient had the event in each bin, (N, T).
    """

    edges: Numbers
    places: dict[str, int]
    risk: torch.Tensor
    had: torch.Tensor

    @classmethod
    def of(cls, train: Sequence[Record], patients: Sequence[Record], bins: int) -> "HazardTargets":
        """Choose time bins from training patients, and compute the targets of all patients."""
        edges = choose_bin_edges(read_outcome(train), bins)
        risk, had = make_hazard_targets(read_outcome(patients), edges)
        return cls(edges, {record.patient: row for row, record in enumerate(patients)}, risk, had)

    def measure(self, logits: torch.Tensor, patients: Sequence[str]) -> torch.Tensor:
        """Return the loss of logits (B, T) for images of patients (B)."""
        rows = [self.places[patient] for patient in patients]
        return logistic_hazard_loss(logits, self.risk[rows].to(logits.device), self.had[rows].to(logits.device))

    def base_hazards(self, patients: Sequence[str]) -> torch.Tensor:
        """Return logits of the mean hazards (T) of patients."""
        rows = [self.places[patient] for patient in patients]
        return torch.logit((self.had[rows].sum(0) + 0.5) / (self.risk[rows].sum(0) + 1.0))
