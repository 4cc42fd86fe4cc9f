"""Attaches adapters to a conditioned U-Net: LoRA on frozen convolutions, and generators of their own.

The weights of the base model stay unchanged, and without an active adapter its output is bitwise the same.
Source: Hu et al. 2021, arXiv 2106.09685, implemented by peft.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from duplus_nnunet.errors import ModelError, PlansError

_LORA = re.compile(r"\.lora_(?:A|B)\.")
_PREFIX = "adapters."
_CHECKSUM = "base_checksum"
# nnU-Net's modules have up to three names in a state dictionary; this matches the second and third.
_DUPLICATE = re.compile(r"\.all_modules\.|^decoder\.encoder\.")
_MAX_LISTED = 6


@dataclass(frozen=True)
class AdapterSpec:
    """Specification of an adapter.

    Attributes:
        name: Name of the adapter, usually of its dataset: letters, digits, `_` and `-`.
        r: Rank of the LoRA.
        lora_alpha: Scale of the LoRA; its output is multiplied by lora_alpha / r.
        lora_dropout: Dropout probability of the LoRA's inputs in training, 0 to below 1.
        layers: Names of the convolutions with a LoRA.
        film: Whether the adapter has an MLP_FiLM of its own.
        head: Whether the adapter has an MLP_Pred and projections of its own.
    """

    name: str
    r: int
    lora_alpha: float
    lora_dropout: float
    layers: tuple[str, ...]
    film: bool
    head: bool


class Projection(nn.Conv3d):
    """A 1x1x1 convolution whose weights can be overridden by those of an adapter."""

    overriding: "nn.Conv3d | None" = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project x (B, C, D, H, W)."""
        other = self.overriding
        return super().forward(x) if other is None else functional.conv3d(x, other.weight, other.bias)

    def override(self, other: "nn.Conv3d | None") -> None:
        """Use the weights of another convolution; None restores the own ones. setattr would register a sub-module."""
        self.__dict__["overriding"] = other


class AdapterModules(nn.Module):
    """The modules of an adapter beside its LoRA.

    Attributes:
        film: Its own MLP_FiLM; None if it uses that of the base.
        generator: Its own MLP_Pred; None if it uses that of the base.
        projections: Its own projections; None if it uses those of the base.
        base_checksum: SHA-256 of the weights of the base, uint8 (32); zeros until a base is loaded.
    """

    base_checksum: torch.Tensor

    def __init__(self, network: Any, spec: AdapterSpec) -> None:
        super().__init__()
        self.spec = spec
        self.film = deepcopy(network.film) if spec.film else None
        self.generator = deepcopy(network.generator) if spec.head else None
        self.projections = deepcopy(network.decoder.seg_layers) if spec.head else None
        self.register_buffer(_CHECKSUM, torch.zeros(32, dtype=torch.uint8))

    @property
    def has_base(self) -> bool:
        """Whether a base was loaded."""
        return bool(self.base_checksum.any())

    @torch.no_grad()
    def reset(self, network: Any) -> None:
        """Reset the modules to the current weights of the base."""
        pairs = (
            (self.film, network.film),
            (self.generator, network.generator),
            (self.projections, network.decoder.seg_layers),
        )
        for own, base in pairs:
            if own is not None:
                own.load_state_dict(base.state_dict())
        digest = bytes.fromhex(compute_base_checksum(network.state_dict()))
        self.base_checksum.copy_(torch.tensor(list(digest), dtype=torch.uint8))


@dataclass(frozen=True)
class Generators:
    """The generators in use, of the base or of an adapter."""

    film: Any
    generator: Any


def list_convolutions(network: nn.Module) -> dict[str, nn.Conv3d]:
    """List the convolutions of encoder and decoder that support LoRA, by name: neither transposed nor grouped."""
    convolutions = {}
    for name, module in network.named_modules():
        plain = type(module) is nn.Conv3d and module.groups == 1 and not _LORA.search(name)
        if plain and name.startswith(("encoder.", "decoder.")):
            convolutions[name.removesuffix(".base_layer")] = module
    return convolutions


