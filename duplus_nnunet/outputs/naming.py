"""File names that every system takes: in come names of targets and cases, out come names of files and folders."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from duplus_nnunet.errors import DataError

# Names of devices, which Windows gives to no file, whatever its ending.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_LONGEST = 80
_NAMELESS = "target"


def name_files(names: Sequence[str]) -> tuple[str, ...]:
    """Give each target a file name of its own, without ending: `left kidney` becomes `left_kidney`.

    Names hold ASCII letters, digits, `_` and `-`, 80 at most and some more to tell apart. Of names that become the
    same one, in capitals or not, the first keeps it and the others are numbered from `_2` on.

    Args:
        names: Of targets, or the user's own texts.
    """
    given: list[str] = []
    for name in names:
        plain, number = _to_plain(name), 1
        chosen = plain
        while chosen.casefold() in {other.casefold() for other in given}:
            number += 1
            chosen = f"{plain}_{number}"
        given.append(chosen)
    return tuple(given)


def find_case_folder(folder: Path, case: str) -> Path:
    """Give the folder of a case, named as the case is.

    Raises:
        DataError: The case's name leads somewhere else.
    """
    if not case.strip(". ") or "/" in case or "\\" in case:
        raise DataError(f"The case {case!r} gives no name of a folder. Name its image without `/` and `\\`.")
    return folder / case


def _to_plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", letters).strip("_-")[:_LONGEST].rstrip("_-")
    return f"{plain}_" if plain.casefold() in _RESERVED else plain or _NAMELESS
