"""Training without a segmentation model: the encoder is trained from scratch on outcomes, with early stopping."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.survival.training.data import InnerSplit

NOTE = (
    "The encoder was trained from scratch on outcomes (settings.survival.encoder): no lesion is known, so features are "
    "averaged over the whole image and no lesion is measured. The inner held-out patients chose the best epoch and "
    "then whether its features are used, which favours using them."
)
UNUSED = (
    "Images are not used: compared with clinical records alone, the features of the trained encoder did not lower the "
    "loss of inner held-out patients by more than one standard error."
)
UNJUDGED = "Whether images improve on clinical records was not assessed: the clinical table has no covariates."


def learn_encoder(network: ConditionedUNet) -> list[nn.Parameter]:
    """Make the encoder and its conditioning (FiLM) trainable, and nothing else; return their weights."""
    weights = [*network.encoder.parameters(), *network.film.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


@dataclass
class BestEpoch:
    """Early stopping: the epoch with the best loss of inner held-out patients, and its weights.

    Attributes:
        loss: Mean loss of patches of inner held-out patients in that epoch; lower is better.
        epoch: Number of the epoch, from 0; -1: none yet.
        weights: Trained weights of that epoch, by name.
    """

    loss: float = math.inf
    epoch: int = -1
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, network: nn.Module, loss: float, epoch: int) -> None:
        """Store the trainable weights of a network if the epoch is better than all before."""
        if loss < self.loss:
            learned = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
            self.loss, self.epoch = loss, epoch
            self.weights = {name: weight.detach().cpu().clone() for name, weight in learned.items()}

    def put_back(self, network: nn.Module) -> None:
        """Restore the weights of the best epoch in a network."""
        network.load_state_dict(self.weights, strict=False)

    def to_plain(self, unfinished: bool) -> dict[str, Any]:
        """Return plain data and tensors; the weights are left out once the training is finished."""
        return {"loss": self.loss, "epoch": self.epoch, "weights": self.weights if unfinished else {}}


def require_split(inner: InnerSplit | None) -> None:
    """Check that there is an inner split, which early stopping needs.

    Raises:
        DataError: There are too few patients with images and the event.
    """
    if inner is None:
        raise DataError(
            "There are too few patients with images and the event to train an encoder from scratch with an inner "
            "held-out set. Set settings.survival.encoder to 'pretrained' in the plans, and give a segmentation model."
        )


def refuse_base(file: object) -> None:
    """Refuse a base, which training from scratch does not use.

    Raises:
        ModelError: Always.
    """
    raise ModelError(
        f"{file} was given with -pretrained_weights, but settings.survival.encoder is 'scratch' in the plans. Leave it "
        "out, or set the encoder to 'pretrained'."
    )
