"""Conditions nnU-Net's U-Net on two prompts: FiLM replaces norms, the dynamic head replaces segmentation layers.

The network is a PlainConvUNet or ResidualEncoderUNet as built by nnU-Net from its plans. Bind prompts, then call it
like any network of nnU-Net.
Source: Saeed et al. 2025, arXiv 2510.03483.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from duplus_nnunet.errors import ModelError, PlansError, PromptError
from duplus_nnunet.networks.adaptation import Projection, activate_adapter, name_in_base, reset_adapters
from duplus_nnunet.networks.film import FiLMGenerator, FiLMInstanceNorm, NoFiLM
from duplus_nnunet.networks.head import SLOPE, HeadGenerator, apply_heads
from duplus_nnunet.networks.precision import mix_precision
from duplus_nnunet.networks.prompts import Prompts, join_parts
from duplus_nnunet.networks.text_table import TextTable
from duplus_nnunet.settings import NetworkSettings

# nnU-Net sums up to 27 overlapping windows, each weighted by up to 10, in float16 (maximum 65504).
LARGEST_LOGIT = 100.0
# Number of prompts whose conditioning is cached; a full cache means a caller that binds new prompts each time.
_CACHE_SIZE = 64
_SHARED = ("encoder.", "decoder.")
_ADDED = ("film.", "generator.", "decoder.seg_layers.", "texts.")
# What DistributedDataParallel and torch.compile put before the names of weights.
_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")
# Belong to the texts of another model, hence never loaded from it; weights of its text adapter are.
_OWN = ("texts.keys", "texts.table")


@dataclass(frozen=True)
class PromptConditioning:
    """The part of the conditioning that depends on the prompts only, not on the image.

    Attributes:
        prompts: The prompts as bound.
        film: Scale and shift of each conditioned stage.
        targets: Projected target embeddings, (K, hidden) or (B, K, hidden).
    """

    prompts: Prompts
    film: list[Any]
    targets: torch.Tensor


@dataclass(frozen=True)
class PretrainedMatch:
    """How pretrained weights compare with a network's.

    Attributes:
        taken: Weights that the network takes over, by its names.
        fresh: Names of parameters that the weights lack and that stay newly initialised.
        misfits: Parameters of encoder and decoder that only one side has or that differ in shape, each with its shape.
    """

    taken: dict[str, torch.Tensor]
    fresh: list[str]
    misfits: list[str]


class ConditionedUNet(nn.Module):
    """A U-Net that segments the targets named by its prompts.

    The number of output channels is the number of bound targets; no weight depends on it. In the state dictionary, the
    parameters of nnU-Net's own modules keep their names.

    Args:
        unet: PlainConvUNet or ResidualEncoderUNet for 3D images.
        embedding: Lengths (E, F) of a context and of a target embedding.
        settings: Sizes of the conditioning modules.
        texts: Embeddings stored with the weights if the text encoder is adapted, else None.

    Attributes:
        cpu_bfloat16: Whether convolutions run in bfloat16 on CPUs that support it; logits stay float32.
        half_logits: Whether logits are float16 in eval mode on a CPU, as they are on a GPU and in nnU-Net's sums.
        adapters: Modules of each adapter beside its LoRA, by name; see networks.adaptation.
        default_adapter: Adapter for prompts that name none; "" is the base itself.
        active_adapter: Adapter that the layers are currently set to.
        check_pretrained: Called with a checkpoint and its file before pretrained weights are loaded; None to skip.
        report_pretrained: Called with a sentence on which weights were loaded; None: it is printed.

    Raises:
        PlansError: A conditioned stage does not end in an affine InstanceNorm3d.
    """

    def __init__(
        self, unet: nn.Module, embedding: tuple[int, int], settings: NetworkSettings, texts: TextTable | None = None
    ) -> None:
        super().__init__()
        encoder: Any = unet.encoder
        decoder: Any = unet.decoder
        self.encoder, self.decoder = encoder, decoder
        self.texts = nn.Identity() if texts is None else texts
        self._conditioned = _replace_norms(_conditioned_blocks(encoder, decoder))
        channels = [norm.num_features for norm in self._conditioned]
        self.film: nn.Module = (
            FiLMGenerator(embedding[0], channels, settings.film_hidden) if settings.film else NoFiLM(len(channels))
        )
        self.generator = HeadGenerator(
            embedding[1], encoder.output_channels[-1], settings.head_hidden, settings.head_features
        )
        decoder.seg_layers = nn.ModuleList(
            _make_projection(layer, settings.head_features) for layer in decoder.seg_layers
        )
        decoder.num_classes = settings.head_features
        self._embedding = embedding
        self.cpu_bfloat16 = False
        self.half_logits = False
        self.adapters = nn.ModuleDict()
        self.default_adapter = ""
        self.active_adapter: str | None = ""
        self.check_pretrained: Callable[[Mapping[str, Any], object], None] | None = None
        self.report_pretrained: Callable[[str], None] | None = None
        # Called with the logits of each whole image that nnU-Net's sliding window predicts with this network.
        self.on_image_logits: Callable[[torch.Tensor], None] | None = None
        # Called with adapter, projected map, pooled bottleneck and logits of each call that is not in training.
        self.on_maps: Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor], None] | None = None
        self._bound: Prompts | None = None
        self._cache: dict[tuple[int, str, torch.device], PromptConditioning] = {}
        # The cached conditioning depends on the weights.
        self.register_load_state_dict_post_hook(lambda *_: self._cache.clear())  # type: ignore[no-untyped-call]

    def bind(self, prompts: Prompts) -> None:
        """Set the prompts of all following calls. They are not part of checkpoints and not shared between ranks.

        Raises:
            PromptError: The embeddings do not have the length that the network was built for.
        """
        lengths = prompts.context.shape[-1], prompts.targets.shape[-1]
        if lengths != self._embedding:
            raise PromptError(
                f"The prompts have embeddings of length {lengths}, but the network expects {self._embedding}. They "
                "come from a different text encoder; embed them again with the text encoder of the model."
            )
        self._bound = prompts

    @property
    def prompts(self) -> Prompts:
        """The currently bound prompts.

        Raises:
            PromptError: No prompts are bound.
        """
        if self._bound is None:
            raise PromptError("No prompts are bound. Call bind(prompts) before the network.")
        return self._bound

    def forward(self, x: torch.Tensor, prompts: Prompts | None = None) -> Any:
        """Segment images.

        Args:
            x: Images, shape (B, C, D, H, W).
            prompts: Prompts for this call; the bound prompts by default.

        Returns:
            Logits (B, K, D, H, W); with deep supervision a list, finest first. In eval mode they are clamped.
        """
        bound = self.prompts if prompts is None else prompts
        if bound.adapters is None:
            return self._segment(x, bound, self.default_adapter)
        logits = [self._segment(x, part.prompts, part.adapter) for part in bound.parts]
        if self.decoder.deep_supervision:
            return [join_parts(bound.parts, levels) for levels in zip(*logits, strict=True)]
        return join_parts(bound.parts, logits)

    def _segment(self, x: torch.Tensor, prompts: Prompts, adapter: str) -> Any:
        """Segment images with the weights of one adapter, or of the base."""
        generators = activate_adapter(self, adapter)
        conditioning = self._get_conditioning(prompts, adapter, x.device)
        try:
            for norm, (gamma, beta) in zip(self._conditioned, conditioning.film, strict=True):
                norm.modulate(gamma, beta)
            with mix_precision(x.device, self.cpu_bfloat16):
                skips = self.encoder(x)
                maps = self.decoder(skips)
        finally:
            for norm in self._conditioned:
                norm.modulate(None, None)
        pooled = pool_bottleneck(skips)
        weights = generators.generator.generate(conditioning.targets, pooled)
        if self.decoder.deep_supervision:
            return [self._compute_logits(level, weights) for level in maps]
        logits = self._compute_logits(maps, weights)
        if self.on_maps is not None:
            self.on_maps(adapter, maps, pooled, logits)
        return logits

    def apply_to_maps(self, maps: torch.Tensor, pooled: torch.Tensor, prompts: Prompts, adapter: str) -> torch.Tensor:
        """Compute the logits of other prompts from what an earlier call gave `on_maps`, or from a part of it.

        Args:
            maps: Projected map of the decoder, (B, F, D, H, W); any voxels of it.
            pooled: Pooled bottleneck of the whole image, (B, C).
            prompts: K prompts in the same context.
            adapter: Adapter of the earlier call, "" for the base.

        Returns:
            Logits (B, K, D, H, W), to the bit those that a call with these prompts gives at the same voxels.
        """
        generators = activate_adapter(self, adapter)
        conditioning = self._get_conditioning(prompts, adapter, maps.device)
        return self._compute_logits(maps, generators.generator.generate(conditioning.targets, pooled))

    def encode(self, x: torch.Tensor, prompts: Prompts | None = None) -> torch.Tensor:
        """Run the encoder only, conditioned on the context prompt, with the weights of the default adapter.

        Args:
            x: Images, shape (B, C, D, H, W).
            prompts: Prompts for this call; the bound prompts by default.

        Returns:
            The bottleneck: the last feature map of the encoder, (B, F, d, h, w), float32.
        """
        bound, adapter = self.prompts if prompts is None else prompts, self.default_adapter
        activate_adapter(self, adapter)
        conditioning = self._get_conditioning(bound, adapter, x.device)
        try:
            for norm, (gamma, beta) in zip(self._conditioned, conditioning.film, strict=True):
                norm.modulate(gamma, beta)
            with mix_precision(x.device, self.cpu_bfloat16):
                bottleneck: torch.Tensor = self.encoder(x)[-1]
        finally:
            for norm in self._conditioned:
                norm.modulate(None, None)
        return bottleneck.float()

    def _get_conditioning(self, prompts: Prompts, adapter: str, device: torch.device) -> PromptConditioning:
        """Compute the conditioning by the prompts; in inference mode it is cached for following windows and images."""
        if self.training or torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return self._compute_conditioning(prompts, adapter, device)
        key = (id(prompts), adapter, device)
        cached = self._cache.get(key)
        if cached is None or cached.prompts is not prompts:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            cached = self._cache[key] = self._compute_conditioning(prompts, adapter, device)
        return cached

    def _compute_conditioning(self, prompts: Prompts, adapter: str, device: torch.device) -> PromptConditioning:
        embedded, generators = prompts.to(device), activate_adapter(self, adapter)
        if adapter == self.default_adapter:  # the table holds the embeddings of the latest training
            embedded = self.texts(embedded)
        film = list(generators.film(embedded.context))
        return PromptConditioning(prompts, film, generators.generator.project_targets(embedded.targets))

    def train(self, mode: bool = True) -> "ConditionedUNet":
        """Clear cached conditioning when the mode changes, since weights may change in training."""
        if mode != self.training:
            self._cache.clear()
        return super().train(mode)

    def _compute_logits(self, maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        half = self.half_logits and not self.training and maps.device.type == "cpu"
        logits = apply_heads(maps.float() if maps.dtype == torch.bfloat16 else maps, weights, half)
        return logits if self.training else logits.clamp_(-LARGEST_LOGIT, LARGEST_LOGIT)

    def compute_conv_feature_map_size(self, input_size: tuple[int, ...]) -> int:
        """Count the values of all feature maps for nnU-Net's planner; FiLM adds none, the head adds the logits."""
        voxels = 1
        for length in input_size:
            voxels *= int(length)
        targets = 0 if self._bound is None else self._bound.count
        size = self.encoder.compute_conv_feature_map_size(input_size)
        return int(size + self.decoder.compute_conv_feature_map_size(input_size)) + targets * voxels

    def match_pretrained(self, weights: Mapping[str, torch.Tensor]) -> "PretrainedMatch":
        """Compare pretrained weights of a DuPLUS model, or of a stock nnU-Net, with those of this network.

        Args:
            weights: `network_weights` of the checkpoint.
        """
        given = {_PREFIXES.sub("", name): value for name, value in weights.items()}
        ours = {name_in_base(name): value for name, value in self.state_dict().items() if name_in_base(name)}
        conditioned = any(name.startswith("generator.") for name in given)
        fresh, misfits = [], []
        for name, value in ours.items():
            fits = name in given and given[name].shape == value.shape
            if name.startswith(_ADDED) and (name in _OWN or not (conditioned and fits)):
                fresh.append(name)
            elif not fits:
                shape = tuple(given[name].shape) if name in given else "missing"
                misfits.append(f"{name}: {shape}, expected {tuple(value.shape)}")
        # Segmentation layers are replaced; other layers of nnU-Net's that are left over belong to a deeper network.
        left = [name for name in given if name not in ours and name.startswith(_SHARED) and not name.startswith(_ADDED)]
        misfits += [f"{name}: {tuple(given[name].shape)}, which this network does not have" for name in left]
        taken = {name: given[name] for name in ours if name not in fresh and name in given}
        return PretrainedMatch(taken, fresh, misfits)

    def load_pretrained(self, weights: Mapping[str, torch.Tensor]) -> list[str]:
        """Load pretrained weights of a DuPLUS model, or of a stock nnU-Net of the same architecture.

        Args:
            weights: `network_weights` of the checkpoint.

        Returns:
            Names of parameters that stay newly initialised because the checkpoint does not have them.

        Raises:
            ModelError: A weight of nnU-Net's modules is missing or has a different shape; nothing is loaded.
        """
        match = self.match_pretrained(weights)
        if self.adapters and not any(name.startswith("generator.") for name in match.taken):
            raise ModelError(
                "The pretrained weights do not belong to a DuPLUS model, which an adapter needs as its base. Give the "
                "checkpoint of the model that the dataset was planned for, or train with DuPLUSTrainer, which also "
                "accepts nnU-Net's own models."
            )
        if match.misfits:
            raise ModelError(
                f"The pretrained weights do not match this network: {len(match.misfits)} differ, first "
                f"{'; '.join(match.misfits[:3])}. Plan the dataset with the architecture of the pretrained model: "
                "`duplus adapt plan DATASET --from-model MODEL_FOLDER`."
            )
        self.load_state_dict(
            {name: match.taken.get(name_in_base(name), value) for name, value in self.state_dict().items()}
        )
        reset_adapters(self)
        return match.fresh


