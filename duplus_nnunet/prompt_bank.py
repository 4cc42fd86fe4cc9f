"""The prompts that travel in the plans: in comes the part `duplus` of a plans file, out come tensors to bind."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import PlansError, PromptError, describe_unknown
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.plans_form import check_form
from duplus_nnunet.prompt_registry.names import needs_partner, normalise
from duplus_nnunet.prompt_registry.store import key_of
from duplus_nnunet.settings import find_section, read_settings

Vector = np.ndarray[Any, np.dtype[np.float32]]
# T1, and for each target T2 and the bare name beside it.
Texts = tuple[str, list[tuple[str, str]]]

# Directions in which embeddings differ less than this many times as little as in the main one are noise.
_LARGEST_GAIN = 16.0
# What a number of an embedding varies by, root mean square. The step that gradient descent takes for a prompt grows
# with its square: at 1, a left kidney was told from a right one many epochs after a liver from a spleen.
_SPREAD = 2.0


def encode_vector(vector: Vector) -> str:
    """Write an embedding as text: little-endian float16, base64."""
    return base64.b64encode(np.asarray(vector, dtype="<f2").tobytes()).decode("ascii")


def decode_vector(text: str) -> Vector:
    """Read an embedding written by encode_vector, as float32."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)


def measure_centre(vectors: Sequence[Vector], whiten: bool = False) -> dict[str, Any]:
    """Measure what to subtract and to multiply by so that several embeddings differ as much as they can.

    Sentences of one template are alike (cosine of a left/right pair 0.97); centred, they are not. A single one is
    only scaled. All get the same spread.

    Args:
        vectors: The embeddings.
        whiten: Spread them alike in all directions too, so that any two are equally far apart: a left kidney then
            differs from a right one as much as from a spine.
    """
    stacked = np.stack(list(vectors))
    distinct = len(np.unique(stacked, axis=0)) > 1
    centre = stacked.mean(0) if distinct else np.zeros_like(stacked[0])
    spread = float(np.sqrt(np.mean((stacked - centre) ** 2)))
    found: dict[str, Any] = {"centre": encode_vector(centre), "scale": _SPREAD / max(spread, 1e-4)}
    return {**found, **_measure_directions(stacked - centre)} if whiten and distinct else found


def _measure_directions(centred: Vector) -> dict[str, Any]:
    """Measure by how much to stretch embeddings along each direction in which they differ; their spread stays."""
    _, lengths, directions = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    kept = lengths > lengths[0] / _LARGEST_GAIN
    gains = np.sqrt(np.mean(lengths[kept] ** 2)) / lengths[kept]
    return {"directions": encode_vector(directions[kept].ravel()), "gains": [round(float(gain), 4) for gain in gains]}


