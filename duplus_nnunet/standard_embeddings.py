"""Decodes the embeddings in plans, and standardises them as the network takes them."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_form import EmbeddingCentre, PlansForm

Vector = np.ndarray[Any, np.dtype[np.float32]]


def decode_vector(text: str) -> Vector:
    """Read an embedding written by `prompt_bank.encode_vector`, as float32."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)


class StandardEmbeddings:
    """Standardised embeddings of the texts of plans, each decoded on first use.

    Args:
        form: The section `duplus` of the plans.
        entries: N pairs of a kind (`context`, `sentence`, `name`) and a text. Their embeddings are rows of one matrix,
            so that those of a batch are taken at once.

    Attributes:
        length: Length E of an embedding.
    """

    def __init__(self, form: PlansForm, entries: Sequence[tuple[str, str]]) -> None:
        centres = form.centres
        self._stored = form.embeddings
        self._centres = {"context": centres.context, "sentence": centres.sentence, "name": centres.name}
        self._offsets = {kind: decode_vector(centre.centre) for kind, centre in self._centres.items()}
        self._directions = {kind: _read_directions(centre) for kind, centre in self._centres.items()}
        self.length = len(self._offsets["context"])
        self._entries = entries
        self._rows = {entry: row for row, entry in enumerate(entries)}
        self._matrix = np.empty((len(entries), self.length), dtype=np.float32)
        self._is_decoded = np.zeros(len(entries), dtype=bool)
        self._others: dict[tuple[str, str], Vector] = {}

    def find_rows(self, pairs: Sequence[tuple[str, str]]) -> list[int] | None:
        """Return the row of each pair of a kind and a text; None if one is not among the entries."""
        try:
            return [self._rows[pair] for pair in pairs]
        except KeyError:
            return None

    def take(self, rows: Sequence[int]) -> Vector:
        """Return the embeddings of entries by their rows, (N, E), as a copy.

        Raises:
            PlansError: The plans contain no embedding of one of the texts.
        """
        chosen = np.asarray(rows)
        for row in np.unique(chosen[~self._is_decoded[chosen]]).tolist():
            kind, text = self._entries[row]
            self._matrix[row] = self._decode(kind, text)
            self._is_decoded[row] = True
        return np.asarray(self._matrix[chosen], dtype=np.float32)

    def embed(self, kind: str, text: str) -> Vector:
        """Return the embedding of a text (E), whether or not it is among the entries; it is not to be changed.

        Raises:
            PlansError: The plans contain no embedding of the text.
        """
        row = self._rows.get((kind, text))
        if row is not None:
            return np.asarray(self.take([row])[0])
        if (kind, text) not in self._others:
            self._others[kind, text] = self._decode(kind, text)
        return self._others[kind, text]

    def standardise(self, vectors: torch.Tensor, kind: str) -> torch.Tensor:
        """Standardise a text encoder's embeddings of texts of a kind, (N, E) or (E), as the network takes them."""
        standardised = (vectors - torch.from_numpy(self._offsets[kind]).to(vectors.device)) * self._centres[kind].scale
        stretched = self._directions[kind]
        if stretched is None:
            return standardised
        directions, gains = (part.to(vectors.device) for part in stretched)
        return standardised + (standardised @ directions.T * (gains - 1)) @ directions

    def _decode(self, kind: str, text: str) -> Vector:
        stored = self._stored.get(text)
        if stored is None:
            raise PlansError(
                f"The plans contain no embedding of {text!r}. Plan the dataset again so that every prompt is embedded."
            )
        return np.asarray(self.standardise(torch.from_numpy(decode_vector(stored)), kind).numpy())


def _read_directions(centre: EmbeddingCentre) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Read unit directions (D, E) and the gain along each (D); None if embeddings are not whitened."""
    if not centre.directions:
        return None
    gains = torch.tensor(centre.gains)
    return torch.from_numpy(decode_vector(centre.directions).reshape(len(gains), -1)), gains
