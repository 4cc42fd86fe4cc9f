"""Turns the prompts in a plans file into the tensors that a conditioned network is bound to."""

import base64
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from duplus_nnunet.errors import PromptError, describe_unknown
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.plans_form import PlannedContext, PlannedTarget, PlansForm, as_form
from duplus_nnunet.prompt_registry.names import have_sides, needs_partner, normalise
from duplus_nnunet.prompt_registry.store import key_of
from duplus_nnunet.settings import parse_settings
from duplus_nnunet.standard_embeddings import StandardEmbeddings, Vector

# Context prompt, and for each target its target prompt and its name.
Texts = tuple[str, list[tuple[str, str]]]

# A direction is noise if embeddings differ along it by a factor of this less than along the main one.
_LARGEST_GAIN = 16.0
# Root mean square of a centred embedding's numbers. The step that gradient descent takes for a prompt grows with its
# square: at 1, left and right kidney were separated many epochs later than liver and spleen.
_SPREAD = 2.0


def encode_vector(vector: Vector) -> str:
    """Write an embedding as text: little-endian float16, base64."""
    return base64.b64encode(np.asarray(vector, dtype="<f2").tobytes()).decode("ascii")


def measure_centre(vectors: Sequence[Vector], whiten: bool = False) -> dict[str, Any]:
    """Compute the centre and the scale by which embeddings are standardised.

    Sentences of one template have similar embeddings (cosine of a left/right pair: 0.97); centred embeddings differ. A
    single embedding is only scaled. The root mean square is the same after scaling, whatever the embeddings.

    Args:
        vectors: The embeddings, each of shape (E).
        whiten: Also equalise the spread over all directions, so that any two embeddings are equally far apart: a left
            kidney then differs from a right one as much as from a spine.

    Returns:
        Content of an EmbeddingCentre, as plain data.
    """
    stacked = np.stack(list(vectors))
    distinct = len(np.unique(stacked, axis=0)) > 1
    centre = stacked.mean(0) if distinct else np.zeros_like(stacked[0])
    spread = float(np.sqrt(np.mean((stacked - centre) ** 2)))
    content: dict[str, Any] = {"centre": encode_vector(centre), "scale": _SPREAD / max(spread, 1e-4)}
    return {**content, **_measure_directions(stacked - centre)} if whiten and distinct else content


def _measure_directions(centred: Vector) -> dict[str, Any]:
    """Compute the gain of each direction in which embeddings differ, such that their overall spread is unchanged."""
    _, lengths, directions = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    kept = lengths > lengths[0] / _LARGEST_GAIN
    gains = np.sqrt(np.mean(lengths[kept] ** 2)) / lengths[kept]
    return {"directions": encode_vector(directions[kept].ravel()), "gains": [round(float(gain), 4) for gain in gains]}


def _name_opposite(name: str, partner: str | None) -> str | None:
    """Name a target in a mirror image; None if it lies on one side and has no partner in the model."""
    return partner or (None if needs_partner(name) else name)


def _choose_text(sentences: Sequence[str], number: float, probability: float) -> str:
    """Choose the prompt, or one of its paraphrases, by a uniform random number in [0, 1)."""
    if number >= probability or len(sentences) == 1:
        return sentences[0]
    return sentences[1 + int(number / probability * (len(sentences) - 1))]


