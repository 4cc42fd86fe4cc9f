"""Names of structures and datasets: compared, spelled out in plain English, and paired left with right.

In: keys as they stand in a dataset.json (`kidney_l`, `SpinalCord`). Out: names (`left kidney`, `spinal cord`).
"""

import re
from collections.abc import Iterable

_SEPARATORS = re.compile(r"[\s_\-./]+")
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SURE_SIDES = {"left": "left", "right": "right", "lt": "left", "rt": "right"}
_LETTER_SIDES = {"l": "left", "r": "right"}
# A mirror image of the heart still has its left ventricle: these sides name a structure, not a place.
_NOT_MIRRORED = re.compile(
    r"\b(atrium|atrial|heart|cardiac|ventricular)\b|(?<!lateral )\bventricle\b|\bventricle (wall|blood)"
)

_WHOLE_NAMES = {
    "cc": "corpus callosum",
    "csf": "cerebrospinal fluid",
    "et": "enhancing tumor",
    "gb": "gallbladder",
    "gm": "gray matter",
    "gtv": "gross tumor volume",
    "gtvn": "lymph node gross tumor volume",
    "gtvp": "primary gross tumor volume",
    "gtvt": "primary gross tumor volume",
    "ivc": "inferior vena cava",
    "la": "left atrium",
    "lk": "left kidney",
    "lv": "left ventricle",
    "myo": "myocardium",
    "ncr": "necrotic tumor core",
    "oesophagus": "esophagus",
    "postcava": "inferior vena cava",
    "ra": "right atrium",
    "rk": "right kidney",
    "rv": "right ventricle",
    "sma": "superior mesenteric artery",
    "svc": "superior vena cava",
    "tc": "tumor core",
    "wm": "white matter",
    "wt": "whole tumor",
}
_WORDS = {
    "adrenal": "adrenal gland",
    "lad": "left anterior descending artery",
    "lens": "lens of the eye",
    "mandibular": "mandible",
    "parotid": "parotid gland",
    "parotis": "parotid gland",
    "pituitary": "pituitary gland",
    "submandibular": "submandibular gland",
    "thyroid": "thyroid gland",
    "tmj": "temporomandibular joint",
    "vb": "vertebral body",
}
_PHRASES = {
    "brain stem": "brainstem",
    "gall bladder": "gallbladder",
    "vena cava inferior": "inferior vena cava",
}


def normalise(name: str) -> str:
    """Reduce a name to what counts when names are compared: no case, spaces, underscores or hyphens."""
    return _SEPARATORS.sub("", name.casefold())


def strip_dataset_number(name: str) -> str:
    """Take nnU-Net's or the Decathlon's number off a dataset's name: `Dataset004_Hippocampus` -> `Hippocampus`."""
    return re.sub(r"^(Dataset|Task)\d+_(?=.)", "", name, flags=re.IGNORECASE)


def split_words(label: str) -> list[str]:
    """Split a label at separators and inside CamelCase, in lower case."""
    parts = [part for piece in _SEPARATORS.split(label) for part in _CAMEL_CASE.split(piece)]
    return [part.casefold() for part in parts if part]


def spell_out(label: str, labels: Iterable[str] = ()) -> str:
    """Spell a label out in plain English.

    A lone `l` or `r` at either end is taken for a side only if `labels` holds its counterpart.
    """
    words = split_words(label)
    side, words = _take_side(words, {tuple(split_words(other)) for other in labels})
    name = " ".join(words)
    name = _WHOLE_NAMES.get(normalise(name), name)
    for short, full in _PHRASES.items():
        name = name.replace(short, full)
    tail = name.split(" ")[-1]
    if tail in _WORDS:
        name = name[: -len(tail)] + _WORDS[tail]
    return f"{side} {name}".strip() if side else name


def find_partner(name: str, names: Iterable[str]) -> str | None:
    """Find the name of the same structure on the other side, if it is among `names` and mirrors into it."""
    wanted = swap_side(name)
    if wanted is None or _NOT_MIRRORED.search(name):
        return None
    return next((other for other in names if normalise(other) == normalise(wanted)), None)


def swap_side(name: str) -> str | None:
    """Exchange the word left for right and the reverse; None if the name has not exactly one of them."""
    sides = re.findall(r"\b(left|right)\b", name, flags=re.IGNORECASE)
    if len(sides) != 1:
        return None
    other = "right" if sides[0].casefold() == "left" else "left"
    return re.sub(rf"\b{sides[0]}\b", other, name)


def needs_partner(name: str) -> bool:
    """Tell whether a name is of one side of something that a mirror image would show on the other."""
    return swap_side(name) is not None and not _NOT_MIRRORED.search(name)


def _take_side(words: list[str], others: set[tuple[str, ...]]) -> tuple[str | None, list[str]]:
    for at in (0, -1):
        rest = words[1:] if at == 0 else words[:-1]
        side = _SURE_SIDES.get(words[at]) if words and rest else None
        if words and rest and words[at] in _LETTER_SIDES:
            twin = "r" if words[at] == "l" else "l"
            side = _LETTER_SIDES[words[at]] if tuple([twin, *rest] if at == 0 else [*rest, twin]) in others else None
        if side:
            return side, rest
    return None, [_SURE_SIDES.get(word, word) for word in words]
