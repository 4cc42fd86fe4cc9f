"""The two prompts as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from duplus_nnunet.errors import PromptError

Rows = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Prompts:
    """What a network is bound to before it is called.

    Attributes:
        context: T1, shape (1, E) for all images alike or (B, E), an image each.
        targets: T2, shape (K, F) for all images alike or (B, K, F), an image each.
        rows: Where a TextTable has them: T1's rows (1 or B, 1) and those of T2's parts, (K, 2) or (B, K, 2). None: in
            no table.
        mirrored: The same prompts for images whose left and right are exchanged: "left kidney" stands where "right
            kidney" did. None: not known, so that such images must not be made.
        adapters: By target, the adapter whose weights answer, "" for the base's own. None: the network's default.
    """

    context: torch.Tensor
    targets: torch.Tensor
    rows: Rows | None = None
    mirrored: "Prompts | None" = None
    adapters: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.context.ndim != 2 or self.targets.ndim not in (2, 3):
            raise PromptError(
                "Prompts have a context (1 or B, E) and targets (K, F) or (B, K, F); got shapes "
                f"{tuple(self.context.shape)} and {tuple(self.targets.shape)}."
            )
        if not self.count:
            raise PromptError("No target was chosen; name at least one.")
        if self.adapters is not None and len(self.adapters) != self.count:
            raise PromptError(f"{len(self.adapters)} adapters are named for {self.count} targets; name one a target.")

    @property
    def count(self) -> int:
        """K, the number of targets."""
        return self.targets.shape[-2]

    def take(self, numbers: Sequence[int]) -> "Prompts":
        """Return the prompts of some of the targets, by their numbers from 0, in that order."""
        chosen = torch.as_tensor(numbers, dtype=torch.int64)
        rows = (
            None if self.rows is None else (self.rows[0], self.rows[1].index_select(-2, chosen.to(self.rows[1].device)))
        )
        mirrored = None if self.mirrored is None else self.mirrored.take(numbers)
        targets = self.targets.index_select(-2, chosen.to(self.targets.device))
        adapters = None if self.adapters is None else tuple(self.adapters[number] for number in numbers)
        return replace(self, targets=targets, rows=rows, mirrored=mirrored, adapters=adapters)

    @cached_property
    def parts(self) -> "tuple[AdapterPrompts, ...]":
        """The prompts by adapter, in the order in which adapters are named first."""
        named = self.adapters or ()
        places = {name: [number for number, other in enumerate(named) if other == name] for name in named}
        if len(places) == 1:
            return (AdapterPrompts(named[0], tuple(range(self.count)), self),)
        return tuple(AdapterPrompts(name, tuple(numbers), self.take(numbers)) for name, numbers in places.items())

    def to(self, device: torch.device) -> "Prompts":
        """Return the prompts on a device; the same object where they are there already."""
        if self.context.device == device and self.targets.device == device:
            return self
        rows = None if self.rows is None else (self.rows[0].to(device), self.rows[1].to(device))
        mirrored = None if self.mirrored is None else self.mirrored.to(device)
        return replace(
            self, context=self.context.to(device), targets=self.targets.to(device), rows=rows, mirrored=mirrored
        )


@dataclass(frozen=True)
class AdapterPrompts:
    """Prompts that one adapter answers.

    Attributes:
        adapter: Its name, "" for the base's own weights.
        places: Which of all targets they are.
        prompts: Their prompts.
    """

    adapter: str
    places: tuple[int, ...]
    prompts: Prompts


def join_parts(parts: Sequence[AdapterPrompts], logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Put the logits of parts, (B, k, D, H, W) each, back into the order of all targets."""
    if len(logits) == 1:
        return logits[0]
    order = torch.tensor([place for part in parts for place in part.places], device=logits[0].device).argsort()
    return torch.cat(list(logits), 1).index_select(1, order)
