"""A prognosis without a segmentation model: the encoder learns from outcomes alone.

In comes a network as nnU-Net initialises it, out come the weights that learn; and what is refused, or has to be said.
"""

from torch import nn

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.trainers.survival_data import InnerSplit

NOTE = (
    "The encoder was trained from scratch by outcomes (settings.survival.encoder): no lesion is known, so that images "
    "are averaged as a whole and nothing is measured."
)
UNUSED = (
    "Images are not used: beside records alone, features of the trained encoder did not lower the loss of inner "
    "held-out patients by more than one standard error."
)


def learn_encoder(network: ConditionedUNet) -> list[nn.Parameter]:
    """Let the encoder and what T1 does to it learn, and nothing else; return their weights."""
    weights = [*network.encoder.parameters(), *network.film.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


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
