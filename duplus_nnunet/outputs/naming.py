"""Turns names of targets and cases into file names that are valid on every operating system."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from duplus_nnunet.errors import DataError

# Device names, which Windows reserves with any file ending.
_RESERVED = {
    *("con", "prn", "aux", "nul", "conin$", "conout$"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in "123456789\u00b9\u00b2\u00b3"),
}
_FORBIDDEN = frozenset('<>:"/\\|?*')
# Unicode's categories of control characters, formats (such as right-to-left override), lone surrogates and separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # part of the spelling of words in Persian and Indic scripts
# Files that stand in a folder of predictions, whatever its cases are.
_OWN_FILES = frozenset(
    {
        *("manifest.json", "statistics.json", "statistics.csv", "legend.json", "legend.ctbl", "legend.label"),
        *("dataset.json", "plans.json", "predict_from_raw_data_args.json", "postprocessing.pkl", "postprocessing.json"),
        "summary.json",
    }
)
# What is added to the name of a case beside its label map and folder.
_ADDITIONS = (".npz", ".pkl", "_preview.png", "_seg.dcm", "_labelmap_seg.dcm", "_rtstruct.dcm")
# With the name of a temporary folder beside it, a longer file name would exceed the 255 bytes of most file systems.
_MAX_BYTES = 140
_CHECKSUM_LENGTH = 8
_MAX_LENGTH = 80
_DEFAULT_NAME = "target"


def name_files(names: Sequence[str]) -> tuple[str, ...]:
    """Return a unique file name for each target, without file ending: `left kidney` becomes `left_kidney`.

    File names consist of ASCII letters, digits, `_` and `-`: at most 80, plus a number if needed for uniqueness. If
    several names give the same file name, ignoring case, the first keeps it and the others are numbered from `_2`.

    Args:
        names: Names of targets, or the user's own texts.

    Example:
        >>> name_files(["left kidney", "left/kidney", "Leber (links)"])
        ('left_kidney', 'left_kidney_2', 'Leber_links')
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


def name_case(case: str) -> str:
    """Return the name, without file ending, of the files and the folder of a case: its identifier wherever possible.

    An identifier is changed if it has characters that are invisible, reverse the reading direction, separate paths or
    are not allowed on Windows; if it starts with a hyphen or point, or ends in a point or blank; if it is a device of
    Windows or the name of a file that stands in every folder of predictions; and if it exceeds 140 bytes. Characters
    are replaced by `_`, and a checksum of the identifier is added, so that different cases keep different names.

    Args:
        case: nnU-Net's case identifier.
    """
    plain = "".join("_" if _is_unsafe(letter) else letter for letter in case).rstrip(". ")
    plain = re.sub(r"^[-.]+", "_", plain)
    if plain.split(".")[0].rstrip().casefold() in _RESERVED:
        plain = f"_{plain}"
    if plain == case and case and not _is_own_file(case) and len(case.encode()) <= _MAX_BYTES:
        return case
    return _mark(plain, case)


def name_cases(cases: Sequence[str], ending: str) -> tuple[str, ...]:
    """Return a name as `name_case` for each case, so that no two cases share a file on any operating system.

    Names that differ in upper and lower case alone, or whose files would be those of an earlier case, get a checksum.

    Args:
        cases: Different case identifiers.
        ending: File ending of the label maps.
    """
    taken: set[str] = set()
    chosen = []
    for case in cases:
        name = name_case(case)
        if taken & _list_claims(name, ending):
            name = _mark(name, case)
        taken |= _list_claims(name, ending)
        chosen.append(name)
    return tuple(chosen)


def find_case_folder(folder: Path, case: str, file_name: str = "") -> Path:
    """Return the folder of a case.

    Args:
        folder: Folder of the predictions.
        case: nnU-Net's case identifier.
        file_name: Name of its files; empty: as `name_case` gives it.
    """
    return folder / (file_name or name_case(case))


def show_name(name: str) -> str:
    r"""Return a name for messages: invisible characters, line breaks and undecodable bytes as escapes such as `\n`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in name
    )


def to_valid_text(name: str) -> str:
    """Return a name that can be written as UTF-8: bytes of a file name that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def require_valid_text(path: str) -> None:
    """Check that a path is valid UTF-8; SimpleITK ends the whole process at any other.

    Raises:
        DataError: It has other bytes.
    """
    if to_valid_text(path) != path:
        raise DataError(f"The path {show_name(path)} has bytes that are not UTF-8 text. Rename it.")


def _is_unsafe(letter: str) -> bool:
    return letter in _FORBIDDEN or (unicodedata.category(letter) in _INVISIBLE and letter not in _JOINERS)


def _is_own_file(name: str) -> bool:
    return name.casefold() in _OWN_FILES or re.fullmatch(r"part_\d+_of_\d+", name.casefold()) is not None


def _mark(plain: str, case: str) -> str:
    """Shorten a name, and add a checksum of the case."""
    checksum = hashlib.sha256(case.encode("utf-8", "surrogatepass")).hexdigest()[:_CHECKSUM_LENGTH]
    short = plain.encode()[: _MAX_BYTES - _CHECKSUM_LENGTH - 1].decode("utf-8", "ignore")
    return f"{short or 'case'}_{checksum}"


def _list_claims(name: str, ending: str) -> set[str]:
    """List what a case may write to a folder, as file systems compare it that ignore case and composition."""
    files = (name, name + ending, *(name + addition for addition in _ADDITIONS))
    return {unicodedata.normalize("NFC", file).casefold() for file in files}


def _to_plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", letters).strip("_-")[:_MAX_LENGTH].rstrip("_-")
    return f"{plain}_" if plain.casefold() in _RESERVED else plain or _DEFAULT_NAME
