"""SNOMED CT codes of targets, by their names, for DICOM files and other programs."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from duplus_nnunet.prompt_registry.names import normalise

FILE = Path(__file__).parent / "codes.yaml"
SCHEME = "SCT"


@dataclass(frozen=True)
class Code:
    """A coded concept.

    Attributes:
        value: Its code.
        meaning: Its meaning, as in DICOM's context groups.
        scheme: Designator of the coding scheme; SCT is SNOMED CT.
    """

    value: str
    meaning: str
    scheme: str = SCHEME

    def __str__(self) -> str:
        """Return scheme, code and meaning, such as `SCT 10200004 (Liver)`."""
        return f"{self.scheme} {self.value} ({self.meaning})"


ANATOMY = Code("91723000", "Anatomical Structure")
LESION = Code("49755003", "Morphologically Abnormal Structure")
SUBSTANCE = Code("91720002", "Body Substance")
_SIDES = {"left": Code("7771000", "Left"), "right": Code("24028007", "Right")}


@dataclass(frozen=True)
class TargetCode:
    """The codes of a target.

    Attributes:
        category: Kind of the structure: anatomical structure, lesion or substance.
        type: The structure.
        modifier: Its side, or part; None if it has none.
        region: Structure that it lies in; None if it is not said.
        region_modifier: Side of that structure.
    """

    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None

    @property
    def all(self) -> tuple[Code, ...]:
        """Every code of it."""
        codes = self.category, self.type, self.modifier, self.region, self.region_modifier
        return tuple(code for code in codes if code is not None)

    def __str__(self) -> str:
        """Return type and modifier, and the region."""
        text = f"{self.type}" + (f", {self.modifier.meaning.casefold()}" if self.modifier else "")
        side = f"{self.region_modifier.meaning.casefold()} " if self.region_modifier else ""
        return f"{text} in {side}{self.region}" if self.region else text


def find_code(name: str) -> TargetCode | None:
    """Find the codes of a target by its name, such as `left kidney`; None if none are known.

    A name with one of the words left and right is also looked up without it: the side becomes the modifier, of a lesion
    that of its region.
    """
    table = _read_codes()
    known = table.get(normalise(name))
    sides = re.findall(r"\b(left|right)\b", name, flags=re.IGNORECASE)
    if known is not None or len(sides) != 1:
        return known
    plain = table.get(normalise(re.sub(rf"\b{sides[0]}\b", "", name)))
    side = _SIDES[sides[0].casefold()]
    if plain is None or plain.modifier is not None:
        return None
    if plain.category == LESION:
        return None if plain.region is None else TargetCode(LESION, plain.type, None, plain.region, side)
    return TargetCode(plain.category, plain.type, side, plain.region)


@cache
def _read_codes() -> dict[str, TargetCode]:
    """Read the shipped table of codes, by normalised name."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    table = {name: TargetCode(ANATOMY, Code(*code)) for name, code in content["anatomy"].items()}
    table |= {name: TargetCode(SUBSTANCE, Code(*code)) for name, code in content["substances"].items()}
    for section, category in (("parts", ANATOMY), ("lesions", LESION)):
        for name, parts in content[section].items():
            codes = {part: Code(*code) for part, code in parts.items()}
            table[name] = TargetCode(category, codes["type"], codes.get("modifier"), codes.get("region"))
    return {normalise(name): code for name, code in table.items()}
