"""Adapters beside a loaded base: in come its network and adapters' files, out comes one network that has them all."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from duplus_nnunet.adaptation.files import Adapter
from duplus_nnunet.errors import ModelError
from duplus_nnunet.networks.adaptation import attach_adapter, compute_base_checksum, put_adapter


def load_adapters(
    network: Any, parameters: Sequence[Mapping[str, torch.Tensor]], adapters: Sequence[Adapter]
) -> list[dict[str, torch.Tensor]]:
    """Attach adapters to a network; the base is loaded once, whatever their number.

    Args:
        network: A conditioned U-Net with the base's weights.
        parameters: The base's weights, a fold each.
        adapters: As they were read.

    Returns:
        The weights of the network with adapters, a fold each.

    Raises:
        ModelError: There are several folds, or an adapter is of another base or cannot be used without its model.
    """
    if not adapters:
        return [dict(one) for one in parameters]
    if len(parameters) != 1:
        raise ModelError(
            f"{len(parameters)} folds were to be averaged, but an adapter belongs to the weights of one. Name the fold "
            "that it was trained on with -f."
        )
    checksum = compute_base_checksum(parameters[0])
    for adapter in adapters:
        if adapter.card.prompts.get("settings", {}).get("text_adapter", {}).get("enabled"):
            raise ModelError(
                f"The adapter {adapter.card.name!r} was trained together with its text encoder, whose embeddings are "
                "in its own model folder only. Predict with that folder."
            )
        if adapter.card.checksum != checksum:
            raise ModelError(
                f"The adapter {adapter.card.name!r} was trained for another base, {adapter.card.base} (weights "
                f"{adapter.card.checksum[:12]}...; these are {checksum[:12]}...). Name that model, and the fold that "
                "was given to -pretrained_weights."
            )
    network.load_state_dict(parameters[0])
    for adapter in adapters:
        attach_adapter(network, adapter.card.spec)
        put_adapter(network, adapter.weights, adapter.card.name)
    network.requires_grad_(False)
    return [network.state_dict()]
