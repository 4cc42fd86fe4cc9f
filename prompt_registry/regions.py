"""Reads texts such as `head and neck` as levels of the body, and tells whether two parts of it can share an image."""

import re
from collections.abc import Iterable

from duplus_nnunet.errors import list_nearest_first

Levels = frozenset[str]

_TRUNK = ("neck", "thorax", "abdomen", "pelvis")
_LEGS = ("thigh", "lower leg", "foot")
# From head to foot: a field of view that is centred on a level reaches over to the ones beside it.
_ORDER = ("head", *_TRUNK, *_LEGS)
_ARM = "arm"
EVERY_LEVEL: Levels = frozenset((*_ORDER, _ARM))
ANYWHERE = "anywhere"
# Arms hang beside the trunk and the thighs; a shoulder is imaged together with the neck.
_BESIDE_ARM = (*_TRUNK, "thigh")

_WORDS = {
    **{level: (level,) for level in _ORDER},
    ANYWHERE: tuple(EVERY_LEVEL),
    "whole body": tuple(EVERY_LEVEL),
    "total body": tuple(EVERY_LEVEL),
    "full body": tuple(EVERY_LEVEL),
    "trunk": _TRUNK[1:],
    "torso": _TRUNK[1:],
    "extremity": (_ARM, *_LEGS),
    "limb": (_ARM, *_LEGS),
    "lower extremity": _LEGS,
    "lower limb": _LEGS,
    "upper extremity": (_ARM,),
    "upper limb": (_ARM,),
    # head and neck
    "brain": ("head",),
    "skull": ("head",),
    "cranium": ("head",),
    "face": ("head",),
    "orbit": ("head",),
    "eye": ("head",),
    "hippocampus": ("head",),
    "pituitary gland": ("head",),
    "temporal bone": ("head",),
    "paranasal sinus": ("head",),
    "jaw": ("head", "neck"),
    "mandible": ("head", "neck"),
    "pharynx": ("head", "neck"),
    "nasopharynx": ("head", "neck"),
    "oropharynx": ("head", "neck"),
    "larynx": ("neck",),
    "thyroid gland": ("neck",),
    # thorax
    "chest": ("thorax",),
    "lung": ("thorax",),
    "heart": ("thorax",),
    "breast": ("thorax",),
    "mediastinum": ("thorax",),
    "coronary artery": ("thorax",),
    # abdomen and pelvis
    "belly": ("abdomen",),
    "upper abdomen": ("abdomen",),
    "lower abdomen": ("abdomen",),
    "liver": ("abdomen",),
    "kidney": ("abdomen",),
    "pancreas": ("abdomen",),
    "spleen": ("abdomen",),
    "stomach": ("abdomen",),
    "bowel": ("abdomen", "pelvis"),
    "colon": ("abdomen", "pelvis"),
    "prostate": ("pelvis",),
    "uterus": ("pelvis",),
    "bladder": ("pelvis",),
    "rectum": ("pelvis",),
    "buttock": ("pelvis", "thigh"),
    "groin": ("pelvis", "thigh"),
    "hip": ("pelvis", "thigh"),
    # spine
    "spine": _TRUNK,
    "cervical spine": ("neck",),
    "thoracic spine": ("thorax",),
    "lumbar spine": ("abdomen", "pelvis"),
    # legs and arms
    "leg": _LEGS,
    "upper leg": ("thigh",),
    "knee": ("thigh", "lower leg"),
    "calf": ("lower leg",),
    "ankle": ("lower leg", "foot"),
    _ARM: (_ARM,),
    "shoulder": (_ARM, "neck", "thorax"),
    "upper arm": (_ARM,),
    "forearm": (_ARM,),
    "elbow": (_ARM,),
    "wrist": (_ARM,),
    "hand": (_ARM,),
}
_PLURALS = {"extremities": "extremity", "feet": "foot", "calves": "calf", "thighs": "thigh", "sinuses": "sinus"}
# Words that do not change the level.
_FILLING = {"left", "right", "both", "and", "or", "of", "the", "a", "region", "area"}
_LONGEST = max(len(word.split()) for word in _WORDS)


def find_levels(region: str) -> Levels | None:
    """Find the levels of the body that a text names.

    Returns:
        Names of levels, every one of them for `whole body` and `anywhere`; None if the text holds a word that is not
        known, since nothing can be said then.
    """
    words = [_PLURALS.get(word, word) for word in re.findall(r"[^\W_]+", region.casefold())]
    levels: set[str] = set()
    while words:
        length, found = _take(words)
        if not length:
            return None
        levels.update(found)
        words = words[length:]
    return frozenset(levels) or None


def can_meet(one: Levels, other: Levels) -> bool:
    """Report whether parts of the body at these levels can lie in one image: in the same level, or in adjacent ones."""
    return any(_touch(first, second) for first in one for second in other)


def check_region(region: str) -> str:
    """Return a region unchanged if its levels are known.

    Raises:
        ValueError: They are not.
    """
    if find_levels(region) is None:
        listed = ", ".join(repr(known) for known in list_nearest_first(region, _WORDS)[:5])
        message = (
            f"unknown part of the body {region!r} (nearest: {listed}); use these levels: "
            f"{', '.join(map(repr, (*_ORDER, _ARM)))}, or {ANYWHERE!r}"
        )
        raise ValueError(message)
    return region


def write_levels(levels: Levels) -> tuple[str, ...]:
    """Write levels as regions of a registry file, from head to foot."""
    return (ANYWHERE,) if levels == EVERY_LEVEL else tuple(level for level in (*_ORDER, _ARM) if level in levels)


def join_levels(regions: Iterable[str]) -> Levels | None:
    """Find the levels that any of some texts names; None if those of one of them, or of all, are not known."""
    found = [find_levels(region) for region in regions]
    known = [levels for levels in found if levels is not None]
    return frozenset().union(*known) if known and len(known) == len(found) else None


def _take(words: list[str]) -> tuple[int, tuple[str, ...]]:
    """Read the longest known term at the beginning of some words: its number of words, 0 if none, and its levels."""
    for length in range(min(_LONGEST, len(words)), 0, -1):
        term = " ".join(words[:length])
        levels = _WORDS.get(term) or _WORDS.get(term.removesuffix("s"))
        if levels:
            return length, levels
    return (1, ()) if words[0] in _FILLING else (0, ())


def _touch(one: str, other: str) -> bool:
    if _ARM in (one, other):
        return one == other or bool({one, other} & set(_BESIDE_ARM))
    return abs(_ORDER.index(one) - _ORDER.index(other)) <= 1