def condition(
    unet: nn.Module,
    embedding: tuple[int, int],
    settings: NetworkSettings | None = None,
    texts: TextTable | None = None,
) -> ConditionedUNet:
    """Condition a U-Net on both prompts; see ConditionedUNet."""
    return ConditionedUNet(unet, embedding, settings or NetworkSettings(), texts)


def unwrap(network: Any) -> Any:
    """Return the module inside DistributedDataParallel and torch.compile, or the module itself."""
    network = getattr(network, "module", network)
    return getattr(network, "_orig_mod", network)


def pool_bottleneck(skips: list[torch.Tensor]) -> torch.Tensor:
    """Return F_dense (B, C): the last feature map of the encoder, averaged over space."""
    return skips[-1].mean(dim=(2, 3, 4), dtype=torch.float32)


def _conditioned_blocks(encoder: Any, decoder: Any) -> Iterator[nn.Module]:
    """Yield the conditioned blocks, one in each encoder stage but the stem and each decoder stage but the last."""
    has_own_stem = getattr(encoder, "stem", None) is not None
    for stage in list(encoder.stages)[0 if has_own_stem else 1 :]:
        yield _last_conv_block(stage)
    for stage in list(decoder.stages)[:-1]:
        yield _last_conv_block(stage)


def _last_conv_block(stage: Any) -> nn.Module:
    """Find the last conv-norm-nonlinearity block of a stage; in a residual block, the last one of its branch."""
    if isinstance(stage, nn.Sequential):
        return _last_conv_block(stage[-1])
    if hasattr(stage, "blocks"):
        block = stage.blocks[-1]
        last: nn.Module = block.conv3 if hasattr(block, "conv3") else block.conv2
        return last
    return _last_conv_block(stage.convs[-1]) if hasattr(stage, "convs") else stage


def _replace_norms(blocks: Iterator[nn.Module]) -> list[FiLMInstanceNorm]:
    """Replace the norm of each block by a conditioned one, in both places where the block registers it."""
    replaced = []
    for block in blocks:
        norm: Any = getattr(block, "norm", None)
        if not isinstance(norm, nn.InstanceNorm3d) or not norm.affine:
            raise PlansError(
                f"A conditioned stage ends in {type(norm).__name__}, but FiLM needs an affine InstanceNorm3d. Set "
                "norm_op to torch.nn.modules.instancenorm.InstanceNorm3d with affine true in the plans."
            )
        conditioned = FiLMInstanceNorm.from_norm(norm)
        sequence: Any = block.all_modules
        for index, module in enumerate(sequence):
            if module is norm:
                sequence[index] = conditioned
        block.norm = conditioned
        replaced.append(conditioned)
    return replaced


def _make_projection(layer: nn.Module, features: int) -> Projection:
    """Make the 1x1x1 projection that replaces a segmentation layer of nnU-Net."""
    projection = Projection(layer.in_channels, features, 1)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(projection.weight, a=SLOPE)
    nn.init.zeros_(projection.bias)  # type: ignore[arg-type]
    return projection
