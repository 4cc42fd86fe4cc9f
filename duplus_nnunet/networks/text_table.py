"""A table of embeddings that travels with the weights: in come prompts by row, out come the same with its embeddings.

It is there where the text encoder is adapted in training: each fold then has embeddings of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from duplus_nnunet.errors import ModelError, PromptError
from duplus_nnunet.networks.prompts import Prompts


class AdapterWeights(nn.ParameterDict):
    """Weights of the text encoder's adapter, which a training shares with its encoder.

    Where there are none, as in prediction, those of a checkpoint are passed over: its table is all that is needed.
    """

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if len(self):
            super()._load_from_state_dict(*args, **kwargs)


class TextTable(nn.Module):
    """Final embeddings of all texts of the plans.

    Args:
        keys: What tells the texts apart, int64 (N).
        vectors: Embeddings to start with, (N, E).
    """

    keys: torch.Tensor
    table: torch.Tensor

    def __init__(self, keys: torch.Tensor, vectors: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("keys", keys)
        self.register_buffer("table", vectors)
        self.adapter = AdapterWeights()

    def attach(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Make the adapter's own weights parameters of the network: optimizer, DDP and checkpoint then see them."""
        self.adapter.update({name.replace(".", "/"): weight for name, weight in weights.items()})

    def fill(self, vectors: torch.Tensor) -> None:
        """Put new embeddings (N, E) in."""
        self.table.copy_(vectors)

    def forward(self, prompts: Prompts) -> Prompts:
        """Give prompts the embeddings of their rows; those of a training step carry their own and have no rows.

        Raises:
            PromptError: Outside of training, a prompt has no row.
        """
        if prompts.rows is not None:
            context, targets = (self.table[rows].flatten(-2) for rows in prompts.rows)
            return Prompts(context, targets)
        if not self.training:
            raise PromptError(
                "This model was trained together with its text encoder, so it understands the prompts of its plans "
                "only; another text, embedded by the encoder as it was before, would mean something else to it. "
                "Choose among the model's targets and contexts."
            )
        return prompts

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        found = state_dict.get(prefix + "keys")
        if found is None or not torch.equal(found.cpu(), self.keys.cpu()):
            there = "no table of embeddings" if found is None else f"embeddings of {len(found)} other texts"
            raise ModelError(
                f"The checkpoint has {there}; the plans have {len(self.keys)} texts and an adapted text encoder "
                "(settings.text_adapter). Plans and checkpoint are of different trainings: use the plans that the "
                "checkpoint was trained with, or train this fold again."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
