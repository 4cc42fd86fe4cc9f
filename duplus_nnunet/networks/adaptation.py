"""Adapters: LoRA beside a frozen network's convolutions, and generators of their own; the base stays as it is.

In comes a conditioned U-Net, out comes the same one, which answers with an adapter's weights or, to the bit as before,
with its own. Source: Hu et al. 2021, arXiv 2106.09685, by peft.
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
# nnU-Net's modules have up to three names in a state dictionary; these are the second and the third.
_AGAIN = re.compile(r"\.all_modules\.|^decoder\.encoder\.")
_SHOWN = 6


@dataclass(frozen=True)
class AdapterSpec:
    """What an adapter consists of.

    Attributes:
        name: Letters, digits, `_` and `-`; a dataset's name.
        r: Rank of its LoRA.
        lora_alpha: The LoRA's output is scaled by lora_alpha / r.
        lora_dropout: Share, 0 to below 1, of the LoRA's inputs that are dropped in training.
        layers: Names of the convolutions that have a LoRA.
        film: Whether it has an MLP_FiLM of its own.
        head: Whether it has an MLP_Pred and projections of its own.
    """

    name: str
    r: int
    lora_alpha: float
    lora_dropout: float
    layers: tuple[str, ...]
    film: bool
    head: bool


class Projection(nn.Conv3d):
    """A 1x1x1 convolution that can run with an adapter's weights in the place of its own."""

    instead: "nn.Conv3d | None" = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project x (B, C, D, H, W)."""
        other = self.instead
        return super().forward(x) if other is None else functional.conv3d(x, other.weight, other.bias)

    def replace(self, other: "nn.Conv3d | None") -> None:
        """Run with another one's weights; None: with its own. Not by setattr, which would register it as a part."""
        self.__dict__["instead"] = other


class AdapterModules(nn.Module):
    """What an adapter has beside its LoRA.

    Attributes:
        film: Its own MLP_FiLM, or None: the base's.
        generator: Its own MLP_Pred, or None: the base's.
        projections: Its own projections, or None: the base's.
        base_checksum: SHA-256 of the base's weights, uint8 (32); zeros until a base was taken over.
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
        """Whether a base was taken over."""
        return bool(self.base_checksum.any())

    @torch.no_grad()
    def reset(self, network: Any) -> None:
        """Start from the base's weights as they are now."""
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
    """What answers: generators of the base or of an adapter."""

    film: Any
    generator: Any


def list_convolutions(network: nn.Module) -> dict[str, nn.Conv3d]:
    """Name the convolutions of encoder and decoder that a LoRA can stand beside: not transposed, not grouped ones."""
    named = {}
    for name, module in network.named_modules():
        plain = type(module) is nn.Conv3d and module.groups == 1 and not _LORA.search(name)
        if plain and name.startswith(("encoder.", "decoder.")):
            named[name.removesuffix(".base_layer")] = module
    return named


def choose_convolutions(network: nn.Module, patterns: Sequence[str], r: int) -> tuple[str, ...]:
    """Choose the convolutions that get a LoRA.

    Args:
        network: A conditioned U-Net.
        patterns: Regular expressions that are looked for in their names; none means all.
        r: Rank of the LoRA.

    Raises:
        PlansError: A pattern matches nothing or is none, or the rank is larger than a layer's.
    """
    there = list_convolutions(network)
    chosen: dict[str, None] = dict.fromkeys(there if not patterns else ())
    for pattern in patterns:
        try:
            found = [name for name in there if re.search(pattern, name)]
        except re.error as error:
            raise PlansError(f"settings.adaptation.target_modules: {pattern!r} is no pattern: {error}.") from error
        if not found:
            some = ", ".join(sorted(there)[:_SHOWN])
            raise PlansError(
                f"settings.adaptation.target_modules: {pattern!r} matches none of the {len(there)} convolutions that a "
                f"LoRA can stand beside, such as {some}; `encoder` and `decoder` match all of either."
            )
        chosen.update(dict.fromkeys(found))
    for name in chosen:
        layer = there[name]
        largest = min(layer.out_channels, layer.weight[0].numel())
        if r > largest:
            raise PlansError(
                f"settings.adaptation.r is {r}, but {name} has weights of rank {largest} at most. Lower r, or leave "
                "that layer out by settings.adaptation.target_modules."
            )
    return tuple(name for name in there if name in chosen)