def choose_convolutions(network: nn.Module, patterns: Sequence[str], r: int) -> tuple[str, ...]:
    """Choose the convolutions that get a LoRA.

    Args:
        network: A conditioned U-Net.
        patterns: Regular expressions to search in the names of convolutions; none means all.
        r: Rank of the LoRA.

    Raises:
        PlansError: A pattern is invalid or matches nothing, or the rank exceeds that of a layer.
    """
    available = list_convolutions(network)
    chosen: dict[str, None] = dict.fromkeys(available if not patterns else ())
    for pattern in patterns:
        try:
            matches = [name for name in available if re.search(pattern, name)]
        except re.error as error:
            raise PlansError(
                f"settings.adaptation.target_modules: {pattern!r} is not a valid regular expression: {error}."
            ) from error
        if not matches:
            examples = ", ".join(sorted(available)[:_MAX_LISTED])
            raise PlansError(
                f"settings.adaptation.target_modules: {pattern!r} matches none of the {len(available)} convolutions "
                f"that support LoRA, such as {examples}. Use `encoder` or `decoder` to match all of either."
            )
        chosen.update(dict.fromkeys(matches))
    for name in chosen:
        layer = available[name]
        largest = min(layer.out_channels, layer.weight[0].numel())
        if r > largest:
            raise PlansError(
                f"settings.adaptation.r is {r}, but the weights of {name} have rank {largest} at most. Lower r, or "
                "exclude that layer by settings.adaptation.target_modules."
            )
    return tuple(name for name in available if name in chosen)


def attach_adapter(network: Any, spec: AdapterSpec) -> AdapterModules:
    """Add a new adapter to a network, and freeze all other weights.

    LoRA's second factor starts at 0 and the generators start as copies, so that the adapter initially leaves the
    output of the base unchanged.

    Args:
        network: A conditioned U-Net; it may have other adapters.
        spec: Specification of the adapter.

    Raises:
        ModelError: The network already has an adapter of that name.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if spec.name in network.adapters:
        raise ModelError(f"The model already has an adapter {spec.name!r}. Give the new adapter another name.")
    activate_adapter(network, "")
    config = LoraConfig(
        r=spec.r, lora_alpha=spec.lora_alpha, lora_dropout=spec.lora_dropout, target_modules=list(spec.layers)
    )
    inject_adapter_in_model(config, network, adapter_name=spec.name)
    network.__dict__.pop("peft_config", None)  # otherwise peft warns when the next adapter is attached
    _relink_blocks(network)
    network.requires_grad_(False)
    for layer in list_lora_layers(network).values():
        for factor in (layer.lora_A, layer.lora_B):
            if spec.name in factor:
                factor[spec.name].requires_grad_(True)
    modules = AdapterModules(network, spec)
    device = next(network.parameters()).device
    network.adapters[spec.name] = modules.to(device).requires_grad_(True)
    network.active_adapter = None
    return modules


def _relink_blocks(network: nn.Module) -> None:
    """Make nnU-Net's blocks run the layers with a LoRA.

    The blocks register each convolution twice and run the second registration, whereas peft replaces the first: without
    this step, LoRA would silently have no effect.
    """
    for block in network.modules():
        sequence, layer = getattr(block, "all_modules", None), getattr(block, "conv", None)
        if isinstance(sequence, nn.Sequential) and isinstance(layer, nn.Module):
            for index, module in enumerate(sequence):
                if module is getattr(layer, "base_layer", None):
                    sequence[index] = layer


def list_lora_layers(network: nn.Module) -> dict[str, Any]:
    """List the layers with a LoRA of any adapter, by name."""
    return {name: module for name, module in network.named_modules() if hasattr(module, "lora_A")}


def activate_adapter(network: Any, name: str) -> Generators:
    """Make an adapter of a network active; "" is the base alone. Nothing is loaded or copied.

    Raises:
        ModelError: The network has no such adapter.
    """
    if not network.adapters and not name:
        return Generators(network.film, network.generator)
    if name and name not in network.adapters:
        available = ", ".join(map(repr, network.adapters)) or "none"
        raise ModelError(f"The model has no adapter {name!r}; it has {available}. Give its file with --adapters.")
    modules: Any = network.adapters[name] if name else None
    if network.active_adapter != name:
        _switch_layers(network, name, modules)
        network.active_adapter = name
    film = getattr(modules, "film", None)
    generator = getattr(modules, "generator", None)
    return Generators(network.film if film is None else film, network.generator if generator is None else generator)


def _switch_layers(network: Any, name: str, modules: Any) -> None:
    for layer in list_lora_layers(network).values():
        # Set directly, since peft's own methods also change which weights are trained.
        layer._active_adapter = [name]
        layer._disable_adapters = name not in layer.lora_A
    own = None if modules is None else modules.projections
    for index, projection in enumerate(network.decoder.seg_layers):
        projection.override(None if own is None else own[index])


def name_in_base(name: str) -> str:
    """Return the name of a weight in a network without adapters; "" for weights of an adapter."""
    if name.startswith(_PREFIX) or _LORA.search(name):
        return ""
    return name.replace(".base_layer.", ".")


def reset_adapters(network: Any) -> None:
    """Reset all adapters to the current weights of the base."""
    for modules in network.adapters.values():
        modules.reset(network)


def compute_base_checksum(weights: Mapping[str, torch.Tensor]) -> str:
    """Compute the SHA-256 of the weights of a base, without adapters and text embeddings."""
    digest = hashlib.sha256()
    base = {name_in_base(name): value for name, value in weights.items() if name_in_base(name)}
    for name in sorted(base):
        if name.startswith("texts.") or _DUPLICATE.search(name):
            continue
        value = base[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def take_adapter(weights: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Extract the weights of an adapter from a state dictionary: those of its LoRA, each once, and of its modules."""
    prefix = f"{_PREFIX}{name}."
    lora = re.compile(rf"\.lora_[AB]\.{re.escape(name)}\.")
    taken = {}
    for key, value in weights.items():
        if key.startswith(prefix) or (lora.search(key) and not _DUPLICATE.search(key)):
            taken[key] = value.detach().cpu().contiguous()
    return taken


