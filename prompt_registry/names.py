"""Compares names of structures and datasets, spells out labels (`kidney_l`: left kidney), and pairs left with right."""

import re
from collections.abc import Iterable

_SEPARATORS = re.compile(r"[\s_\-./]+")
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SURE_SIDES = {"left": "left", "right": "right", "lt": "left", "rt": "right"}
_LETTER_SIDES = {"l": "left", "r": "right"}
# A mirror image of the heart still has a left ventricle: here, left and right name the structure, not its position.
_NOT_MIRRORED = re.compile(
    r"\b(atrium|atrial|heart|cardiac|ventricular)\b|(?<!lateral )\bventricle\b|\bventricle (wall|blood)"
)

# Tissue around a tumour, such as oedema, is no lesion.
_PET = re.compile(r"(?<![a-z])(pet(ct|mr|mri)?|pt|suv(bw|lbm|bsa|max)?|fdg)(?![a-z])|positron", re.IGNORECASE)
_LESION = re.compile(
    r"tumou?r|lesion|sarcoma|carcinoma|cancer|metasta|glioma|nodule|neoplasm|malignan|lymphoma|melanoma|blastoma|"
    r"(^|\W)gtv",
    re.IGNORECASE,
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
    """Return a name in lower case without spaces, underscores, hyphens, points and slashes, for comparison."""
    return _SEPARATORS.sub("", name.casefold())


def strip_dataset_number(name: str) -> str:
    """Remove the number of nnU-Net or the Decathlon from a name: `Dataset004_Hippocampus` -> `Hippocampus`.

    Example:
        >>> strip_dataset_number("Dataset004_Hippocampus")
        'Hippocampus'
    """
    return re.sub(r"^(Dataset|Task)\d+_(?=.)", "", name, flags=re.IGNORECASE)


def split_words(label: str) -> list[str]:
    """Split a label into lower-case words, at separators and in CamelCase."""
    parts = [part for piece in _SEPARATORS.split(label) for part in _CAMEL_CASE.split(piece)]
    return [part.casefold() for part in parts if part]


def spell_out(label: str, labels: Iterable[str] = ()) -> str:
    """Spell out a label in plain English.

    A single `l` or `r` at either end means a side only if `labels` contains its counterpart.

    Example:
        >>> spell_out("kidney_left"), spell_out("GTVp"), spell_out("Parotid_L", ["Parotid_R"])
        ('left kidney', 'primary gross tumor volume', 'left parotid gland')
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
    """Find the name of the same structure on the other side among `names`; None if a mirror image keeps the name.

    Example:
        >>> find_partner("left kidney", ["liver", "left kidney", "right kidney"])
        'right kidney'
    """
    partner = swap_side(name)
    if partner is None or _NOT_MIRRORED.search(name):
        return None
    return next((other for other in names if normalise(other) == normalise(partner)), None)


def swap_side(name: str) -> str | None:
    """Replace left by right, or right by left; None unless the name contains exactly one of them."""
    sides = re.findall(r"\b(left|right)\b", name, flags=re.IGNORECASE)
    if len(sides) != 1:
        return None
    other = "right" if sides[0].casefold() == "left" else "left"
    return re.sub(rf"\b{sides[0]}\b", other, name)


def is_lesion(name: str) -> bool:
    """Report whether the name of a target says that it is a lesion.

    Example:
        >>> is_lesion("liver tumor"), is_lesion("liver")
        (True, False)
    """
    return _LESION.search(name) is not None


def is_pet(name: str) -> bool:
    """Report whether the name of a channel or context says that it is PET, whose uptake is comparable across scanners.

    Example:
        >>> is_pet("FDG-PET"), is_pet("PETCT"), is_pet("SUVbw"), is_pet("adaptive CT")
        (True, True, True, False)
    """
    return _PET.search(name) is not None


def needs_partner(name: str) -> bool:
    """Whether a name is of one side of a structure that a mirror image shows on the other side."""
    return swap_side(name) is not None and not _NOT_MIRRORED.search(name)


def have_sides(targets: Iterable[tuple[str, str | None]]) -> bool:
    """Whether a mirror image shows one of some targets, each with the name of its partner, as another target.

    Example:
        >>> have_sides([("left kidney", "right kidney")]), have_sides([("liver", None)]), have_sides([("left hip", "")])
        (True, False, True)
    """
    return any(partner or needs_partner(name) for name, partner in targets)


def _take_side(words: list[str], others: set[tuple[str, ...]]) -> tuple[str | None, list[str]]:
    for index in (0, -1):
        rest = words[1:] if index == 0 else words[:-1]
        side = _SURE_SIDES.get(words[index]) if words and rest else None
        if words and rest and words[index] in _LETTER_SIDES:
            twin = "r" if words[index] == "l" else "l"
            counterpart = tuple([twin, *rest] if index == 0 else [*rest, twin])
            side = _LETTER_SIDES[words[index]] if counterpart in others else None
        if side:
            return side, rest
    return None, [_SURE_SIDES.get(word, word) for word in words]
