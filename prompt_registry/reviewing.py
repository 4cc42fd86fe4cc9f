"""Finds what a person still has to look at in a registry file: texts that say nothing, and review marks left over."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from duplus_nnunet.prompt_registry.drafting import UNKNOWN_MODALITY, UNKNOWN_REGION
from duplus_nnunet.prompt_registry.entries import Entry
from duplus_nnunet.prompt_registry.implausible import locate_context, locate_target
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.regions import can_meet
from duplus_nnunet.prompt_registry.registry_file import RegistryFile

_MARK = re.compile(r"#\s*review\b:?\s*(?P<question>.*)", re.IGNORECASE)
_EMPTY_WORDS = (
    "structure|label|class|target|object|item|region|roi|region of interest|area|part|organ|tissue|anatomy|mask|"
    "segment|segmentation|foreground|annotation|image|scan|volume|name|thing|something|unknown|other|others|misc|placeholder|"
    "todo|tbd|fixme|xxx+|test|example|foo|bar|n/?a|none"
)
# One of these words, or a single letter or number, alone or with a number behind it.
_EMPTY_NAME = re.compile(rf"(?:an? |the |my |some )?(?:{_EMPTY_WORDS}|[a-z])?[\s_.#-]*\d*", re.IGNORECASE)
_EMPTY_MODALITIES = {UNKNOWN_MODALITY, "image", "scan", "imaging", "unknown", "other"}
_EMPTY_REGIONS = {UNKNOWN_REGION, "region", "body part", "unknown", "other", "anatomy", "patient", "image"}


def find_doubts(entry: Entry, file: RegistryFile | None) -> list[str]:
    """Find texts of an entry that say nothing, targets that no context shows, and review marks in its file.

    Args:
        entry: The entry.
        file: Its registry file; None if it was drafted.

    Returns:
        A sentence each, with file and line if there is a file.
    """
    doubts = list(_find_empty_contexts(entry, file))
    doubts += _find_empty_targets(entry, file)
    doubts += _find_misplaced_targets(entry, file)
    return doubts if file is None else [*doubts, *find_marks(file.path)]


def find_marks(path: Path) -> list[str]:
    """List the review marks in a registry file, with their lines; comments of whole lines are explanations."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    marks = ((number, _MARK.search(line)) for number, line in enumerate(lines, 1) if not line.lstrip().startswith("#"))
    return [
        f"{path}:{number}: marked for review: {mark['question'].strip() or 'no question'} Decide, and remove the mark."
        for number, mark in marks
        if mark is not None
    ]


def is_empty_name(name: str) -> bool:
    """Report whether the name of a structure says nothing, such as `structure1`, `label 3` or `x`."""
    return _EMPTY_NAME.fullmatch(" ".join(name.split())) is not None


def list_numbered(entry: Entry) -> list[str]:
    """List the targets whose name is a mere number, which no text encoder can read, a sentence each."""
    return [
        f"{entry.origin}: the target {target.name!r} is a mere number, of the label {target.label!r}. Name the "
        f"structure in the prompts.yaml beside dataset.json (`duplus prompts draft {entry.dataset}` writes one), with "
        f"`labels: [{json.dumps(target.label)}]` below it."
        for target in entry.targets
        if normalise(target.name).isdigit()
    ]


def _find_empty_contexts(entry: Entry, file: RegistryFile | None) -> Iterator[str]:
    for name, context in entry.contexts.items():
        where = _locate(entry, file, "contexts", name)
        if context.modality.casefold() in _EMPTY_MODALITIES:
            yield f"{where}: the modality {context.modality!r} says nothing. Write it out: 'computed tomography'."
        if context.region.casefold() in _EMPTY_REGIONS:
            yield f"{where}: the region {context.region!r} says nothing. Name the part of the body: 'abdomen'."


def _find_empty_targets(entry: Entry, file: RegistryFile | None) -> Iterator[str]:
    for target in entry.targets:
        if is_empty_name(target.name) and not normalise(target.name).isdigit():
            where = _locate(entry, file, "targets", target.name)
            yield f"{where}: the target {target.name!r} says nothing. Give the structure its name in plain English."


def _find_misplaced_targets(entry: Entry, file: RegistryFile | None) -> Iterator[str]:
    """Find targets whose `regions` no context of the entry shows."""
    views = [locate_context(context) for context in entry.contexts.values()]
    for target in entry.targets:
        place = locate_target(target, ()) if target.regions else None
        if place is not None and not any(view is None or can_meet(place, view) for view in views):
            where, regions = _locate(entry, file, "targets", target.name), ", ".join(target.regions)
            yield f"{where}: {target.name!r} has the regions {regions}, which no context shows. Correct one of the two."


def _locate(entry: Entry, file: RegistryFile | None, *keys: str) -> str:
    return entry.origin if file is None else file.at(*keys)
