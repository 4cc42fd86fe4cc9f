"""Targets in the user's own words: finds the known target that a text means, or encodes the text as a new target.

A text that is a name, synonym or wording of a known target means that target. Any other text is encoded by the model's
own text encoder, gets its own label value, and is reported as not seen in training, with its nearest known targets.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duplus_nnunet.errors import EncoderError, PromptError
from duplus_nnunet.prompt_bank import PromptBank, encode_vector
from duplus_nnunet.prompt_registry import EncoderIdentity, embed
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.schema import MODALITIES
from duplus_nnunet.prompt_registry.sentences import split_text
from duplus_nnunet.standard_embeddings import Vector, decode_vector

# nnU-Net holds label maps in signed 16-bit integers in between.
LARGEST_LABEL = 32767
_RESERVED = ("background", "ignore")
_NEAREST = 3


@dataclass(frozen=True)
class NewTarget:
    """A target that the model was not trained on.

    Attributes:
        text: As typed; its label in dataset.json.
        sentence: Target prompt that is encoded.
        name: Bare name that is encoded beside the target prompt.
        value: Its label value, which no other target has.
        nearest: Known targets and their similarity, the mean of the two cosines (-1 to 1), most alike first.
    """

    text: str
    sentence: str
    name: str
    value: int
    nearest: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Reading:
    """What the user's texts stand for.

    Attributes:
        known: Text as typed -> name of the known target that it means.
        new: The other texts.
        bank: The model's prompts, with the embeddings of the new texts.
    """

    known: Mapping[str, str]
    new: tuple[NewTarget, ...]
    bank: PromptBank


def read_texts(
    bank: PromptBank,
    labels: Mapping[str, Any],
    context: str,
    texts: Sequence[str],
    encoder: str | None = None,
) -> Reading:
    """Resolve texts to targets; the text encoder is loaded only if one of them is new.

    Args:
        bank: The model's prompts.
        labels: Labels of its dataset.json.
        context: Key of the context that is predicted in.
        texts: The user's own words.
        encoder: Where the model's own text encoder is, if not where it was at planning.

    Raises:
        PromptError: A text is empty, or may mean several targets.
        EncoderError: A text is new and the model's own text encoder is missing, is another one, or was adapted in
            training.
    """
    known: dict[str, str] = {}
    new: dict[tuple[str, str], NewTarget] = {}
    value = find_free_value(labels)
    for text in _clean(texts):
        sentence, name = _split(bank, context, text)
        target = find_known(bank, context, text) or find_known(bank, context, name)
        if target is not None:
            known[text] = target
            continue
        key = normalise(sentence), normalise(name)
        new.setdefault(key, NewTarget(text, sentence, name, value + len(new)))
    _check_values(new.values())
    if not new:
        return Reading(known, (), bank)
    _require_unadapted(bank, new.values())
    vectors = _encode(bank, list(new.values()), encoder)
    ranked = tuple(_rank(bank, context, target, vectors) for target in new.values())
    return Reading(known, ranked, bank.extend({text: encode_vector(vector) for text, vector in vectors.items()}))


def find_free_value(labels: Mapping[str, Any]) -> int:
    """Return the label value after the largest that dataset.json knows, the ignore label included."""
    return 1 + max(int(value) for values in labels.values() for value in np.ravel(values))


def find_known(bank: PromptBank, context: str, text: str) -> str | None:
    """Find the known target that a text means: a name, label, synonym, sentence or paraphrase in any case and spacing.

    Args:
        bank: The model's prompts.
        context: Key of the context whose wordings count before those of the others.
        text: What a user typed.

    Raises:
        PromptError: The text means several targets.
    """
    names = {
        target.name: {normalise(word) for word in (target.name, target.label, *target.synonyms)}
        for target in bank.targets
    }
    others = [key for key in bank.contexts if key != context]
    for wordings in (names, *(_wordings(bank, key) for key in (context, *others))):
        matches: list[str] = [name for name, words in wordings.items() if normalise(text) in words]
        if len(matches) > 1:
            listed = ", ".join(map(repr, matches))
            raise PromptError(f"The prompt {text!r} may mean any of {listed}. Name one of them by --targets.")
        if matches:
            return matches[0]
    return None


def describe_reading(reading: Reading, values: Mapping[str, Any]) -> str:
    """Describe to the user what each text was resolved to.

    Args:
        reading: What the texts stand for.
        values: Name of a known target -> its label value.
    """
    lines = [
        f"{text!r} is the known target {name!r} (label value {values[name]})." for text, name in reading.known.items()
    ]
    for target in reading.new:
        nearest = ", ".join(f"{name} {cosine:.2f}" for name, cosine in target.nearest)
        lines += [
            f"{target.text!r} was not seen in training; its label value is {target.value}.",
            f"  encoded: the sentence {target.sentence!r} and the name {target.name!r}",
            f"  nearest known targets (cosine, 1 = the same to the encoder): {nearest}",
            "  How accurate the network is for a text that it was not trained on is unknown: inspect the mask.",
        ]
    return "".join(f"{line}\n" for line in lines)


def _clean(texts: Sequence[str]) -> Iterator[str]:
    """Yield texts without surplus spaces, each once."""
    seen = set()
    for index, text in enumerate(texts, 1):
        if not normalise(text):
            raise PromptError(
                f"The prompt {index} of {len(texts)} is empty ({text!r}). Write what is to be segmented, such as "
                '--prompt "A computed tomography of spleen".'
            )
        if normalise(text) in _RESERVED:
            raise PromptError(f"The prompt {text!r} is a reserved word in nnU-Net's dataset.json. Name a structure.")
        cleaned = " ".join(text.split())
        if normalise(cleaned) not in seen:
            yield cleaned
        seen.add(normalise(cleaned))


def _split(bank: PromptBank, context: str, text: str) -> tuple[str, str]:
    modalities = [planned.modality for planned in bank.contexts.values()]
    return split_text(text, bank.contexts[context].modality, [*modalities, *MODALITIES])


def _wordings(bank: PromptBank, context: str) -> dict[str, set[str]]:
    return {name: set(map(normalise, texts)) for name, texts in bank.contexts[context].target_prompts.items()}


def _check_values(new: Iterable[NewTarget]) -> None:
    for target in new:
        if target.value > LARGEST_LABEL:
            raise PromptError(
                f"The prompt {target.text!r} would get the label value {target.value}, but nnU-Net holds none above "
                f"{LARGEST_LABEL}. Lower the label values of the model's dataset.json, or predict it in a call of its "
                "own."
            )


def _require_unadapted(bank: PromptBank, new: Iterable[NewTarget]) -> None:
    if bank.settings.text_adapter.enabled:
        raise EncoderError(
            f"The model knows no target by {', '.join(repr(target.text) for target in new)}, and its text encoder was "
            "trained along with it (settings.text_adapter), so that the encoder as it was before would mean something "
            "else. Choose among the model's targets: --list-targets shows them."
        )


def _encode(bank: PromptBank, new: Sequence[NewTarget], encoder: str | None) -> dict[str, Vector]:
    """Embed the new texts by the model's own encoder, and round them as the plans do."""
    identity = EncoderIdentity.from_dict(bank.form.encoder or {})
    texts = list(dict.fromkeys(text for target in new for text in (target.sentence, target.name)))
    try:
        vectors, _ = embed(texts, encoder, expected=identity)
    except EncoderError as error:
        raise EncoderError(
            f"{error}\nThe model knows no target by {', '.join(repr(target.text) for target in new)}, and for a new "
            f"text it needs its own text encoder: {identity.name!r}, pooling {identity.pooling!r}, SHA-256 "
            f"{identity.sha256[:12]}... If it is in another folder now, name that with --encoder. Known targets need "
            "none: --list-targets shows them."
        ) from error
    return {text: decode_vector(encode_vector(vector)) for text, vector in zip(texts, vectors, strict=True)}


def _rank(bank: PromptBank, context: str, target: NewTarget, vectors: Mapping[str, Vector]) -> NewTarget:
    """Compare a new target with the known ones, as `duplus prompts similar` does."""
    embeddings = bank.form.embeddings
    similarities = []
    for name, texts in bank.contexts[context].target_prompts.items():
        sentence, bare = (decode_vector(embeddings[text]) for text in (texts[0], name))
        cosine = (_cosine(vectors[target.sentence], sentence) + _cosine(vectors[target.name], bare)) / 2
        similarities.append((name, cosine))
    nearest = tuple(sorted(similarities, key=lambda pair: -pair[1])[:_NEAREST])
    return NewTarget(target.text, target.sentence, target.name, target.value, nearest)


def _cosine(first: Vector, second: Vector) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
