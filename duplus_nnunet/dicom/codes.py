"""Codes of targets in the form of DICOM's code sequences."""

import hashlib
from dataclasses import dataclass
from typing import Any

from duplus_nnunet.dicom.extra import require
from duplus_nnunet.prompt_registry.codes import LESION, Code, TargetCode, find_code

# Coding scheme of targets that SNOMED CT has no code for in DICOM's context groups; 99 marks a private scheme.
PRIVATE_SCHEME = "99DUPLUS"
_TISSUE = Code("85756007", "Tissue")
_LONGEST_MEANING = 64


def find_target_code(name: str) -> TargetCode:
    """Return the codes of a target; one without codes of its own gets a private one, made from its name.

    A private code is of the category Tissue, which says nothing about it. The same name always has the same code.
    """
    known = find_code(name)
    if known is not None:
        return known
    value = hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return TargetCode(_TISSUE, Code(value, shorten(name, _LONGEST_MEANING), PRIVATE_SCHEME))


def is_lesion(code: TargetCode) -> bool:
    """Report whether codes are those of a lesion, such as a tumor."""
    return code.category == LESION


def shorten(text: str, longest: int) -> str:
    """Shorten a text to what a DICOM attribute holds; backslashes, which separate values there, become slashes."""
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text.replace("\\", "/")).split())
    return plain if len(plain) <= longest else plain[: longest - 1].rstrip() + "…"


def make_coded_concept(code: Code) -> Any:
    """Return a code as an item of a DICOM code sequence."""
    coding = require("highdicom.sr.coding")
    return coding.CodedConcept(code.value, code.scheme, code.meaning)


def make_concept_with_modifier(code: Code, modifier: Code | None, keyword: str) -> Any:
    """Return a code with its modifier in a sequence of the given keyword."""
    concept = make_coded_concept(code)
    if modifier is not None:
        setattr(concept, keyword, require("pydicom").Sequence([make_coded_concept(modifier)]))
    return concept


@dataclass(frozen=True)
class NamedMask:
    """A target and its name in a DICOM file.

    Attributes:
        name: Name of the target, which its codes are looked up by.
        title: Name for people; empty is the name.
        description: What is said of it beside, such as the prompt.
        colour: Red, green and blue, 0 to 255.
    """

    name: str
    title: str = ""
    description: str = ""
    colour: tuple[int, int, int] = (255, 0, 0)

    @property
    def label(self) -> str:
        """Name for people, at most 64 characters."""
        return shorten(self.title or self.name, _LONGEST_MEANING)
