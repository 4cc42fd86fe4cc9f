"""Stores text embeddings with the weights of the network, if the text encoder is adapted in training.

Each fold then has embeddings of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from duplus_nnunet.errors import ModelError, PromptError
from duplus_nnunet.networks.prompts import Prompts


class AdapterWeights(nn.ParameterDict):
    """Weights of the text encoder's adapter, shared with the encoder in training.

    If empty, as in prediction, the weights in a checkpoint are ignored, since its table of embeddings is sufficient.
    """

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if len(self):
            super()._load_from_state_dict(*args, **kwargs)


class TextTable(nn.Module):
    """Embeddings of all texts in the plans.

    Args:
        keys: Identifiers of the texts, int64 (N).
        vectors: Initial embeddings, (N, E).
    """

    keys: torch.Tensor
    table: torch.Tensor

    def __init__(self, keys: torch.Tensor, vectors: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("keys", keys)
        self.register_buffer("table", vectors)
        self.adapter = AdapterWeights()

    def attach(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Register the weights of the text adapter as parameters of the network, for optimizer, DDP and checkpoints."""
        self.adapter.update({name.replace(".", "/"): weight for name, weight in weights.items()})

    def fill(self, vectors: torch.Tensor) -> None:
        """Set new embeddings (N, E)."""
        self.table.copy_(vectors)

    def forward(self, prompts: Prompts) -> Prompts:
        """Replace the embeddings of prompts by those of their rows; prompts without rows, in training, are unchanged.

        Raises:
            PromptError: Prompts have no rows, outside of training.
        """
        if prompts.rows is not None:
            context, targets = (self.table[rows].flatten(-2) for rows in prompts.rows)
            return Prompts(context, targets)
        if not self.training:
            raise PromptError(
                "The text encoder of this model was adapted in training, so that only the prompts in its plans can be "
                "used: the embedding of another text by the original encoder would not be valid. Choose among the "
                "targets and contexts of the model."
            )
        return prompts

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        keys = state_dict.get(prefix + "keys")
        if keys is None or not torch.equal(keys.cpu(), self.keys.cpu()):
            content = "no table of embeddings" if keys is None else f"embeddings of {len(keys)} other texts"
            raise ModelError(
                f"The checkpoint has {content}, but the plans have {len(self.keys)} texts and an adapted text encoder "
                "(settings.text_adapter): plans and checkpoint belong to different trainings. Use the plans that the "
                "checkpoint was trained with, or train this fold again."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
