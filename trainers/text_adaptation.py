"""Where a training's prompts come from: the plans' embeddings, or a text encoder that learns with the network."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from duplus_nnunet.errors import PlansError
from duplus_nnunet.networks import ConditionedUNet, Prompts, TextTable
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry import EncoderIdentity
from duplus_nnunet.prompt_registry.adapter import AdaptedEncoder
from duplus_nnunet.settings import TextAdapterSettings, find_section, read_settings
from duplus_nnunet.trainers.schedule import Factor, always

Images = Sequence[tuple[str, Sequence[str]]]

# Texts that are embedded at a time for the table.
_PORTION = 128


class StoredTexts:
    """Texts as the plans have them embedded; nothing learns.

    Args:
        bank: The model's prompts.
    """

    def __init__(self, bank: PromptBank) -> None:
        self.bank = bank

    def __str__(self) -> str:
        return "embedded as they stand in the plans"

    def join(self, network: ConditionedUNet, optimizer: torch.optim.Optimizer) -> list[Factor]:
        """Add what learns to network and optimizer; return the factor of each group that the optimizer gained."""
        return []

    def draw(self, images: Images, rng: np.random.Generator, probability: float) -> Prompts:
        """Put the prompts of a training step together, paraphrases among them.

        Args:
            images: For each of B images its context and the names of K targets.
            rng: Draws the paraphrases.
            probability: Share of prompts, 0 to 1, that a paraphrase stands in for.
        """
        return self.bank.compose_batch(self.bank.choose_batch(images, rng, probability))

    def refresh(self, network: ConditionedUNet) -> None:
        """Bring the network's own table of embeddings up to date."""


class AdaptedTexts(StoredTexts):
    """Texts by a text encoder whose adapter learns with the network.

    The adapter's weights are a second group of nnU-Net's optimizer: its momentum, weight decay (towards an adapter
    that does nothing) and schedule, at `learning_rate_factor` times the rate. At 1 the adapter stays behind the
    network: in the first 40 steps on phantoms its gradient was 2 to 5 % of the network's, so that the common clipping
    is not its, and its weights moved by up to 1.4e-4 a step, about what Adam does at the 1e-4 that is usual for LoRA.

    Args:
        bank: The model's prompts.
        encoder: The encoder with its adapter.
        settings: The adapter's.
    """

    def __init__(self, bank: PromptBank, encoder: AdaptedEncoder, settings: TextAdapterSettings) -> None:
        super().__init__(bank)
        self.encoder, self.settings = encoder, settings
        self._moved = True

    def __str__(self) -> str:
        size = sum(weight.numel() for weight in self.encoder.weights.values())
        return f"embedded by {self.encoder.name!r} with LoRA on {len(self.encoder.layers)} layers ({size} weights)"

    def join(self, network: ConditionedUNet, optimizer: torch.optim.Optimizer) -> list[Factor]:
        """Let the adapter's weights be the network's, before DDP wraps it, and a group of the optimizer."""
        self.encoder.to(next(network.parameters()).device)
        weights, table = self.encoder.weights, cast(TextTable, network.texts)
        table.attach(weights)
        optimizer.add_param_group({"params": list(weights.values())})
        return [always(self.settings.learning_rate_factor)]

    def draw(self, images: Images, rng: np.random.Generator, probability: float) -> Prompts:
        """Put the prompts of a training step together; each text is encoded once, with gradients to the adapter."""
        texts = self.bank.choose_batch(images, rng, probability)
        contexts = [("context", context) for context, _ in texts]
        pairs = [pair for _, targets in texts for pair in targets]
        parts = [part for sentence, name in pairs for part in (("sentence", sentence), ("name", name))]
        self._moved = True
        vectors = self._embed([*contexts, *parts], dropout=True)
        count = len(images)
        return Prompts(vectors[:count], vectors[count:].reshape(count, len(pairs) // count, -1))

    @torch.no_grad()
    def refresh(self, network: ConditionedUNet) -> None:
        """Embed all texts anew, if the adapter has moved since the last time."""
        if self._moved:
            entries = self.bank.entries
            portions = [entries[start : start + _PORTION] for start in range(0, len(entries), _PORTION)]
            cast(TextTable, network.texts).fill(torch.cat([self._embed(portion) for portion in portions]))
            self._moved = False

    def _embed(self, entries: Sequence[tuple[str, str]], dropout: bool = False) -> torch.Tensor:
        """Embed pairs of a kind and a text, (n, E), each text once."""
        place = {text: index for index, text in enumerate(dict.fromkeys(text for _, text in entries))}
        encoded = self.encoder.encode(list(place), dropout)
        by_kind: dict[str, list[int]] = {}
        for index, (kind, _) in enumerate(entries):
            by_kind.setdefault(kind, []).append(index)
        parts = [
            self.bank.place(encoded[[place[entries[index][1]] for index in many]], kind)
            for kind, many in by_kind.items()
        ]
        order = torch.tensor([index for many in by_kind.values() for index in many], device=encoded.device)
        return torch.cat(parts)[order.argsort()]


def open_texts(plans: Mapping[str, Any], bank: PromptBank) -> StoredTexts:
    """Choose where prompts come from, as the plans' settings say.

    Raises:
        EncoderError: The text encoder is to be adapted, and is missing or another than the plans'.
        PlansError: The plans do not say which encoder theirs is.
    """
    settings = read_settings(plans).text_adapter
    if not settings.enabled:
        return StoredTexts(bank)
    found = find_section(plans).get("encoder")
    if found is None:
        raise PlansError(
            f"The part 'duplus' of the plans {plans.get('plans_name')!r} lacks 'encoder', which "
            "settings.text_adapter needs; plan the dataset again."
        )
    return AdaptedTexts(bank, AdaptedEncoder(EncoderIdentity.from_dict(found), settings), settings)


def keep_buffers_apart(network: nn.Module) -> None:
    """Keep DDP from sending rank 0's table of embeddings at every training step.

    Each rank has the same. And the first call of a validation would send it too, for which all others would wait if
    a rank has no case to validate.
    """
    if isinstance(network, DistributedDataParallel):
        network.broadcast_buffers = False
