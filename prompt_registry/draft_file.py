"""Writes an entry as a prompts.yaml with comments on what the user should review."""

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
# No Python is needed to edit this file. Lines marked "review" could not be derived from dataset.json.
# After a change run:  duplus prompts check {dataset}
"""
_TARGETS_HEAD = """\
# Each key is the name of a structure in plain English. Optional keys below it:
#   labels:      its keys in dataset.json, if they differ from the name
#   synonyms:    other names that a radiologist would use
#   paraphrases: other wordings; {modality} and {region} are filled in
#   partner:     the structure that it becomes in a mirror image (left and right are paired automatically)
#   regions:     parts of the body that it may lie in, such as [neck, thorax] or [anywhere]; images of parts far from
#                them cannot show it
#   missing:     "absent" or "not annotated", if it differs from the key `missing` above
# Several contexts need rules that say which cases have them, below each context:
#   cases:       case names, or regular expressions that match whole names
#   ids:         ranges of the last number in a name, such as [1-500]
#   not_annotated: targets that were not annotated in these cases
"""


def write_draft(entry: Entry) -> str:
    """Write an entry as the text of a registry file with comments; `duplus prompts check` accepts it as it is.

    Names that are mere numbers are marked, and have to be changed first.
    """
    lines = [
        _HEAD.format(dataset=entry.dataset, origin=entry.origin.replace("\n", " ")),
        f"dataset: {_quote(entry.dataset)}",
        f"source: {_quote(entry.source or 'own data')}  # review: paper or page that describes the labels",
        f"missing: {_common_missing(entry)}  # review: is a label that a case lacks absent, or not annotated?",
        "contexts:",
        *(line for context in entry.contexts.values() for line in _write_context(context)),
        f"default_context: {_quote(entry.default_context)}",
        _TARGETS_HEAD + "targets:",
        *(line for target in entry.targets for line in _write_target(target, entry)),
    ]
    return "\n".join(lines) + "\n"


def _write_context(context: Context) -> Iterator[str]:
    is_modality_known = context.modality != UNKNOWN_MODALITY
    yield f"  {_quote(context.name)}:"
    yield f"    modality: {_quote(context.modality)}" + (
        "" if is_modality_known else "  # review: spell out the modality"
    )
    is_region_known = context.region != UNKNOWN_REGION
    yield f"    region: {_quote(context.region)}" + ("" if is_region_known else "  # review: which part of the body?")
    if context.prompt != compose_prompt(context.modality, context.region):
        yield f"    prompt: {_quote(context.prompt)}"
    if context.channel is not None:
        yield f"    channel: {_quote(context.channel)}"
    if context.cases:
        yield f"    cases: {_list(context.cases)}"
    if context.ids:
        yield f"    ids: {_list(f'{low}-{high}' for low, high in context.ids)}"
    if context.not_annotated:
        yield f"    not_annotated: {_list(context.not_annotated)}"
    if context.regions:
        yield f"    regions: {_list(context.regions)}"
    if context.paraphrases:
        yield f"    paraphrases: {_list(context.paraphrases)}"


def _write_target(target: Target, entry: Entry) -> Iterator[str]:
    one_sided = target.partner is None and needs_partner(target.name)
    drafted = target.name != " ".join(target.label.split()).casefold()
    note = "  # review: spelled out from the label" if drafted and not entry.source else ""
    if normalise(target.name).isdigit():
        note = f"  # review: a number names no structure; write its name, with `labels: [{json.dumps(target.label)}]`"
    yield f"  {_quote(target.name)}:{note}"
    if normalise(target.label) != normalise(target.name):
        yield f"    labels: {_list([target.label])}"
    yield f"    synonyms: {_list(target.synonyms)}"
    if target.paraphrases:
        yield f"    paraphrases: {_list(target.paraphrases)}"
    names = [other.name for other in entry.targets]
    if target.partner is not None and target.partner != find_partner(target.name, names):
        yield f"    partner: {_quote(target.partner)}"
    if one_sided:
        yield f"    partner: {NO_PARTNER}  # review: the other side is not a target; a mirror image keeps this name"
    if target.regions:
        yield f"    regions: {_list(target.regions)}"
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