def put_adapter(network: nn.Module, weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Load the weights of an adapter, as from `take_adapter`, into a network that it is attached to.

    Raises:
        ModelError: The weights belong to a different adapter.
    """
    expected = take_adapter(network.state_dict(), name)
    mismatched = [key for key in expected.keys() | weights.keys() if key not in weights or key not in expected]
    mismatched += [key for key in expected if key in weights and weights[key].shape != expected[key].shape]
    if mismatched:
        raise ModelError(
            f"The weights of the adapter {name!r} do not match its card: {len(mismatched)} of {len(expected)} differ, "
            f"first {sorted(mismatched)[0]}. Use the file and the card of the same adapter."
        )
    network.load_state_dict(dict(weights), strict=False)


def merge_adapter(weights: Mapping[str, torch.Tensor], spec: AdapterSpec) -> dict[str, torch.Tensor]:
    """Merge an adapter into the weights of its base.

    The two convolutions of a LoRA, k x k x k and 1x1x1, equal a single one whose weight is the product of theirs. This
    holds for kernels of any shape, some of which peft's own merging cannot handle (0.21.2 fails on 1x1xk).

    Args:
        weights: State dictionary of the network with the adapter.
        spec: Specification of the adapter.

    Returns:
        State dictionary of a network without adapters that computes the same.
    """
    merged = {name_in_base(key): value.clone() for key, value in weights.items() if name_in_base(key)}
    suffix = f".lora_A.{spec.name}.weight"
    for layer in (key.removesuffix(suffix) for key in weights if key.endswith(suffix)):
        a, b = (weights[f"{layer}.lora_{factor}.{spec.name}.weight"] for factor in "AB")
        merged[f"{layer}.weight"] += _multiply_factors(a, b) * (spec.lora_alpha / spec.r)
    own = f"{_PREFIX}{spec.name}."
    for key in (key for key in weights if key.startswith(own) and not key.endswith(_CHECKSUM)):
        merged[key.removeprefix(own).replace("projections.", "decoder.seg_layers.")] = weights[key].clone()
    return {key: value.detach() for key, value in merged.items()}


def _multiply_factors(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply the factors of a LoRA, (r, in, d, h, w) and (out, r, 1, 1, 1), to a weight (out, in, d, h, w)."""
    return torch.einsum("or,ridhw->oidhw", b[:, :, 0, 0, 0], a)


def read_checksum(weights: Mapping[str, torch.Tensor], name: str) -> str:
    """Read the SHA-256 of the weights of the base that an adapter belongs to."""
    return bytes(weights[f"{_PREFIX}{name}.{_CHECKSUM}"].tolist()).hex()


def count_parameters(weights: Mapping[str, torch.Tensor], name: str) -> dict[str, int]:
    """Count the parameters of the base, and of the LoRA and the generators of an adapter, in a state dictionary."""
    counts = {"base": 0, "lora": 0, "generators": 0}
    for key, value in weights.items():
        if _DUPLICATE.search(key) or key.endswith(_CHECKSUM) or key.startswith("texts."):
            continue
        if name_in_base(key):
            counts["base"] += value.numel()
        elif key.startswith(f"{_PREFIX}{name}."):
            counts["generators"] += value.numel()
        elif re.search(rf"\.lora_[AB]\.{re.escape(name)}\.", key):
            counts["lora"] += value.numel()
    return counts