class PromptBank:
    """All prompts of a model and their embeddings.

    Args:
        plans: A plans file's content, or its form.

    Attributes:
        form: The section `duplus` of the plans.
        settings: Settings of the run.
        contexts: Contexts by key.
        targets: Targets, in the order of dataset.json.
        names: Their names.
        default_context: Key of the context that is used where none is named.
        entries: N pairs of a kind (`context`, `sentence`, `name`) and a text: all that can be drawn, paraphrases
            included. The row of a text in a TextTable is its index here.

    Raises:
        PlansError: The plans contain no prompts, or an edit made them unusable.
    """

    def __init__(self, plans: Mapping[str, Any] | PlansForm) -> None:
        self.form = as_form(plans)
        self.settings = parse_settings(self.form.settings, self.form.settings_version)
        self.contexts: Mapping[str, PlannedContext] = self.form.contexts
        self.targets: Sequence[PlannedTarget] = self.form.targets
        self.default_context = self.form.default_context
        self._uses_context_text = self.settings.context_prompt == "text"
        self._one_hot = self.settings.target_prompt == "one-hot"
        self._names_alone = self.settings.target_prompt == "name"
        self.names = [target.name for target in self.targets]
        self._columns = {name: column for column, name in enumerate(self.names)}
        self._opposite = {target.name: _name_opposite(target.name, target.partner) for target in self.targets}
        self.entries = self.form.list_entries()
        self._embeddings = StandardEmbeddings(self.form, self.entries)

    def extend(self, embeddings: Mapping[str, str]) -> "PromptBank":
        """Return a bank that also knows the embeddings of other texts, each as encode_vector writes it."""
        known = ChainMap(dict(embeddings), cast(dict[str, str], self.form.embeddings))
        return PromptBank(self.form.model_copy(update={"embeddings": known}))

    @property
    def keys(self) -> torch.Tensor:
        """Keys of all entries, int64 (N): 63 bits of a checksum of kind and text."""
        return torch.tensor([key_of(f"{kind}: {text}") >> 1 for kind, text in self.entries])

    @property
    def vectors(self) -> torch.Tensor:
        """Embeddings of all entries as the network takes them, (N, E)."""
        return torch.from_numpy(self._embeddings.take(range(len(self.entries))))

    @property
    def labels(self) -> list[str]:
        """Names that dataset.json gives the targets, in the same order."""
        return [target.label for target in self.targets]

    @property
    def embedding(self) -> tuple[int, int]:
        """Lengths (E, F) of a context and of a target embedding."""
        single = self._embeddings.length
        return single, len(self.targets) if self._one_hot else 2 * single

    @property
    def has_sides(self) -> bool:
        """Whether some target lies on one side of the body, so that its mirror image is another target."""
        return have_sides((target.name, target.partner) for target in self.targets)

    def find_context(self, name: str | None) -> str:
        """Return the key of a context, ignoring case; for None, the default context.

        Raises:
            PromptError: There is no such context; the message lists all.
        """
        if name is None:
            return self.default_context
        known = {key.casefold(): key for key in self.contexts}
        if name.strip().casefold() not in known:
            raise PromptError(describe_unknown("context", name, self.contexts))
        return known[name.strip().casefold()]

    def require_context(self, name: str | None) -> str:
        """Return the key of a context as find_context does, but accept None only if the model has a single context.

        Raises:
            PromptError: There is no such context, or none was named and there are several; the message lists all.
        """
        if name is None and len(self.contexts) > 1:
            listed = "; ".join(f"{key!r} ({context.sentences[0]})" for key, context in self.contexts.items())
            raise PromptError(
                f"This model was trained in {len(self.contexts)} contexts, and the context of the images is not known. "
                f"Name it with --context (or DUPLUS_CONTEXT), or give a table of cases: {listed}."
            )
        return self.find_context(name)

    def names_in(self, context: str) -> list[str]:
        """Return the names of the targets that were trained in a context, in the order of dataset.json."""
        trained = set(self.contexts[context].trained)
        return [name for name in self.names if name in trained]

    def words_in(self, context: str) -> list[str]:
        """List the names, then the labels and synonyms, by which the targets of a context may be asked for."""
        names = self.names_in(context)
        more = (word for target in self.targets if target.name in names for word in (target.label, *target.synonyms))
        return list(dict.fromkeys((*names, *more)))

    def find_targets(self, asked: Sequence[str]) -> list[str]:
        """Return the names of targets given by name, label or synonym, in the order of dataset.json.

        Raises:
            PromptError: There is no such target; the message lists all, nearest first.
        """
        known: dict[str, str] = {}
        for target in self.targets:
            for word in (target.name, target.label, *target.synonyms):
                known.setdefault(normalise(word), target.name)
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
        """Embed the prompts of targets in a context.

        Args:
            context: Key of a context; None: the default context.
            targets: Names of targets; None: all that were trained in the context.
            rng: Draws paraphrases; None: always the context prompt and the target prompts themselves.
            probability: Probability, 0 to 1, that a paraphrase replaces a prompt.

        Returns:
            The same prompts for all images: context (1, E), targets (K, F), and the rows of their entries. Without
            `rng`, prompts for mirror images come with them if all partners are known.
        """
        texts = self.choose(context, targets, rng, probability)
        names = [name for _, name in texts[1]]
        prompts = replace(self.compose(*texts), adapters=self.find_adapters(context, names))
        return prompts if rng is not None else replace(prompts, mirrored=self._mirror(context, names))

    def find_adapters(self, context: str | None, names: Sequence[str], others: int = 0) -> tuple[str, ...] | None:
        """Return the adapter that predicts each target in a context, "" for the base; None if there are no adapters.

        Args:
            context: Key of a context; None: the default context.
            names: Names of targets.
            others: Number of texts that are no target; the adapter that the context belongs to predicts them.
        """
        if all(planned.adapters is None for planned in self.contexts.values()):
            return None
        key = self.find_context(context)
        adapters = self.contexts[key].adapters or {}
        of_context = {adapters.get(name, "") for name in self.names_in(key)}
        owner = of_context.pop() if len(of_context) == 1 else ""
        return (*(adapters.get(name, "") for name in names), *[owner] * others)

    def _mirror(self, context: str | None, names: Sequence[str]) -> Prompts | None:
        """Embed the prompts of the same structures in a mirror image; None if there are none, see swap_sides_in."""
        swapped = self.swap_sides_in(context, names)
        if swapped is None:
            return None
        return replace(self.compose(*self.choose(context, swapped)), adapters=self.find_adapters(context, swapped))

    def swap_sides_in(self, context: str | None, names: Sequence[str]) -> list[str] | None:
        """Exchange left and right targets in a context.

        Returns:
            None if a target's partner has no prompt there. That of any target of the context counts, asked for or not:
            how a target is predicted must not depend on the others that are asked for.
        """
        key = self.find_context(context)
        swapped = self.swap_sides([*self.names_in(key), *names])
        if swapped is None or not set(swapped) <= self.contexts[key].target_prompts.keys():
            return None
        return swapped[len(swapped) - len(names) :]

    def swap_sides(self, names: Sequence[str]) -> list[str] | None:
        """Exchange left and right targets; None if one of them has no partner in the model."""
        swapped = [name for name in map(self.find_opposite, names) if name is not None]
        return swapped if len(swapped) == len(names) else None

    def find_opposite(self, name: str) -> str | None:
        """Return what a target is in a mirror image; None if it lies on one side and has no partner in the model."""
        return self._opposite[name] if name in self._opposite else _name_opposite(name, None)

    def choose(
        self,
        context: str | None = None,
        targets: Sequence[str] | None = None,
        rng: np.random.Generator | None = None,
        probability: float = 0.0,
    ) -> Texts:
        """Choose texts as draw does: a context prompt, and for each of K targets a target prompt and the target's name.

        Raises:
            PromptError: The context has no prompt for one of the targets.
        """
        key = self.find_context(context)
        planned = self.contexts[key]
        names = self.names_in(key) if targets is None else list(targets)
        missing = [name for name in names if name not in planned.target_prompts]
        if missing:
            raise PromptError(
                f"In the context {key!r}: {describe_unknown('target', missing[0], planned.target_prompts)}"
            )

        groups = [planned.sentences, *(planned.target_prompts[name] for name in names)]
        numbers = [1.0] * len(groups) if rng is None else rng.random(len(groups)).tolist()
        texts = [
            _choose_text(sentences, number, probability) for sentences, number in zip(groups, numbers, strict=True)
        ]
        return texts[0], list(zip(texts[1:], names, strict=True))

    def choose_batch(
        self, images: Sequence[tuple[str, Sequence[str]]], rng: np.random.Generator, probability: float
    ) -> list[Texts]:
        """Choose texts for each image of a batch, given as its context and the names of K targets.

        A target without a prompt in the image's context gets the prompt of another context: its channel is excluded
        from the loss of this image.
        """
        texts = []
        for context, names in images:
            available = self.contexts[self.find_context(context)].target_prompts
            context_prompt, pairs = self.choose(
                context, [name for name in names if name in available], rng, probability
            )
            known = {name: (sentence, name) for sentence, name in pairs}
            texts.append((context_prompt, [known.get(name) or (self._borrow(name), name) for name in names]))
        return texts

    def _borrow(self, name: str) -> str:
        """Return the target prompt of the first context that has one."""
        prompts = (context.target_prompts.get(name) for context in self.contexts.values())
        return next(sentences[0] for sentences in prompts if sentences)

    def compose_batch(self, texts: Sequence[Texts]) -> Prompts:
        """Embed the texts of each image: context (B, E), targets (B, K, F)."""
        prompts = [self.compose(*of_image) for of_image in texts]
        rows = [of_image.rows for of_image in prompts if of_image.rows is not None]
        known = len(rows) == len(prompts)
        return Prompts(
            torch.cat([of_image.context for of_image in prompts]),
            torch.stack([of_image.targets for of_image in prompts]),
            (torch.cat([context for context, _ in rows]), torch.stack([targets for _, targets in rows]))
            if known
            else None,
        )

    def compose(self, context: str, targets: Sequence[tuple[str, str]]) -> Prompts:
        """Embed texts, the same for all images: context (1, E), targets (K, F).

        Args:
            context: The context prompt, or a paraphrase of it.
            targets: K pairs of a target prompt, or a paraphrase of it, and the target's name.

        Raises:
            PlansError: The plans contain no embedding of one of the texts.
            PromptError: There is no target.
        """
        if not targets:
            raise PromptError("No target was chosen; name at least one.")
        embedding = self._embeddings.embed("context", context)
        shown = torch.from_numpy(embedding.copy() if self._uses_context_text else np.zeros_like(embedding))[None]
        if self._one_hot:
            return Prompts(shown, self._encode_numbers([name for _, name in targets]), None)
        pairs = [pair for text, name in targets for pair in (("sentence", text), ("name", name))]
        rows = self._embeddings.find_rows([("context", context), *pairs])
        if rows is None:
            vectors = np.stack([self._embeddings.embed(*pair) for pair in pairs])
        else:
            vectors = self._embeddings.take(rows[1:])
        vectors = vectors.reshape(len(targets), -1)
        if self._names_alone:
            vectors[:, : self._embeddings.length] = 0
        known = None if rows is None else torch.tensor(rows)
        found = None if known is None else (known[:1, None], known[1:].reshape(-1, 2))
        return Prompts(shown, torch.from_numpy(vectors), found)

    def _encode_numbers(self, names: Sequence[str]) -> torch.Tensor:
        """Encode the numbers of K targets one-hot, (K, F)."""
        count = len(self.targets)
        vectors = torch.zeros(len(names), count)
        for vector, name in zip(vectors, names, strict=True):
            if name not in self._columns:
                raise PromptError(
                    f"The plans set settings.target_prompt to 'one-hot', so that the model has no prompt but the "
                    f"number of a target; {name!r} is not among its targets."
                )
            # Same spread as embedded texts; the variance of a one-hot number is (1 - 1 / count) / count.
            vector[self._columns[name]] = _SPREAD * count / max(1.0, (count - 1) ** 0.5)
        return vectors

    def standardise(self, vectors: torch.Tensor, kind: str) -> torch.Tensor:
        """Standardise a text encoder's embeddings of texts of a kind, (N, E) or (E), as the network takes them."""
        return self._embeddings.standardise(vectors, kind)
