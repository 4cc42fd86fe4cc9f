"""Drafts a registry entry for a dataset without a registry file, from the names in its dataset.json."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.prompt_registry.dataset_labels import channel_names, foreground_labels
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target
from duplus_nnunet.prompt_registry.names import find_partner, normalise, spell_out, strip_dataset_number
from duplus_nnunet.prompt_registry.sentences import compose_prompt

UNKNOWN_MODALITY = "medical image"
UNKNOWN_REGION = "body"
DRAFTED = "drafted from"
# Patterns match the whole normalised channel name: "T2_FLAIR" and "cineMRI" are MR, "nonCT" is not CT.
_MODALITIES = (
    (r"ct|ctscan|cect|ncct|hu", "computed tomography"),
    (r"cta|ctangiography", "contrast-enhanced computed tomography"),
    (r"cbct|conebeamct", "cone-beam computed tomography"),
    (r"pet|pt|suv|fdg|fdgpet|petsuv", "positron emission tomography"),
    (r"spect", "single-photon emission computed tomography"),
    (r"us|ultrasound|echo", "ultrasound"),
    (r"oct", "optical coherence tomography"),
    (r"mra|tof", "magnetic resonance angiography"),
    (
        r"(cine|dce|dwi|t1|t2)?mr(i|t)?|t[12].*|pd|pdw|flair|adc|dwi|dce|swi|lge|bssfp|mr.*",
        "magnetic resonance imaging",
    ),
)
_SHORT = {"computed tomography": "ct", "magnetic resonance imaging": "mr", "positron emission tomography": "pet"}


def draft_entry(dataset_name: str, dataset_json: Mapping[str, Any], folder: str | Path | None) -> Entry:
    """Draft an entry from dataset.json alone; its origin states that it was drafted.

    Raises:
        RegistryError: There is no foreground label, or two labels are equal but for case and separators.
    """
    where = describe_dataset_json(folder)
    labels = foreground_labels(dataset_json, where)
    names = _name_targets(labels)
    modality = guess_modality(channel_names(dataset_json))
    key = f"{_slug(strip_dataset_number(dataset_name))}_{_SHORT.get(modality, 'image')}"
    context = Context(key, modality, UNKNOWN_REGION, compose_prompt(modality, UNKNOWN_REGION))
    targets = tuple(
        Target(label=label, name=name, partner=find_partner(name, names))
        for label, name in zip(labels, names, strict=True)
    )
    return Entry(dataset_name, {key: context}, key, targets, f"{DRAFTED} {where}", "")


def guess_modality(channels: Sequence[str]) -> str:
    """Spell out the modality of a dataset's channels; several modalities are joined by "and"."""
    modalities = tuple(dict.fromkeys(_guess_channel_modality(channel) for channel in channels))
    if not modalities or UNKNOWN_MODALITY in modalities:
        return UNKNOWN_MODALITY
    return " and ".join(modalities)


def describe_dataset_json(folder: str | Path | None) -> str:
    """Return the path of the dataset.json in a folder, for messages."""
    return str(Path(folder) / "dataset.json") if folder is not None else "dataset.json"


def _guess_channel_modality(channel: str) -> str:
    name = normalise(channel)
    return next((modality for pattern, modality in _MODALITIES if re.fullmatch(pattern, name)), UNKNOWN_MODALITY)


def _name_targets(labels: Sequence[str]) -> tuple[str, ...]:
    """Spell out labels; those that would become equal keep their own words, which are known to differ."""
    names = [spell_out(label, labels) for label in labels]
    keys = [normalise(name) for name in names]
    return tuple(
        name if keys.count(key) == 1 else " ".join(label.replace("_", " ").split())
        for label, name, key in zip(labels, names, keys, strict=True)
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_") or "dataset"
