"""Adapts a text encoder by LoRA: low-rank weights beside some of its linear layers are trained, all others are frozen.

Before training, the adapted encoder returns the same embeddings as the original one.

Source: Hu et al. 2021, arXiv 2106.09685.
"""

from collections.abc import Sequence
from typing import Any

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry.encoder import TextEncoder
from duplus_nnunet.prompt_registry.identity import EncoderIdentity
from duplus_nnunet.settings import TextAdapterSettings

# Names of the query and value projections: BERT and related models, CLIP, DistilBERT, T5 and MPNet, ModernBERT.
_QUERY_VALUE = (("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("q", "v"), ("Wqkv",))
_DROPOUT = "lora_dropout"


class AdaptedEncoder:
    """A text encoder with an adapter.

    Args:
        expected: The encoder that the stored embeddings come from; any other is refused.
        settings: Settings of the adapter.

    Attributes:
        name: Name of the encoder.
        layers: Names of the adapted layers.

    Raises:
        EncoderError: The encoder is missing, is not the expected one, or has no layer to adapt.
    """

    def __init__(self, expected: EncoderIdentity, settings: TextAdapterSettings) -> None:
        self._encoder = TextEncoder(expected.name, expected.pooling, device="cpu")
        expected.require_same(self._encoder.identity, f"Text encoder {expected.name!r}")
        self.name = expected.name
        self.layers = choose_layers(self._encoder.model, settings.target_modules)
        _inject(self._encoder.model, self.layers, settings)
        self._require_gradients()

    @property
    def weights(self) -> dict[str, Any]:
        """The adapter's parameters by name; all others are frozen."""
        parameters = self._encoder.model.named_parameters()
        return {name.replace(".default", ""): weight for name, weight in parameters if weight.requires_grad}

    def to(self, device: Any) -> None:
        """Move the encoder to a device; use `weights` only afterwards."""
        self._encoder.model.to(device)

    def encode(self, texts: Sequence[str], dropout: bool = False) -> Any:
        """Embed texts, all at once.

        Args:
            texts: N texts.
            dropout: Whether the adapter's dropout is active; the encoder's never is.

        Returns:
            Tensor (N, E) of length 1, with gradients to the adapter.
        """
        from torch.nn.functional import normalize

        for name, module in self._encoder.model.named_modules():
            if name.endswith(_DROPOUT):
                module.train(dropout)
        return normalize(self._encoder.run(list(texts)), dim=1)

    def _require_gradients(self) -> None:
        """Refuse layers that embeddings do not depend on: they get no gradient, for which DDP would wait."""
        self.encode(["a"]).sum().backward()
        idle = [name for name, weight in self.weights.items() if weight.grad is None]
        for weight in self.weights.values():
            weight.grad = None
        if idle:
            message = f"settings.text_adapter.target_modules selects {len(idle)} weights that no embedding depends on"
            raise EncoderError(
                f"{message}: {', '.join(idle[:4])}. Name other layers, or longer suffixes of their names."
            )


def choose_layers(model: Any, ends: Sequence[str]) -> list[str]:
    """Choose the linear layers of an encoder to adapt.

    Args:
        model: The encoder.
        ends: Suffixes of the layers' names; if empty, the query and value projections of attention.

    Returns:
        Names of the layers.

    Raises:
        EncoderError: A suffix matches no layer; the message lists those that would.
    """
    from torch import nn

    modules = model.named_modules()
    linear = [name for name, module in modules if isinstance(module, nn.Linear) and "pooler" not in name]
    last = sorted({name.rpartition(".")[2] for name in linear})
    known = [pair for pair in _QUERY_VALUE if set(pair) <= set(last)]
    chosen = tuple(ends) or (known[0] if known else ())
    missing = [end for end in chosen if not any(_ends_with(name, end) for name in linear)]
    if missing or not chosen:
        names = ", ".join(map(repr, missing))
        reason = f"has no linear layer {names}" if missing else "has no query and value layers under a known name"
        message = f"The text encoder {reason}; settings.text_adapter.target_modules can contain"
        raise EncoderError(f"{message} these suffixes: {', '.join(map(repr, last)) or 'none'}.")
    return [name for name in linear if any(_ends_with(name, end) for end in chosen)]


def _ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _inject(model: Any, layers: list[str], settings: TextAdapterSettings) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.r, lora_alpha=settings.lora_alpha, lora_dropout=settings.lora_dropout, target_modules=layers
    )
    model.requires_grad_(False)
    inject_adapter_in_model(config, model)
    model.eval()
