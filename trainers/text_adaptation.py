"""Embeds the prompts of a training: as stored in the plans, or by a text encoder that is trained with the network."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from duplus_nnunet.errors import PlansError
from duplus_nnunet.networks import ConditionedUNet, Prompts, TextTable
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry import EncoderIdentity
from duplus_nnunet.prompt_registry.adapter import AdaptedEncoder
from duplus_nnunet.settings import TextAdapterSettings
from duplus_nnunet.trainers.schedule import Factor, always
from duplus_nnunet.trainers.seeding import WEIGHTS, Seeds, keep_generators

Images = Sequence[tuple[str, Sequence[str]]]
# For each image of a batch, whether it is given no context prompt, and whether its target prompts are names alone.
Hidden = Sequence[tuple[bool, bool]]

# Number of the adapter's initial weights among all that are drawn; those of the network have 0.
_ADAPTER = 1
# Number of texts that are embedded at a time for the table.
_PORTION = 128


class StoredTexts:
    """Embeddings as they are stored in the plans; they are not trained.

    Args:
        bank: The model's prompts.
    """

    def __init__(self, bank: PromptBank) -> None:
        self.bank = bank

    def __str__(self) -> str:
        return "embeddings stored in the plans"

    def join(self, network: ConditionedUNet, optimizer: torch.optim.Optimizer) -> list[Factor]:
        """Add trained weights to network and optimizer; return the factor of each group added to the optimizer."""
        return []

    def draw(self, images: Images, rng: np.random.Generator, probability: float, hidden: Hidden = ()) -> Prompts:
        """Embed the prompts of a training step.

        Args:
            images: For each of B images its context and the names of K targets.
            rng: Draws the paraphrases.
            probability: Probability, 0 to 1, that a paraphrase replaces a prompt.
            hidden: What each image is not told; none: every image is told everything.
        """
        return self._hide(self.bank.compose_batch(self.bank.choose_batch(images, rng, probability)), hidden)

    def refresh(self, network: ConditionedUNet) -> None:
        """Update the network's table of embeddings."""

    def _hide(self, prompts: Prompts, hidden: Hidden) -> Prompts:
        """Set hidden parts to 0, the mean of all standardised texts of a kind; a number (one-hot) has no sentence."""
        if not any(map(any, hidden)):
            return prompts
        kept = 1 - torch.tensor(hidden, dtype=prompts.context.dtype, device=prompts.context.device)
        single = 0 if self.bank.settings.target_prompt == "one-hot" else prompts.context.shape[-1]
        sentences, names = prompts.targets[..., :single], prompts.targets[..., single:]
        targets = torch.cat([sentences * kept[:, 1, None, None], names], -1)
        return Prompts(prompts.context * kept[:, :1], targets)


class AdaptedTexts(StoredTexts):
    """Embeddings by a text encoder whose adapter is trained with the network.

    The adapter's weights are a second group of the training's optimizer, with its weight decay (towards an adapter
    without effect) and schedule, at `learning_rate_factor` times the rate; with the defaults, AdamW at the 1e-4 that is
    usual for LoRA. In the first 40 steps on phantoms, with SGD, its gradient was 2 to 5 % of the network's, so that the
    common clipping hardly depends on it.

    Args:
        bank: The model's prompts.
        encoder: The encoder with its adapter.
        settings: Settings of the adapter.
    """

    def __init__(self, bank: PromptBank, encoder: AdaptedEncoder, settings: TextAdapterSettings) -> None:
        super().__init__(bank)
        self.encoder, self.settings = encoder, settings
        self._changed = True

    def __str__(self) -> str:
        size = sum(weight.numel() for weight in self.encoder.weights.values())
        return f"embeddings by {self.encoder.name!r} with LoRA on {len(self.encoder.layers)} layers ({size} weights)"

    def join(self, network: ConditionedUNet, optimizer: torch.optim.Optimizer) -> list[Factor]:
        """Make the adapter's weights part of the network, before DDP wraps it, and a group of the optimizer."""
        self.encoder.to(next(network.parameters()).device)
        weights, table = self.encoder.weights, cast(TextTable, network.texts)
        table.attach(weights)
        optimizer.add_param_group({"params": list(weights.values())})
        return [always(self.settings.learning_rate_factor)]

    def draw(self, images: Images, rng: np.random.Generator, probability: float, hidden: Hidden = ()) -> Prompts:
        """Embed the prompts of a training step; each text is encoded once, with gradients to the adapter."""
        texts = self.bank.choose_batch(images, rng, probability)
        contexts = [("context", context) for context, _ in texts]
        pairs = [pair for _, targets in texts for pair in targets]
        parts = [part for sentence, name in pairs for part in (("sentence", sentence), ("name", name))]
        self._changed = True
        vectors = self._embed([*contexts, *parts], dropout=True)
        count = len(images)
        prompts = Prompts(vectors[:count], vectors[count:].reshape(count, len(pairs) // count, -1))
        return self._hide(prompts, hidden)

    @torch.no_grad()
    def refresh(self, network: ConditionedUNet) -> None:
        """Embed all texts again if the adapter has changed since the last call."""
        if self._changed:
            entries = self.bank.entries
            portions = [entries[start : start + _PORTION] for start in range(0, len(entries), _PORTION)]
            cast(TextTable, network.texts).fill(torch.cat([self._embed(portion) for portion in portions]))
            self._changed = False

    def _embed(self, entries: Sequence[tuple[str, str]], dropout: bool = False) -> torch.Tensor:
        """Embed pairs of a kind and a text, (n, E), each text once."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(text for _, text in entries))}
        encoded = self.encoder.encode(list(rows), dropout)
        by_kind: dict[str, list[int]] = {}
        for index, (kind, _) in enumerate(entries):
            by_kind.setdefault(kind, []).append(index)
        parts = [
            self.bank.standardise(encoded[[rows[entries[index][1]] for index in indices]], kind)
            for kind, indices in by_kind.items()
        ]
        order = torch.tensor([index for indices in by_kind.values() for index in indices], device=encoded.device)
        return torch.cat(parts)[order.argsort()]


def open_texts(bank: PromptBank, seeds: Seeds) -> StoredTexts:
    """Choose how prompts are embedded in training, as the settings require.

    Args:
        bank: The model's prompts.
        seeds: Random numbers of the training, for the initial weights of an adapter.

    Raises:
        EncoderError: The text encoder is to be adapted, and is missing or another one than that of the plans.
        PlansError: The plans do not name their text encoder.
    """
    settings, identity = bank.settings.text_adapter, bank.form.encoder
    if not settings.enabled:
        return StoredTexts(bank)
    if identity is None:
        raise PlansError(
            f"The section 'duplus' of the plans {bank.form.plans_name!r} lacks 'encoder', which settings.text_adapter "
            "needs; plan the dataset again."
        )
    with keep_generators():
        seeds.seed_all(WEIGHTS, _ADAPTER)
        encoder = AdaptedEncoder(EncoderIdentity.from_dict(identity), settings)
    return AdaptedTexts(bank, encoder, settings)


def keep_buffers_apart(network: nn.Module) -> None:
    """Keep DDP from sending rank 0's table of embeddings to all ranks at every training step.

    All ranks have the same table. The first forward pass of a validation would also send it, and the other ranks would
    wait forever for a rank that has no case to validate.
    """
    if isinstance(network, DistributedDataParallel):
        network.broadcast_buffers = False
