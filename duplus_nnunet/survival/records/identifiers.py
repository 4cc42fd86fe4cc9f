"""Numbers that say who somebody is: in comes a column, out comes whether it is a name rather than a measure."""

import re
from collections.abc import Collection

_SOUNDS = re.compile(
    r"(^|[^a-z])(id|pid|uid|mrn|ssn|accession)([^a-z]|$)|identifier|(row|record)[_ .-]?num|^index$|^unnamed",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z])(ID|MRN)$")
# Fewer numbers may differ by chance; ages and counts of cells have fewer digits.
_LEAST, _DIGITS = 8, 5


def is_identifier_name(name: str) -> bool:
    """Whether a column's name says that it tells who somebody is."""
    return bool(_SOUNDS.search(name) or _CAMEL.search(name))


def are_identifiers(numbers: Collection[float]) -> bool:
    """Whether known numbers of patients look like names: whole, no two the same, and in a row or of one length.

    Args:
        numbers: Of 8 patients or more, else they do not. In a row: without a gap, as numbers of rows are; of one
            length: of as many digits each, 5 or more.
    """
    if len(numbers) < _LEAST or len(set(numbers)) < len(numbers) or not all(float(one).is_integer() for one in numbers):
        return False
    low, high = int(min(numbers)), int(max(numbers))
    return high - low + 1 == len(numbers) or (low > 0 and _DIGITS <= len(str(low)) == len(str(high)))
