"""Composes the prompts and paraphrases of contexts and targets, and reads the name of a structure from a user's text.

Context prompts (T1 in the paper) and target prompts (T2) are worded as in the paper; further paraphrases come from
templates.

Source: DuPLUS, arXiv 2510.03483, section on dual prompts.
"""

import re
from collections.abc import Iterable

from duplus_nnunet.prompt_registry.entries import Context, Entry, Target

_CONTEXT_TEMPLATES = (
    "{region} in {modality}",
    "{modality} of the {region}",
    "an image of the {region} made by {modality}",
    "the modality is {modality} and the body region is {region}",
    "{region}, {modality}",
)
_TARGET_TEMPLATES = (
    "{name} in {modality}",
    "{modality} showing the {name}",
    "the {name} in this {modality}",
    "segment the {name} in {modality}",
    "outline of the {name} on {modality}",
)
_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)


def compose_prompt(modality: str, subject: str) -> str:
    """Compose a prompt as in the paper: "A computed tomography of abdomen".

    Example:
        >>> compose_prompt("computed tomography", "abdomen")
        'A computed tomography of abdomen'
        >>> compose_prompt("ultrasound", "left kidney")
        'An ultrasound of left kidney'
    """
    article = "An" if modality[:1].casefold() in "aeiou" else "A"
    return f"{article} {modality} of {subject}"


def fill_paraphrase(text: str, modality: str, region: str) -> str:
    """Fill in the modality and region of a paraphrase written by hand."""
    return text.replace("{modality}", modality).replace("{region}", region)


def context_sentences(context: Context) -> tuple[str, ...]:
    """List the wordings of a context: the context prompt, its paraphrases by hand, and those by template."""
    filled = [template.format(modality=context.modality, region=context.region) for template in _CONTEXT_TEMPLATES]
    return _unique(context.prompt, *context.paraphrases, *filled)


def target_sentences(context: Context, target: Target) -> tuple[str, ...]:
    """List the wordings of a target in a context: the target prompt, then those by hand, template and synonym."""
    by_hand = [fill_paraphrase(text, context.modality, context.region) for text in target.paraphrases]
    filled = [template.format(modality=context.modality, name=target.name) for template in _TARGET_TEMPLATES]
    synonyms = [compose_prompt(context.modality, synonym) for synonym in target.synonyms]
    return _unique(compose_prompt(context.modality, target.name), *by_hand, *filled, *synonyms)


def split_text(text: str, modality: str, modalities: Iterable[str] = ()) -> tuple[str, str]:
    """Split a user's text into the sentence and the bare name that steer the network.

    A sentence worded like the target prompt or one of its templates is kept, and the name is read from it. Another
    text with a modality is used as both. A text without one is a name, from which the target prompt is composed.

    Args:
        text: The user's text.
        modality: Modality of the context, for a text without one.
        modalities: Further modalities that the text may contain.

    Returns:
        The sentence and the bare name.
    """
    text = " ".join(text.split())
    known = sorted({modality, *modalities}, key=len, reverse=True)
    if not any(candidate.casefold() in text.casefold() for candidate in known):
        name = _ARTICLE.sub("", text)
        return compose_prompt(modality, name), name
    return text, _find_name(text, known) or text


def _find_name(text: str, modalities: Iterable[str]) -> str | None:
    """Read the name of a structure from a sentence; None if the sentence matches no template."""
    templates = sorted(("{modality} of {name}", *_TARGET_TEMPLATES), key=len, reverse=True)
    for modality in modalities:
        for template in templates:
            pattern = re.escape(template).replace(r"\{name\}", "(?P<name>.+)")
            pattern = pattern.replace(r"\{modality\}", rf"(?:(?:an?|the)\s+)?{re.escape(modality)}")
            match = re.fullmatch(pattern, text.rstrip(". "), re.IGNORECASE)
            if match:
                return _ARTICLE.sub("", match["name"])
    return None


def entry_texts(entry: Entry) -> tuple[str, ...]:
    """List every text of an entry that needs an embedding: names and all wordings, each once."""
    contexts = tuple(entry.contexts.values())
    names = [target.name for target in entry.targets]
    about_contexts = [text for context in contexts for text in context_sentences(context)]
    about_targets = [
        text for context in contexts for target in entry.targets for text in target_sentences(context, target)
    ]
    return _unique(*names, *about_contexts, *about_targets)


def _unique(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
