"""Prompts in words: a context or a target becomes its sentence and its paraphrases.

T1 and T2 are worded as in the paper. Paraphrases come from templates: the same entry always gives the same texts.
The other way, a text of the user's own becomes the sentence and the bare name that steer the network.

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
    """Write a prompt as the paper does: "A computed tomography of abdomen"."""
    article = "An" if modality[:1].casefold() in "aeiou" else "A"
    return f"{article} {modality} of {subject}"


def fill_paraphrase(text: str, modality: str, region: str) -> str:
    """Put modality and region into a paraphrase written by hand."""
    return text.replace("{modality}", modality).replace("{region}", region)


def context_sentences(context: Context) -> tuple[str, ...]:
    """List the wordings of a context: T1 first, then its paraphrases, hand-written ones before templates."""
    filled = [template.format(modality=context.modality, region=context.region) for template in _CONTEXT_TEMPLATES]
    return _unique(context.prompt, *context.paraphrases, *filled)


def target_sentences(context: Context, target: Target) -> tuple[str, ...]:
    """List the wordings of a target in a context: T2 first, then paraphrases by hand, by template and by synonym."""
    by_hand = [fill_paraphrase(text, context.modality, context.region) for text in target.paraphrases]
    filled = [template.format(modality=context.modality, name=target.name) for template in _TARGET_TEMPLATES]
    synonyms = [compose_prompt(context.modality, synonym) for synonym in target.synonyms]
    return _unique(compose_prompt(context.modality, target.name), *by_hand, *filled, *synonyms)


def split_text(text: str, modality: str, modalities: Iterable[str] = ()) -> tuple[str, str]:
    """Make of a text the two that a target is steered by: a sentence that names a modality, and a bare name.

    A sentence worded like T2 or one of its templates stays as it is, and the structure's name is read out of it.
    Another text that names a modality stands for both. A text without one is a name, from which T2 is composed.

    Args:
        text: The user's own words.
        modality: That of the context, for a text that names none.
        modalities: Others that the text may name.
    """
    text = " ".join(text.split())
    known = sorted({modality, *modalities}, key=len, reverse=True)
    if not any(one.casefold() in text.casefold() for one in known):
        name = _ARTICLE.sub("", text)
        return compose_prompt(modality, name), name
    return text, _find_name(text, known) or text


def _find_name(text: str, modalities: Iterable[str]) -> str | None:
    """Read a structure's name out of a sentence; None if no template could have written the sentence."""
    templates = sorted(("{modality} of {name}", *_TARGET_TEMPLATES), key=len, reverse=True)
    for modality in modalities:
        for template in templates:
            pattern = re.escape(template).replace(r"\{name\}", "(?P<name>.+)")
            pattern = pattern.replace(r"\{modality\}", rf"(?:(?:an?|the)\s+)?{re.escape(modality)}")
            found = re.fullmatch(pattern, text.rstrip(". "), re.IGNORECASE)
            if found:
                return _ARTICLE.sub("", found["name"])
    return None


def entry_texts(entry: Entry) -> tuple[str, ...]:
    """List every text that an entry can ask an encoder for: names and all wordings, each once."""
    contexts = tuple(entry.contexts.values())
    names = [target.name for target in entry.targets]
    about_contexts = [text for context in contexts for text in context_sentences(context)]
    about_targets = [
        text for context in contexts for target in entry.targets for text in target_sentences(context, target)
    ]
    return _unique(*names, *about_contexts, *about_targets)


def _unique(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
