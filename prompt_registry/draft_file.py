"""A prompts.yaml for the user to review: an entry written out with comments that say what to look at.

In: an `Entry`. Out: the text of a registry file that `check` accepts as it stands.
"""

import json
import re
from collections.abc import Iterable, Iterator

from duplus_nnunet.prompt_registry.drafting import UNKNOWN_MODALITY, UNKNOWN_REGION
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target
from duplus_nnunet.prompt_registry.names import find_partner, needs_partner, normalise
from duplus_nnunet.prompt_registry.registry_file import NO_PARTNER
from duplus_nnunet.prompt_registry.sentences import compose_prompt

_PLAIN = re.compile(r"[A-Za-z][\w ()/+.-]*[\w)]|[A-Za-z]")
_YAML_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "none", "y", "n"}
_HEAD = """\
# Prompts of {dataset}, {origin}.
# Nothing here needs Python. What is marked "review" could not be read off dataset.json.
# After a change run:  duplus prompts check {dataset}
"""
_TARGETS_HEAD = """\
# Each key is a structure's name in plain English. Under it may stand:
#   labels:      its keys in dataset.json, where they differ from the name
#   synonyms:    other names that a radiologist would type
#   paraphrases: further wordings, {modality} and {region} are filled in
#   partner:     the structure that a mirror image turns it into (left and right find each other by themselves)
#   missing:     "absent" or "not annotated", where it differs from the line above
"""


def write_draft(entry: Entry) -> str:
    """Write an entry as a registry file with comments."""
    lines = [
        _HEAD.format(dataset=entry.dataset, origin=entry.origin.replace("\n", " ")),
        f"dataset: {_quote(entry.dataset)}",
        f"source: {_quote(entry.source or 'own data')}  # review: paper or page that describes the labels",
        f"missing: {_common_missing(entry)}  # review: does a label that a case lacks mean absent, or not annotated?",
        "contexts:",
        *(line for context in entry.contexts.values() for line in _write_context(context)),
        f"default_context: {_quote(entry.default_context)}",
        _TARGETS_HEAD + "targets:",
        *(line for target in entry.targets for line in _write_target(target, entry)),
    ]
    return "\n".join(lines) + "\n"


def _write_context(context: Context) -> Iterator[str]:
    known = context.modality != UNKNOWN_MODALITY
    yield f"  {_quote(context.name)}:"
    yield f"    modality: {_quote(context.modality)}" + ("" if known else "  # review: spell out the modality")
    placed = context.region != UNKNOWN_REGION
    yield f"    region: {_quote(context.region)}" + ("" if placed else "  # review: which part of the body?")
    if context.prompt != compose_prompt(context.modality, context.region):
        yield f"    prompt: {_quote(context.prompt)}"
    if context.channel is not None:
        yield f"    channel: {_quote(context.channel)}"
    if context.paraphrases:
        yield f"    paraphrases: {_list(context.paraphrases)}"


def _write_target(target: Target, entry: Entry) -> Iterator[str]:
    one_sided = target.partner is None and needs_partner(target.name)
    drafted = target.name != " ".join(target.label.split()).casefold()
    yield f"  {_quote(target.name)}:" + (
        "  # review: spelled out from the label" if drafted and not entry.source else ""
    )
    if normalise(target.label) != normalise(target.name):
        yield f"    labels: {_list([target.label])}"
    yield f"    synonyms: {_list(target.synonyms)}"
    if target.paraphrases:
        yield f"    paraphrases: {_list(target.paraphrases)}"
    names = [other.name for other in entry.targets]
    if target.partner is not None and target.partner != find_partner(target.name, names):
        yield f"    partner: {_quote(target.partner)}"
    if one_sided:
        yield f"    partner: {NO_PARTNER}  # review: there is no other side here; a mirror image keeps this name"
    if target.missing != _common_missing(entry):
        yield f"    missing: {target.missing}"


def _common_missing(entry: Entry) -> str:
    kinds = [target.missing for target in entry.targets]
    return max(dict.fromkeys(kinds), key=kinds.count)


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(_quote(text) for text in texts) + "]"


def _quote(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and text.casefold() not in _YAML_WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