def _read_directions(found: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Read unit directions (D, E) and what to stretch by along them (D)."""
    gains = torch.tensor([float(gain) for gain in found["gains"]])
    return torch.from_numpy(decode_vector(found["directions"]).reshape(len(gains), -1)), gains


class PromptBank:
    """All prompts of a model and their embeddings.

    Args:
        plans: A plans file's content.

    Attributes:
        entries: N pairs of a kind (`context`, `sentence`, `name`) and a text: all that can be drawn, paraphrases
            included. A row of a TextTable is an entry's number here.

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
        self._directions = {
            kind: _read_directions(found) for kind, found in section["centres"].items() if found.get("directions")
        }
        settings = read_settings(plans)
        self._says_context = settings.context_prompt == "text"
        self._one_hot = settings.target_prompt == "one-hot"
        # A joined model's table of texts is its last adapter's, whose entries come first.
        first = [(str(kind), str(text)) for kind, text in section.get("entries", ())]
        self.entries = list(dict.fromkeys([*first, *self._list_entries()]))
        self._rows = {entry: row for row, entry in enumerate(self.entries)}

    def _list_entries(self) -> list[tuple[str, str]]:
        contexts = self.contexts.values()
        entries = [("context", text) for found in contexts for text in found["sentences"]]
        for found in contexts:
            entries += [("sentence", text) for many in found["target_prompts"].values() for text in many]
        return list(dict.fromkeys([*entries, *(("name", name) for name in self.names)]))

    @property
    def keys(self) -> torch.Tensor:
        """What tells entries apart, int64 (N): 63 bits of a checksum of kind and text."""
        return torch.tensor([key_of(f"{kind}: {text}") >> 1 for kind, text in self.entries])

    @property
    def vectors(self) -> torch.Tensor:
        """Embeddings of all entries as the network takes them, (N, E)."""
        return torch.from_numpy(np.stack([self._vector(text, kind) for kind, text in self.entries]))

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
        return single, len(self.targets) if self._one_hot else 2 * single

    @property
    def has_sides(self) -> bool:
        """Whether some target is on one side of the body, so that a mirror image of it is another one."""
        return any(target.get("partner") or needs_partner(target["name"]) for target in self.targets)

    def find_context(self, name: str | None) -> str:
        """Return the key of a context, in any case; the default one for None.

        Raises:
            PromptError: There is no such context, or none was named and there are several; the message lists all.
        """
        if name is None:
            return self.default_context
        known = {key.casefold(): key for key in self.contexts}
        if name.strip().casefold() not in known:
            raise PromptError(describe_unknown("context", name, self.contexts))
        return known[name.strip().casefold()]

    def require_context(self, name: str | None) -> str:
        """As find_context, for images of which nothing else is known: None will do only if there is one context.

        Raises:
            PromptError: There is no such context, or none was named and there are several; the message lists all.
        """
        if name is None and len(self.contexts) > 1:
            listed = "; ".join(f"{key!r} ({found['sentences'][0]})" for key, found in self.contexts.items())
            raise PromptError(
                f"This model was trained in {len(self.contexts)} contexts, and which one the images are of was not "
                f"said. Name it with --context (or DUPLUS_CONTEXT), or give a table of cases: {listed}."
            )
        return self.find_context(name)

    def names_in(self, context: str) -> list[str]:
        """Return the names of the targets that were trained in a context, in the order of dataset.json."""
        found = self.contexts[context]
        trained = found.get("targets", found["target_prompts"])
        return [name for name in self.names if name in trained]

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
                raise PromptError(describe_unknown("target", word, self.names))
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
            targets: Names of targets; None is all that were trained there.
            rng: Draws paraphrases; without it the answer is always T1 and T2 themselves.
            probability: Share of prompts, 0 to 1, that a paraphrase stands in for.

        Returns:
            Prompts for all images alike: context (1, E), targets (K, F), and the rows of their entries. Those without
            paraphrases have prompts for mirror images beside them, if all partners are known.
        """
        texts = self.choose(context, targets, rng, probability)
        names = [name for _, name in texts[1]]
        prompts = replace(self.compose(*texts), adapters=self.find_adapters(context, names))
        return prompts if rng is not None else replace(prompts, mirrored=self._mirror(context, names))

    def find_adapters(self, context: str | None, names: Sequence[str], others: int = 0) -> tuple[str, ...] | None:
        """Say whose weights answer for targets in a context, "" for the base's own; None if there are no adapters.

        Args:
            context: Key of a context; None is the default one.
            names: Names of targets.
            others: Number of texts that are no target; they are answered by the adapter whose context it is.
        """
        if not any("adapters" in found for found in self.contexts.values()):
            return None
        found = self.contexts[self.find_context(context)].get("adapters", {})
        of_context = {found.get(name, "") for name in self.names_in(self.find_context(context))}
        owner = of_context.pop() if len(of_context) == 1 else ""
        return (*(found.get(name, "") for name in names), *[owner] * others)

    def _mirror(self, context: str | None, names: Sequence[str]) -> Prompts | None:
        """Put together what names the same structures in a mirror image."""
        swapped = self.swap_sides(names)
        if swapped is None or not set(swapped) <= self.contexts[self.find_context(context)]["target_prompts"].keys():
            return None
        return replace(self.compose(*self.choose(context, swapped)), adapters=self.find_adapters(context, swapped))

    def swap_sides(self, names: Sequence[str]) -> list[str] | None:
        """Exchange left and right targets; None if a partner is missing among the targets."""
        partners = {target["name"]: target.get("partner") for target in self.targets}
        if any(needs_partner(name) and not partners.get(name) for name in names):
            return None
        return [partners.get(name) or name for name in names]

    def choose(
        self,
        context: str | None = None,
        targets: Sequence[str] | None = None,
        rng: np.random.Generator | None = None,
        probability: float = 0.0,
    ) -> Texts:
        """As draw, but give only the texts: T1, and for each of K targets T2 and the bare name beside it.

        Raises:
            PromptError: The context has no prompt for one of the targets.
        """
        key = self.find_context(context)
        found = self.contexts[key]
        names = self.names_in(key) if targets is None else list(targets)
        missing = [name for name in names if name not in found["target_prompts"]]
        if missing:
            raise PromptError(
                f"In the context {key!r}: {describe_unknown('target', missing[0], found['target_prompts'])}"
            )

        def choose(sentences: Sequence[str]) -> str:
            paraphrase = rng is not None and len(sentences) > 1 and rng.random() < probability
            return sentences[int(rng.integers(1, len(sentences)))] if paraphrase and rng is not None else sentences[0]

        t1 = choose(found["sentences"])
        return t1, [(choose(found["target_prompts"][name]), name) for name in names]

    def choose_batch(
        self, images: Sequence[tuple[str, Sequence[str]]], rng: np.random.Generator, probability: float
    ) -> list[Texts]:
        """As choose, for each image of a batch: its context, and K names.

        A name that the image's context has no prompt for borrows that of another context: it stands in a column that
        does not count for this image.
        """
        texts = []
        for context, names in images:
            there = self.contexts[self.find_context(context)]["target_prompts"]
            t1, pairs = self.choose(context, [name for name in names if name in there], rng, probability)
            known = {name: (sentence, name) for sentence, name in pairs}
            texts.append((t1, [known.get(name) or (self._borrow(name), name) for name in names]))
        return texts

    def _borrow(self, name: str) -> str:
        prompts = (context["target_prompts"].get(name) for context in self.contexts.values())
        return next(str(found[0]) for found in prompts if found)

    def compose_batch(self, texts: Sequence[Texts]) -> Prompts:
        """Turn the texts of each image into prompts: context (B, E), targets (B, K, F)."""
        prompts = [self.compose(*of_image) for of_image in texts]
        rows = [one.rows for one in prompts if one.rows is not None]
        known = len(rows) == len(prompts)
        return Prompts(
            torch.cat([one.context for one in prompts]),
            torch.stack([one.targets for one in prompts]),
            (torch.cat([t1 for t1, _ in rows]), torch.stack([t2 for _, t2 in rows])) if known else None,
        )

    def compose(self, context: str, targets: Sequence[tuple[str, str]]) -> Prompts:
        """Turn texts into prompts for all images alike: context (1, E), targets (K, F).

        Args:
            context: Wording of T1.
            targets: K pairs of a wording of T2 and the bare name that stands beside it.

        Raises:
            PlansError: The plans hold no embedding of one of them.
            PromptError: There is no target.
        """
        if not targets:
            raise PromptError("No target was chosen; name at least one.")
        t1 = self._vector(context, "context")
        t2 = [self._target_vector(text, name) for text, name in targets]
        rows = None if self._one_hot else self._find_rows(context, targets)
        shown = torch.from_numpy(t1 if self._says_context else np.zeros_like(t1))
        return Prompts(shown[None], torch.from_numpy(np.stack(t2)), rows)

    def _target_vector(self, text: str, name: str) -> Vector:
        """Join the embeddings of a wording of T2 and of the bare name; or give the target's number, one-hot."""
        if not self._one_hot:
            return np.concatenate([self._vector(text, "sentence"), self._vector(name, "name")])
        if name not in self.names:
            raise PromptError(
                f"The plans set settings.target_prompt to 'one-hot', so that the model knows targets by number only; "
                f"{name!r} is none of them."
            )
        count = len(self.targets)
        vector = np.zeros(count, dtype=np.float32)
        # As much spread as texts have; the variance of a one-hot number is (1 - 1 / count) / count.
        vector[self.names.index(name)] = _SPREAD * count / max(1.0, (count - 1) ** 0.5)
        return vector

    def _find_rows(self, context: str, targets: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Find the rows of texts in a TextTable; None if one of them is not among the entries."""
        try:
            t1 = self._rows["context", context]
            t2 = [[self._rows["sentence", text], self._rows["name", name]] for text, name in targets]
        except KeyError:
            return None
        return torch.tensor([[t1]]), torch.tensor(t2)

    def place(self, vectors: torch.Tensor, kind: str) -> torch.Tensor:
        """Turn what a text encoder gives for texts of a kind, (N, E) or (E), into what the network takes."""
        centre, scale = self._centres[kind]
        placed = (vectors - torch.from_numpy(centre).to(vectors.device)) * scale
        if kind not in self._directions:
            return placed
        directions, gains = (part.to(vectors.device) for part in self._directions[kind])
        return placed + (placed @ directions.T * (gains - 1)) @ directions

    def _vector(self, text: str, kind: str) -> Vector:
        if text not in self._embeddings:
            raise PlansError(
                f"The plans hold no embedding of {text!r}. Plan the dataset again so that every prompt is embedded."
            )
        vector: Vector = self.place(torch.from_numpy(decode_vector(self._embeddings[text])), kind).numpy()
        return vector
