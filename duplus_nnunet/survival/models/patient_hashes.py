"""Knows again the patients that a model was fitted to or recalibrated in, without keeping their IDs."""

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence, Set

_LONGEST_ID = 12  # digits of an ID whose zeros in front may have been lost


def hash_patients(patients: Iterable[str]) -> tuple[str, frozenset[str]]:
    """Return a random salt, hexadecimal, and the hashes of IDs as they are written and in lower case."""
    salt = secrets.token_hex(16)
    return salt, frozenset(hash_patient(salt, text) for name in patients for text in (name, name.lower()))


def find_hashed(patients: Sequence[str], salt: str, hashes: Set[str]) -> tuple[str, ...]:
    """Return the patients whose ID was hashed, also with other zeros before it or in another case."""
    return tuple(
        name for name in patients if any(hash_patient(salt, spelling) in hashes for spelling in list_spellings(name))
    )


def list_spellings(patient: str) -> list[str]:
    """List the spellings of an ID that programs and people make of each other: 7, 007 and 7.0; P7 and p7.

    >>> list_spellings("P7a"), list_spellings("007.0")[:4]
    (['P7a', 'p7a', 'P7A'], ['007.0', '7', '7.0', '07'])
    """
    match = re.fullmatch(r"0*(\d+?)(\.0+)?", patient.strip())
    if match is None:
        return [*dict.fromkeys((patient, patient.lower(), patient.upper()))]
    number = match[1]
    padded = [number.zfill(width) for width in range(len(number) + 1, _LONGEST_ID + 1)]
    return [*dict.fromkeys((patient, number, f"{number}.0", *padded))]


def hash_patient(salt: str, patient: str) -> str:
    """Return the SHA-256 of a patient ID after a salt; it hides IDs from a glance, not from someone who tries all."""
    return hashlib.sha256(f"{salt}:{patient.strip()}".encode()).hexdigest()
