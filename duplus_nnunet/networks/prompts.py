"""Holds the embeddings of the context prompt and the target prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from duplus_nnunet.errors import PromptError

Rows = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Prompts:
    """Embeddings of a context prompt and of target prompts, to which a network is bound before it is called.

    Attributes:
        context: Context embedding, (1, E) for all images or (B, E), one per image.
        targets: Target embeddings, (K, F) for all images or (B, K, F), one set per image.
        rows: Rows in a TextTable: of the context, (1 or B, 1), and of the parts of targets, (K, 2) or (B, K, 2). None
            if the embeddings are in no table.
        mirrored: The same prompts for images mirrored left to right: "left kidney" takes the place of "right kidney".
            None if unknown; images must not be mirrored then.
        adapters: Name of the adapter for each target, "" for the base. None for the default of the network.

    Example:
        >>> prompts = Prompts(context=torch.randn(1, 384), targets=torch.randn(3, 768))
        >>> prompts.count, prompts.take([2, 0]).targets.shape
        (3, torch.Size([2, 768]))
    """

    context: torch.Tensor
    targets: torch.Tensor
    rows: Rows | None = None
    mirrored: "Prompts | None" = None
    adapters: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.context.ndim != 2 or self.targets.ndim not in (2, 3):
            raise PromptError(
                "Prompts need a context of shape (1 or B, E) and targets of shape (K, F) or (B, K, F), got shapes "
                f"{tuple(self.context.shape)} and {tuple(self.targets.shape)}."
            )
        if not self.count:
            raise PromptError("No target was chosen. Choose at least one.")
        if self.adapters is not None and len(self.adapters) != self.count:
            raise PromptError(
                f"{len(self.adapters)} adapters are given for {self.count} targets, expected one per target."
            )

    @property
    def count(self) -> int:
        """Number of targets K."""
        return self.targets.shape[-2]

    def take(self, indices: Sequence[int]) -> "Prompts":
        """Return the prompts of a selection of targets, by their indices, in that order."""
        selection = torch.as_tensor(indices, dtype=torch.int64)
        rows = (
            None
            if self.rows is None
            else (self.rows[0], self.rows[1].index_select(-2, selection.to(self.rows[1].device)))
        )
        mirrored = None if self.mirrored is None else self.mirrored.take(indices)
        targets = self.targets.index_select(-2, selection.to(self.targets.device))
        adapters = None if self.adapters is None else tuple(self.adapters[index] for index in indices)
        return replace(self, targets=targets, rows=rows, mirrored=mirrored, adapters=adapters)

    @cached_property
    def parts(self) -> "tuple[AdapterPrompts, ...]":
        """The prompts grouped by adapter, in order of first appearance."""
        adapters = self.adapters or ()
        by_adapter = {name: [index for index, other in enumerate(adapters) if other == name] for name in adapters}
        if len(by_adapter) == 1:
            return (AdapterPrompts(adapters[0], tuple(range(self.count)), self),)
        return tuple(AdapterPrompts(name, tuple(indices), self.take(indices)) for name, indices in by_adapter.items())

    def to(self, device: torch.device) -> "Prompts":
        """Return the prompts on a device; the same object if they already are."""
        if self.context.device == device and self.targets.device == device:
            return self
        rows = None if self.rows is None else (self.rows[0].to(device), self.rows[1].to(device))
        mirrored = None if self.mirrored is None else self.mirrored.to(device)
        return replace(
            self, context=self.context.to(device), targets=self.targets.to(device), rows=rows, mirrored=mirrored
        )


@dataclass(frozen=True)
class AdapterPrompts:
    """The prompts of the targets that are segmented by one adapter.

    Attributes:
        adapter: Name of the adapter, "" for the base.
        places: Indices of these targets among all targets.
        prompts: Prompts of these targets.
    """

    adapter: str
    places: tuple[int, ...]
    prompts: Prompts


def join_parts(parts: Sequence[AdapterPrompts], logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join the logits of parts, each (B, k, D, H, W), in the order of all targets."""
    if len(logits) == 1:
        return logits[0]
    order = torch.tensor([index for part in parts for index in part.places], device=logits[0].device).argsort()
    return torch.cat(list(logits), 1).index_select(1, order)
