"""The two prompts as tensors."""

from dataclasses import dataclass

import torch

from duplus_nnunet.errors import PromptError


@dataclass(frozen=True)
class Prompts:
    """What a network is bound to before it is called.

    Attributes:
        context: T1, shape (1, E) for all images alike or (B, E), an image each.
        targets: T2, shape (K, F) for all images alike.
        rows: Where a TextTable has them: T1's row (1 or B, 1) and those of T2's parts (K, 2). None: in no table.
    """

    context: torch.Tensor
    targets: torch.Tensor
    rows: tuple[torch.Tensor, torch.Tensor] | None = None

    def __post_init__(self) -> None:
        if self.context.ndim != 2 or self.targets.ndim != 2:
            raise PromptError(
                "Prompts are two-dimensional: context (1 or B, E) and targets (K, F); got shapes "
                f"{tuple(self.context.shape)} and {tuple(self.targets.shape)}."
            )
        if not len(self.targets):
            raise PromptError("No target was chosen; name at least one.")

    def to(self, device: torch.device) -> "Prompts":
        """Return the prompts on a device; the same object where they are there already."""
        if self.context.device == device and self.targets.device == device:
            return self
        rows = None if self.rows is None else (self.rows[0].to(device), self.rows[1].to(device))
        return Prompts(self.context.to(device), self.targets.to(device), rows)
