"""Turns names of targets and cases into file names that are valid on every operating system."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from duplus_nnunet.errors import DataError

# Device names, which Windows reserves with any file ending.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_MAX_LENGTH = 80
_DEFAULT_NAME = "target"


def name_files(names: Sequence[str]) -> tuple[str, ...]:
    """Return a unique file name for each target, without file ending: `left kidney` becomes `left_kidney`.

    File names consist of ASCII letters, digits, `_` and `-`: at most 80, plus a number if needed for uniqueness. If
    several names give the same file name, ignoring case, the first keeps it and the others are numbered from `_2`.

    Args:
        names: Names of targets, or the user's own texts.
    """
    chosen: list[str] = []
    for name in names:
        plain, number = _to_plain(name), 1
        candidate = plain
        while candidate.casefold() in {other.casefold() for other in chosen}:
            number += 1
            candidate = f"{plain}_{number}"
        chosen.append(candidate)
    return tuple(chosen)


def find_case_folder(folder: Path, case: str) -> Path:
    """Return the folder of a case, named by its identifier.

    Raises:
        DataError: The case identifier is not a valid folder name.
    """
    if not case.strip(". ") or "/" in case or "\\" in case:
        raise DataError(f"The case {case!r} does not give a valid folder name. Name its image without `/` and `\\`.")
    return folder / case


def _to_plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", letters).strip("_-")[:_MAX_LENGTH].rstrip("_-")
    return f"{plain}_" if plain.casefold() in _RESERVED else plain or _DEFAULT_NAME
