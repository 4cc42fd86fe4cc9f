"""A text encoder that learns: LoRA of peft beside some of its linear layers, all else frozen.

In: the encoder that a model's embeddings come from. Out: the same embeddings at first, with gradients to the adapter.
Source: Hu et al. 2021, arXiv 2106.09685.
"""

from collections.abc import Sequence
from typing import Any

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry.encoder import TextEncoder
from duplus_nnunet.prompt_registry.identity import EncoderIdentity
from duplus_nnunet.settings import TextAdapterSettings

# What encoders call the attention's query and value: BERT and its kin, CLIP, DistilBERT, T5 and MPNet, ModernBERT.
_QUERY_VALUE = (("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("q", "v"), ("Wqkv",))
_DROPOUT = "lora_dropout"


class AdaptedEncoder:
    """A text encoder with an adapter.

    Args:
        expected: The encoder that the stored embeddings come from; another one is refused.
        settings: The adapter's.

    Attributes:
        name: The encoder's.
        layers: Names of the adapted layers.

    Raises:
        EncoderError: The encoder is missing, another one than expected, or has no layer to adapt.
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
        named = self._encoder.model.named_parameters()
        return {name.replace(".default", ""): weight for name, weight in named if weight.requires_grad}

    def to(self, device: Any) -> None:
        """Move it to a device. Its parameters are to be handed out afterwards only."""
        self._encoder.model.to(device)

    def encode(self, texts: Sequence[str], dropout: bool = False) -> Any:
        """Embed texts, all at once.

        Args:
            texts: N texts.
            dropout: Whether the adapter's own dropout is at work; the encoder's never is.

        Returns:
            Tensor (N, E) of length 1, with gradients to the adapter.
        """
        from torch.nn.functional import normalize

        for name, module in self._encoder.model.named_modules():
            if name.endswith(_DROPOUT):
                module.train(dropout)
        return normalize(self._encoder.run(list(texts)), dim=1)

    def _require_gradients(self) -> None:
        """Refuse layers that an embedding does not depend on: they could not learn, and DDP would wait for them."""
        self.encode(["a"]).sum().backward()
        idle = [name for name, weight in self.weights.items() if weight.grad is None]
        for weight in self.weights.values():
            weight.grad = None
        if idle:
            message = f"settings.text_adapter.target_modules names {len(idle)} weights that no embedding depends on"
            raise EncoderError(f"{message}: {', '.join(idle[:4])}. Name other layers, or longer ends of their names.")


def choose_layers(model: Any, ends: Sequence[str]) -> list[str]:
    """Name the linear layers of an encoder to adapt.

    Args:
        model: The encoder.
        ends: Ends of their names; none means the attention's query and value.

    Raises:
        EncoderError: No layer's name ends so; the message lists the ends there are.
    """
    from torch import nn

    named = model.named_modules()
    linear = [name for name, module in named if isinstance(module, nn.Linear) and "pooler" not in name]
    last = sorted({name.rpartition(".")[2] for name in linear})
    known = [pair for pair in _QUERY_VALUE if set(pair) <= set(last)]
    wanted = tuple(ends) or (known[0] if known else ())
    missing = [end for end in wanted if not any(_ends_with(name, end) for name in linear)]
    if missing or not wanted:
        found = f"has no linear layer {', '.join(map(repr, missing))}" if missing else "names its attention unusually"
        message = f"The text encoder {found}; settings.text_adapter.target_modules can name"
        raise EncoderError(f"{message} these ends: {', '.join(map(repr, last)) or 'none'}.")
    return [name for name in linear if any(_ends_with(name, end) for end in wanted)]


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
