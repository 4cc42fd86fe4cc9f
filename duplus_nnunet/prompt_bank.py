"""The prompts that travel in the plans: in comes the part `duplus` of a plans file, out come tensors to bind."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import PlansError, PromptError, say_unknown
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.plans_form import check_form
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.settings import find_section

Vector = np.ndarray[Any, np.dtype[np.float32]]


def encode_vector(vector: Vector) -> str:
    """Write an embedding as text: little-endian float16, base64."""
    return base64.b64encode(np.asarray(vector, dtype="<f2").tobytes()).decode("ascii")


def decode_vector(text: str) -> Vector:
    """Read an embedding written by encode_vector, as float32."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)


def measure_centre(vectors: Sequence[Vector]) -> dict[str, Any]:
    """Measure what to subtract and to multiply by so that several embeddings differ as much as they can.

    Sentences of one template are alike (cosine of a left/right pair 0.97); centred, they are not. A single one is
    only scaled.
    """
    stacked = np.stack(list(vectors))
    distinct = len(np.unique(stacked, axis=0)) > 1
    centre = stacked.mean(0) if distinct else np.zeros_like(stacked[0])
    spread = float(np.sqrt(np.mean((stacked - centre) ** 2)))
    return {"centre": encode_vector(centre), "scale": 1 / max(spread, 1e-4)}


class PromptBank:
    """All prompts of a model and their embeddings.

    Args:
        plans: A plans file's content.

    Raises:
        PlansError: The plans hold no prompts, or were changed so that they cannot be used.
    """

    def __init__(self, plans: Mapping[str, Any]) -> None:
        section = find_section(plans)
        check_form(section, plans.get("plans_name"))
        self.contexts: Mapping[str, Any] = section["contexts"]
        self.targets: Sequence[Mapping[str, Any]] = section["targets"]
        self.default_context: str = section["default_context"]
        self._embeddings: Mapping[str, str] = section["embeddings"]
        self._centres = {
            kind: (decode_vector(found["centre"]), float(found["scale"])) for kind, found in section["centres"].items()
        }

    @property
    def names(self) -> list[str]:
        """Names of all targets, in the order of dataset.json."""
        return [target["name"] for target in self.targets]

    @property
    def labels(self) -> list[str]:
        """Names that dataset.json gives the targets, in the same order."""
        return [target["label"] for target in self.targets]

    @property
    def embedding(self) -> tuple[int, int]:
        """Lengths (E, F) of a context and of a target embedding."""
        single = len(next(iter(self._centres.values()))[0])
        return single, 2 * single

    @property
    def has_sides(self) -> bool:
        """Whether some target is one of a left/right pair."""
        return any(target.get("partner") for target in self.targets)

    def find_context(self, name: str | None) -> str:
        """Return the key of a context, in any case; the default one for None.

        Raises:
            PromptError: There is no such context; the message lists all.
        """
        if name is None:
            return self.default_context
        known = {key.casefold(): key for key in self.contexts}
        if name.strip().casefold() not in known:
            raise PromptError(say_unknown("context", name, self.contexts))
        return known[name.strip().casefold()]

    def find_targets(self, asked: Sequence[str]) -> list[str]:
        """Return the names of targets given by name, label or synonym, in the order of dataset.json.

        Raises:
            PromptError: There is no such target; the message lists all, nearest first.
        """
        known: dict[str, str] = {}
        for target in self.targets:
            for word in (target["name"], target["label"], *target.get("synonyms", ())):
                known.setdefault(normalise(word), target["name"])
        for word in asked:
            if normalise(word) not in known:
                raise PromptError(say_unknown("target", word, self.names))
        chosen = {known[normalise(word)] for word in asked}
        return [name for name in self.names if name in chosen]

    def draw(
        self,
        context: str | None = None,
        targets: Sequence[str] | None = None,
        rng: np.random.Generator | None = None,
        probability: float = 0.0,
    ) -> Prompts:
        """Put prompts together.

        Args:
            context: Key of a context; None is the default one.
            targets: Names of targets; None is all of them.
            rng: Draws paraphrases; without it the answer is always T1 and T2 themselves.
            probability: Share of prompts, 0 to 1, that a paraphrase stands in for.

        Returns:
            Prompts for all images alike: context (1, E), targets (K, F).
        """
        key = self.find_context(context)
        found = self.contexts[key]
        names = self.names if targets is None else list(targets)

        def choose(sentences: Sequence[str]) -> str:
            paraphrase = rng is not None and len(sentences) > 1 and rng.random() < probability
            return sentences[int(rng.integers(1, len(sentences)))] if paraphrase and rng is not None else sentences[0]

        t1 = self._vector(choose(found["sentences"]), "context")
        rows = [
            np.concatenate([self._vector(choose(found["target_prompts"][n]), "sentence"), self._vector(n, "name")])
            for n in names
        ]
        return Prompts(torch.from_numpy(t1)[None], torch.from_numpy(np.stack(rows)))

    def _vector(self, text: str, kind: str) -> Vector:
        if text not in self._embeddings:
            raise PlansError(
                f"The plans hold no embedding of {text!r}. Plan the dataset again so that every prompt is embedded."
            )
        centre, scale = self._centres[kind]
        vector: Vector = (decode_vector(self._embeddings[text]) - centre) * np.float32(scale)
        return vector
