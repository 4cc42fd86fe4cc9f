"""Attaches adapters to the network of a loaded base."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from duplus_nnunet.adaptation.files import Adapter
from duplus_nnunet.errors import ModelError
from duplus_nnunet.networks.adaptation import (
    attach_adapter,
    compute_base_checksum,
    list_convolutions,
    put_adapter,
)
from duplus_nnunet.plans_section import SETTINGS_VERSION_KEY
from duplus_nnunet.settings import parse_settings


def load_adapters(
    network: Any, parameters: Sequence[Mapping[str, torch.Tensor]], adapters: Sequence[Adapter]
) -> list[dict[str, torch.Tensor]]:
    """Attach adapters to a network; the base is loaded once, whatever their number.

    Args:
        network: A conditioned U-Net with the base's weights.
        parameters: Weights of the base, for each fold.
        adapters: The adapters.

    Returns:
        Weights of the network with adapters, for each fold.

    Raises:
        PlansError: The settings in an adapter's card cannot be used.
        ModelError: There are several folds, or an adapter belongs to another base or needs its own model folder.
    """
    if not adapters:
        return [dict(fold) for fold in parameters]
    if len(parameters) != 1:
        raise ModelError(
            f"{len(parameters)} folds were to be averaged, but an adapter belongs to the weights of a single fold. "
            "Name the fold that it was trained on with -f."
        )
    checksum = compute_base_checksum(parameters[0])
    for adapter in adapters:
        prompts = adapter.card.prompts
        if parse_settings(prompts.get("settings", {}), prompts.get(SETTINGS_VERSION_KEY)).text_adapter.enabled:
            raise ModelError(
                f"The adapter {adapter.card.name!r} was trained together with its text encoder, whose embeddings are "
                "only in its own model folder. Predict with that folder."
            )
        if adapter.card.checksum != checksum:
            raise ModelError(
                f"The adapter {adapter.card.name!r} was trained for another base, {adapter.card.base} (weights "
                f"{adapter.card.checksum[:12]}...; these are {checksum[:12]}...). Name that model, and the fold that "
                "-pretrained_weights was given."
            )
    network.load_state_dict(parameters[0])
    for adapter in adapters:
        _check_layers(network, adapter)
        attach_adapter(network, adapter.card.spec)
        put_adapter(network, adapter.weights, adapter.card.name)
    network.requires_grad_(False)
    return [network.state_dict()]


def _check_layers(network: Any, adapter: Adapter) -> None:
    """Check that an adapter's card names the layers that its weights are of, with their rank.

    Raises:
        ModelError: It does not.
    """
    spec, available = adapter.card.spec, list_convolutions(network)
    ranks = {
        key.removesuffix(f".lora_A.{spec.name}.weight"): int(value.shape[0])
        for key, value in adapter.weights.items()
        if key.endswith(f".lora_A.{spec.name}.weight")
    }
    wrong = [name for name in spec.layers if name not in available or ranks.get(name) != spec.r]
    wrong += [name for name in ranks if name not in spec.layers]
    if wrong:
        raise ModelError(
            f"The card of the adapter {spec.name!r} does not match its weights: {wrong[0]} has the rank "
            f"{ranks.get(wrong[0])}; the card has {spec.r} for {len(spec.layers)} layers. Export the adapter again."
        )