def attach_adapter(network: Any, spec: AdapterSpec) -> AdapterModules:
    """Put an adapter that does nothing yet into a network, and freeze all else.

    LoRA's second factor starts at 0 and generators start as copies, so that at first the adapter's answer is the
    base's.

    Args:
        network: A conditioned U-Net; it may have other adapters.
        spec: What the adapter consists of.

    Raises:
        ModelError: The network has an adapter of that name.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if spec.name in network.adapters:
        raise ModelError(
            f"The model has an adapter {spec.name!r} already; adapters on one base need names of their own."
        )
    activate_adapter(network, "")
    config = LoraConfig(
        r=spec.r, lora_alpha=spec.lora_alpha, lora_dropout=spec.lora_dropout, target_modules=list(spec.layers)
    )
    inject_adapter_in_model(config, network, adapter_name=spec.name)
    network.__dict__.pop("peft_config", None)  # a note of peft's, at which it warns when the next adapter comes
    _relink_blocks(network)
    network.requires_grad_(False)
    for layer in list_lora_layers(network).values():
        for factor in (layer.lora_A, layer.lora_B):
            if spec.name in factor:
                factor[spec.name].requires_grad_(True)
    parts = AdapterModules(network, spec)
    device = next(network.parameters()).device
    network.adapters[spec.name] = parts.to(device).requires_grad_(True)
    network.active_adapter = None
    return parts


def _relink_blocks(network: nn.Module) -> None:
    """Let nnU-Net's blocks run the layers with a LoRA.

    They register each convolution twice and run the second registration; peft replaces the first. Left so, a LoRA
    would do nothing and nobody would notice.
    """
    for block in network.modules():
        sequence, layer = getattr(block, "all_modules", None), getattr(block, "conv", None)
        if isinstance(sequence, nn.Sequential) and isinstance(layer, nn.Module):
            for index, module in enumerate(sequence):
                if module is getattr(layer, "base_layer", None):
                    sequence[index] = layer


def list_lora_layers(network: nn.Module) -> dict[str, Any]:
    """Name the layers that have a LoRA, of whatever adapter."""
    return {name: module for name, module in network.named_modules() if hasattr(module, "lora_A")}


def activate_adapter(network: Any, name: str) -> Generators:
    """Let a network answer with an adapter's weights from now on; "" is the base alone. Nothing is loaded or copied.

    Raises:
        ModelError: It has no such adapter.
    """
    if not network.adapters and not name:
        return Generators(network.film, network.generator)
    if name and name not in network.adapters:
        there = ", ".join(map(repr, network.adapters)) or "none"
        raise ModelError(f"The model has no adapter {name!r}; it has {there}. Name its file with --adapters.")
    parts: Any = network.adapters[name] if name else None
    if network.active_adapter != name:
        _switch(network, name, parts)
        network.active_adapter = name
    film = getattr(parts, "film", None)
    generator = getattr(parts, "generator", None)
    return Generators(network.film if film is None else film, network.generator if generator is None else generator)


def _switch(network: Any, name: str, parts: Any) -> None:
    for layer in list_lora_layers(network).values():
        # By hand, since peft's own switches also decide what is trained.
        layer._active_adapter = [name]
        layer._disable_adapters = name not in layer.lora_A
    own = None if parts is None else parts.projections
    for number, projection in enumerate(network.decoder.seg_layers):
        projection.replace(None if own is None else own[number])


def name_in_base(name: str) -> str:
    """Return what a weight is called in a network without adapters; "" for one that belongs to an adapter."""
    if name.startswith(_PREFIX) or _LORA.search(name):
        return ""
    return name.replace(".base_layer.", ".")


def reset_adapters(network: Any) -> None:
    """Let all adapters start from the weights that the base has now."""
    for parts in network.adapters.values():
        parts.reset(network)


def compute_base_checksum(weights: Mapping[str, torch.Tensor]) -> str:
    """Return SHA-256 of a base's weights, whatever adapters stand beside them; texts do not count."""
    digest = hashlib.sha256()
    base = {name_in_base(name): value for name, value in weights.items() if name_in_base(name)}
    for name in sorted(base):
        if name.startswith("texts.") or _AGAIN.search(name):
            continue
        value = base[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def take_adapter(weights: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Take an adapter's own weights out of a network's: its LoRA's, each once, and those of its parts."""
    prefix = f"{_PREFIX}{name}."
    end = re.compile(rf"\.lora_[AB]\.{re.escape(name)}\.")
    taken = {}
    for key, value in weights.items():
        if key.startswith(prefix) or (end.search(key) and not _AGAIN.search(key)):
            taken[key] = value.detach().cpu().contiguous()
    return taken


def put_adapter(network: nn.Module, weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Put an adapter's own weights, as `take_adapter` gives them, into a network that it is attached to.

    Raises:
        ModelError: They are another adapter's.
    """
    expected = take_adapter(network.state_dict(), name)
    wrong = [key for key in expected.keys() | weights.keys() if key not in weights or key not in expected]
    wrong += [key for key in expected if key in weights and weights[key].shape != expected[key].shape]
    if wrong:
        raise ModelError(
            f"The adapter {name!r} does not fit: {len(wrong)} of {len(expected)} weights differ, first "
            f"{sorted(wrong)[0]}. Its file and its card are of different adapters."
        )
    network.load_state_dict(dict(weights), strict=False)


def merge_adapter(weights: Mapping[str, torch.Tensor], spec: AdapterSpec) -> dict[str, torch.Tensor]:
    """Return the weights of a network without adapters that answers as one with an adapter does.

    LoRA's two convolutions, k x k x k and 1x1x1, are one whose weight is the product of theirs; so for kernels of any
    shape, of which peft's own merging cannot handle all (0.21.2 fails on 1x1xk).

    Args:
        weights: State dictionary of the network with the adapter.
        spec: The adapter's.
    """
    merged = {name_in_base(key): value.clone() for key, value in weights.items() if name_in_base(key)}
    end = f".lora_A.{spec.name}.weight"
    for layer in (key.removesuffix(end) for key in weights if key.endswith(end)):
        a, b = (weights[f"{layer}.lora_{factor}.{spec.name}.weight"] for factor in "AB")
        merged[f"{layer}.weight"] += multiply_factors(a, b) * (spec.lora_alpha / spec.r)
    own = f"{_PREFIX}{spec.name}."
    for key in (key for key in weights if key.startswith(own) and not key.endswith(_CHECKSUM)):
        merged[key.removeprefix(own).replace("projections.", "decoder.seg_layers.")] = weights[key].clone()
    return {key: value.detach() for key, value in merged.items()}


def multiply_factors(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply LoRA's factors (r, in, d, h, w) and (out, r, 1, 1, 1) to a weight (out, in, d, h, w)."""
    return torch.einsum("or,ridhw->oidhw", b[:, :, 0, 0, 0], a)


def read_checksum(weights: Mapping[str, torch.Tensor], name: str) -> str:
    """Read which base an adapter belongs to: SHA-256 of the base's weights."""
    return bytes(weights[f"{_PREFIX}{name}.{_CHECKSUM}"].tolist()).hex()


def count_parameters(weights: Mapping[str, torch.Tensor], name: str) -> dict[str, int]:
    """Count the parameters of a base, of an adapter's LoRA and of its generators, in a state dictionary."""
    counts = {"base": 0, "lora": 0, "generators": 0}
    for key, value in weights.items():
        if _AGAIN.search(key) or key.endswith(_CHECKSUM) or key.startswith("texts."):
            continue
        if name_in_base(key):
            counts["base"] += value.numel()
        elif key.startswith(f"{_PREFIX}{name}."):
            counts["generators"] += value.numel()
        elif re.search(rf"\.lora_[AB]\.{re.escape(name)}\.", key):
            counts["lora"] += value.numel()
    return counts
