"""The two prompts in nnU-Net's own network: FiLM replaces norms, the dynamic head replaces segmentation layers.

In comes a PlainConvUNet or ResidualEncoderUNet as nnU-Net builds it from its plans, out comes the same network,
steered: bind prompts, then call it like any network of nnU-Net's. No U-Net is written here.
Source: Saeed et al. 2025, arXiv 2510.03483.
"""

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

# nnU-Net sums up to 27 overlapping windows, each weighted by up to 10, in float16 (largest number 65504).
LARGEST_LOGIT = 100.0
# Sets of prompts whose scales and heads are kept; more than a few come from a caller that binds new ones each time.
_MOST_FOLDED = 64
_ADDED = ("film.", "generator.", "decoder.seg_layers.", "texts.")
# Of another model's texts, hence never taken over; its adapter's weights are.
_OWN = ("texts.keys", "texts.table")


@dataclass(frozen=True)
class PromptConditioning:
    """What prompts come to before there is an image.

    Attributes:
        prompts: The prompts, as they were bound.
        film: Scale and shift of each conditioned stage.
        targets: T2's part of the heads' weights, (K, hidden) or (B, K, hidden).
    """

    prompts: Prompts
    film: list[Any]
    targets: torch.Tensor


class ConditionedUNet(nn.Module):
    """A U-Net that segments what its prompts name.

    The number of output channels is the number of bound targets; no weight depends on it. The keys of the state
    dictionary are nnU-Net's for all that is nnU-Net's.

    Args:
        unet: PlainConvUNet or ResidualEncoderUNet for 3D images.
        embedding: Lengths (E, F) of a context and of a target embedding.
        settings: Sizes of the conditioning.
        texts: Embeddings that travel with the weights, because the text encoder is adapted; None: none do.

    Attributes:
        cpu_bfloat16: Whether the U-Net's convolutions run in bfloat16 on a CPU that has it; logits stay float32.
        half_logits: Whether logits are float16 in eval mode on a CPU, as they are on a GPU and in nnU-Net's sums.
        adapters: What each adapter has beside its LoRA, by name; see networks.adaptation.
        default_adapter: The adapter that answers prompts which name none; "" is the base itself.
        active_adapter: The one that the layers are set to now.
        check_pretrained: Called with a checkpoint and its file before its weights are taken over; None: nothing is.

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
        self._bound: Prompts | None = None
        self._folded: dict[tuple[int, str, torch.device], PromptConditioning] = {}
        # Other weights make other scales and heads of the same prompts.
        self.register_load_state_dict_post_hook(lambda *_: self._folded.clear())  # type: ignore[no-untyped-call]

    def bind(self, prompts: Prompts) -> None:
        """Choose the prompts of all calls to come. They are in no checkpoint and are not shared between ranks.

        Raises:
            PromptError: The embeddings have another length than the network was built for.
        """
        expected = self._embedding
        found = prompts.context.shape[-1], prompts.targets.shape[-1]
        if found != expected:
            raise PromptError(
                f"The prompts have embeddings of length {found}, the network takes {expected}. They were made by "
                "another text encoder than the model's; embed them again with the model's own."
            )
        self._bound = prompts

    @property
    def prompts(self) -> Prompts:
        """The prompts bound last.

        Raises:
            PromptError: None were bound.
        """
        if self._bound is None:
            raise PromptError("No prompts are bound: call bind(prompts) before the network.")
        return self._bound

    def forward(self, x: torch.Tensor, prompts: Prompts | None = None) -> Any:
        """Segment images.

        Args:
            x: Images, shape (B, C, D, H, W).
            prompts: Prompts of this call alone; without them, the bound ones.

        Returns:
            Logits (B, K, D, H, W); with deep supervision a list, finest first. In eval mode they are bounded.
        """
        bound = self.prompts if prompts is None else prompts
        if bound.adapters is None:
            return self._answer(x, bound, self.default_adapter)
        found = [self._answer(x, part.prompts, part.adapter) for part in bound.parts]
        if self.decoder.deep_supervision:
            return [join_parts(bound.parts, levels) for levels in zip(*found, strict=True)]
        return join_parts(bound.parts, found)

    def _answer(self, x: torch.Tensor, prompts: Prompts, adapter: str) -> Any:
        """Segment images with the weights of one adapter, or with the base's own."""
        chosen = activate_adapter(self, adapter)
        folded = self._fold(prompts, adapter, x.device)
        try:
            for norm, (gamma, beta) in zip(self._conditioned, folded.film, strict=True):
                norm.modulate(gamma, beta)
            with mix_precision(x.device, self.cpu_bfloat16):
                skips = self.encoder(x)
                maps = self.decoder(skips)
        finally:
            for norm in self._conditioned:
                norm.modulate(None, None)
        weights = chosen.generator.join(folded.targets, pool_bottleneck(skips))
        if self.decoder.deep_supervision:
            return [self._finish(level, weights) for level in maps]
        return self._finish(maps, weights)

    def encode(self, x: torch.Tensor, prompts: Prompts | None = None) -> torch.Tensor:
        """Run the encoder alone, under T1, with the weights of the default adapter.

        Args:
            x: Images, shape (B, C, D, H, W).
            prompts: Prompts of this call alone; without them, the bound ones.

        Returns:
            The bottleneck, the encoder's last feature map, (B, F, d, h, w), float32.
        """
        bound, adapter = self.prompts if prompts is None else prompts, self.default_adapter
        activate_adapter(self, adapter)
        folded = self._fold(bound, adapter, x.device)
        try:
            for norm, (gamma, beta) in zip(self._conditioned, folded.film, strict=True):
                norm.modulate(gamma, beta)
            with mix_precision(x.device, self.cpu_bfloat16):
                bottleneck: torch.Tensor = self.encoder(x)[-1]
        finally:
            for norm in self._conditioned:
                norm.modulate(None, None)
        return bottleneck.float()

    def _fold(self, prompts: Prompts, adapter: str, device: torch.device) -> PromptConditioning:
        """Compute what is the same for all images; at prediction once, for the windows of all images to come."""
        if self.training or torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return self._compute_folded(prompts, adapter, device)
        key = (id(prompts), adapter, device)
        found = self._folded.get(key)
        if found is None or found.prompts is not prompts:
            if len(self._folded) >= _MOST_FOLDED:
                self._folded.clear()
            found = self._folded[key] = self._compute_folded(prompts, adapter, device)
        return found

    def _compute_folded(self, prompts: Prompts, adapter: str, device: torch.device) -> PromptConditioning:
        there, chosen = prompts.to(device), activate_adapter(self, adapter)
        if adapter == self.default_adapter:  # the table is of the texts that were trained last
            there = self.texts(there)
        return PromptConditioning(prompts, list(chosen.film(there.context)), chosen.generator.prepare(there.targets))

    def train(self, mode: bool = True) -> "ConditionedUNet":
        """Weights may change between training and prediction, so that nothing computed from them is kept."""
        if mode != self.training:
            self._folded.clear()
        return super().train(mode)

    def _finish(self, maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        half = self.half_logits and not self.training and maps.device.type == "cpu"
        logits = apply_heads(maps.float() if maps.dtype == torch.bfloat16 else maps, weights, half)
        return logits if self.training else logits.clamp_(-LARGEST_LOGIT, LARGEST_LOGIT)

    def compute_conv_feature_map_size(self, input_size: tuple[int, ...]) -> int:
        """Count the values of all feature maps, as nnU-Net's planner does; FiLM adds none, the head its logits."""
        voxels = 1
        for length in input_size:
            voxels *= int(length)
        targets = 0 if self._bound is None else self._bound.count
        size = self.encoder.compute_conv_feature_map_size(input_size)
        return int(size + self.decoder.compute_conv_feature_map_size(input_size)) + targets * voxels

    def load_pretrained(self, weights: Mapping[str, torch.Tensor]) -> list[str]:
        """Take over the weights of another model: ours, or a stock nnU-Net's of the same architecture.

        Args:
            weights: `network_weights` of its checkpoint.

        Returns:
            Names that keep their fresh values because the other model does not have them.

        Raises:
            ModelError: A weight of nnU-Net's own part is missing or has another shape; nothing was loaded.
        """
        ours = {name_in_base(name): value for name, value in self.state_dict().items() if name_in_base(name)}
        conditioned = any(name.startswith("generator.") for name in weights)
        fresh, wrong = [], []
        for name, value in ours.items():
            fits = name in weights and weights[name].shape == value.shape
            if name.startswith(_ADDED) and (name in _OWN or not (conditioned and fits)):
                fresh.append(name)
            elif not fits:
                found = tuple(weights[name].shape) if name in weights else "missing"
                wrong.append(f"{name}: {found}, expected {tuple(value.shape)}")
        if self.adapters and not conditioned:
            raise ModelError(
                "The pretrained weights are no DuPLUS model's: an adapter needs a base that two prompts steer already. "
                "Give the checkpoint of the model that the dataset was planned for, or train with DuPLUSTrainer, which "
                "takes nnU-Net's own models too."
            )
        if wrong:
            raise ModelError(
                f"The pretrained weights do not fit this network; {len(wrong)} of {len(ours)} differ, first: "
                f"{'; '.join(wrong[:3])}. Plan the new dataset with the architecture of the pretrained model."
            )
        taken = {name: ours[name] if name in fresh else weights[name] for name in ours}
        self.load_state_dict({name: taken.get(name_in_base(name), value) for name, value in self.state_dict().items()})
        reset_adapters(self)
        return fresh


def condition(
    unet: nn.Module,
    embedding: tuple[int, int],
    settings: NetworkSettings | None = None,
    texts: TextTable | None = None,
) -> ConditionedUNet:
    """Put both prompts into a U-Net; see ConditionedUNet."""
    return ConditionedUNet(unet, embedding, settings or NetworkSettings(), texts)


def pool_bottleneck(skips: list[torch.Tensor]) -> torch.Tensor:
    """Return F_dense (B, C): the encoder's last feature map, averaged over space."""
    return skips[-1].mean(dim=(2, 3, 4), dtype=torch.float32)


def _conditioned_blocks(encoder: Any, decoder: Any) -> Iterator[nn.Module]:
    """Walk the blocks that FiLM steers: every encoder stage but the stem, every decoder stage but the last."""
    has_own_stem = getattr(encoder, "stem", None) is not None
    for stage in list(encoder.stages)[0 if has_own_stem else 1 :]:
        yield _last_conv_block(stage)
    for stage in list(decoder.stages)[:-1]:
        yield _last_conv_block(stage)


def _last_conv_block(stage: Any) -> nn.Module:
    """Find the conv-norm-nonlinearity block that ends a stage; of a residual block, the end of its branch."""
    if isinstance(stage, nn.Sequential):
        return _last_conv_block(stage[-1])
    if hasattr(stage, "blocks"):
        block = stage.blocks[-1]
        last: nn.Module = block.conv3 if hasattr(block, "conv3") else block.conv2
        return last
    return _last_conv_block(stage.convs[-1]) if hasattr(stage, "convs") else stage


def _replace_norms(blocks: Iterator[nn.Module]) -> list[FiLMInstanceNorm]:
    """Swap each block's norm for a conditioned one, in both places where the block registers it."""
    replaced = []
    for block in blocks:
        norm: Any = getattr(block, "norm", None)
        if not isinstance(norm, nn.InstanceNorm3d) or not norm.affine:
            raise PlansError(
                f"A conditioned stage ends in {type(norm).__name__}; FiLM is folded into an affine InstanceNorm3d. "
                "Set norm_op to torch.nn.modules.instancenorm.InstanceNorm3d with affine true in the plans."
            )
        made = FiLMInstanceNorm.replace(norm)
        sequence: Any = block.all_modules
        for index, module in enumerate(sequence):
            if module is norm:
                sequence[index] = made
        block.norm = made
        replaced.append(made)
    return replaced


def _make_projection(layer: nn.Module, features: int) -> Projection:
    """Make the 1x1x1 projection that stands where nnU-Net has a segmentation layer."""
    projection = Projection(layer.in_channels, features, 1)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(projection.weight, a=SLOPE)
    nn.init.zeros_(projection.bias)  # type: ignore[arg-type]
    return projection
