"""A prognosis without a segmentation model: the encoder learns from outcomes alone.

In comes a network as nnU-Net initialises it, out come the weights that learn, those of the best epoch among them; and
what is refused, or has to be said.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.survival.training.data import InnerSplit

NOTE = (
    "The encoder was trained from scratch by outcomes (settings.survival.encoder): no lesion is known, so that images "
    "are averaged as a whole and nothing is measured. The inner held-out patients chose its best epoch, and then said "
    "whether its features are used, which leans towards using them."
)
UNUSED = (
    "Images are not used: beside records alone, features of the trained encoder did not lower the loss of inner "
    "held-out patients by more than one standard error."
)
UNJUDGED = "Whether images are worth using was not judged: the clinical table has no covariates to compare them with."


def learn_encoder(network: ConditionedUNet) -> list[nn.Parameter]:
    """Let the encoder and what T1 does to it learn, and nothing else; return their weights."""
    weights = [*network.encoder.parameters(), *network.film.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


@dataclass
class BestEpoch:
    """The epoch whose encoder is used: later ones know the patients that they learn from by heart.

    Attributes:
        loss: Mean loss of inner held-out patients' patches in that epoch; lower is better.
        epoch: Which one it was, from 0; -1: none yet.
        weights: What had been learned then, by name.
    """

    loss: float = math.inf
    epoch: int = -1
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, network: nn.Module, loss: float, epoch: int) -> None:
        """Remember what learns in a network, if an epoch is better than those before."""
        if loss < self.loss:
            learned = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
            self.loss, self.epoch = loss, epoch
            self.weights = {name: weight.detach().cpu().clone() for name, weight in learned.items()}

    def put_back(self, network: nn.Module) -> None:
        """Give a network what it had learned then."""
        network.load_state_dict(self.weights, strict=False)

    def to_plain(self, unfinished: bool) -> dict[str, Any]:
        """Return plain data and tensors; of a training that is finished, the network itself has the weights."""
        return {"loss": self.loss, "epoch": self.epoch, "weights": self.weights if unfinished else {}}


def require_split(inner: InnerSplit | None) -> None:
    """Refuse a training part of which nothing can be held out.

    Raises:
        DataError: There are too few patients with images and the event.
    """
    if inner is None:
        raise DataError(
            "There are too few patients with images and the event to train an encoder from scratch: some of them have "
            "to judge it. Set settings.survival.encoder to 'pretrained' in the plans, and give a segmentation model."
        )


def refuse_base(file: object) -> None:
    """Refuse a base that would not be used.

    Raises:
        ModelError: Always.
    """
    raise ModelError(
        f"{file} was given by -pretrained_weights, and settings.survival.encoder is 'scratch' in the plans. Leave it "
        "out, or set that to 'pretrained'."
    )
