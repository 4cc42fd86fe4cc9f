"""Guesses which codes of a column of events mean the event, censoring, or a competing event."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.survival.records.schema import MISSING, normalise_cell

_SEEN = (
    *("1", "true", "yes", "y", "ja", "oui", "si", "event", "dead", "died", "death", "deceased", "relapse", "relapsed"),
    *("recurrence", "recurred", "progression", "progressed", "1:deceased", "1:progression", "1:recurred/progressed"),
)  # fmt: skip
_CENSORED = (
    *("0", "false", "no", "n", "nein", "non", "censored", "alive", "living"),
    *("0:living", "0:censored", "0:diseasefree"),
)  # fmt: skip
KNOWN_CODES = frozenset((*_SEEN, *_CENSORED))
# In such columns, 1 and yes may mean "no event".
_INVERTED = re.compile(r"alive|surviv|(?<![a-z])living|cens", re.IGNORECASE)
# Of a status, R's survival package codes 1 as censored and 2 as dead; of a question, such as "death", 1 may be yes.
_STATUS = re.compile(r"stat(us|e)?(?![a-z])", re.IGNORECASE)
_OF_R = ("1", "2")
# Texts of patients who were followed without an event, and of what may compete with it.
_STILL_FOLLOWED = re.compile(r"(alive|living|lost|withdr|no evidence|no event|event.?free|drop)")
_COMPETING = re.compile(
    r"dea(d|th)|die|decease|compet|other|cause|transpl|relaps|recur|progress|toxic|second|trm|nrm|gvhd|metast|suicid|"
    r"accident|infect|cardi|complication"
)


def infer_codes(
    column: str, cells: Iterable[str], named_seen: Sequence[str], named_censored: Sequence[str]
) -> dict[str, list[Any]]:
    """Sort the codes of a column into seen, censored and competing.

    Args:
        column: Name of the column.
        cells: Its cells.
        named_seen: Codes of the event that the user named.
        named_censored: Codes of censoring that the user named.

    Raises:
        DataError: The codes are fewer than two or unclear, or a named code does not occur.
    """
    chosen = {normalise_cell(code) for code in (*named_seen, *named_censored)}
    codes = sorted({normalise_cell(cell) for cell in cells} - ({*MISSING} - chosen))
    unknown = sorted(chosen - {*codes})
    if unknown:
        raise DataError(describe_unknown("code", unknown[0], codes))
    if len(codes) < 2:
        raise DataError(
            f"The column {column!r} has {len(codes)} code(s), {', '.join(codes) or 'none'}; expected at least two, one "
            "for the event and one for censoring. Name another column: --event COLUMN."
        )
    seen, censored = _split_codes(column, codes, named_seen, named_censored)
    competing = [code for code in codes if code not in (*seen, *censored)]
    # A number says nothing of the event that it stands for; a user who named both codes has answered.
    unclear = not (named_seen and named_censored) and not all(map(_means_competing, competing))
    if not seen or not censored or unclear:
        raise DataError(
            f"It is unclear which of the codes {', '.join(map(repr, codes))} of the column {column!r} stand for the "
            "event and which for censoring. Name them: --seen CODE --censored CODE (other codes are then competing "
            "events), or another column: --event COLUMN."
        )
    groups = {"seen": seen, "censored": censored, "competing": competing}
    return {key: [int(code) if code.isdecimal() else code for code in value] for key, value in groups.items() if value}


def is_coded_as_in_r(column: str, cells: Iterable[str]) -> bool:
    """Whether a column is a status of 1 and 2, as in R's survival package: 1 censored, 2 the event."""
    return {*map(normalise_cell, cells)} - {*MISSING} == {*_OF_R} and bool(_STATUS.search(column))


def _means_followed(code: str) -> bool:
    """Whether a text means follow-up without an event, and names none: "alive with relapse" may be either."""
    return bool(_STILL_FOLLOWED.match(code)) and not _COMPETING.search(code)


def _means_competing(code: str) -> bool:
    return bool(_COMPETING.search(code)) and not _STILL_FOLLOWED.match(code)


def _split_codes(
    column: str, codes: Sequence[str], named_seen: Sequence[str], named_censored: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Separate the codes of the event from those of censoring; empty where they are ambiguous."""
    seen, censored = [*map(normalise_cell, named_seen)], [*map(normalise_cell, named_censored)]
    if not seen and not censored and _INVERTED.search(column) and {*codes} & {"0", "1", "yes", "no", "true", "false"}:
        return [], []
    if not seen and not censored and codes == [*_OF_R]:
        return (["2"], ["1"]) if is_coded_as_in_r(column, codes) else ([], [])
    seen = seen or [code for code in codes if code in _SEEN and code not in censored]
    own = [code for code in codes if (code in _CENSORED or _means_followed(code)) and code not in seen]
    censored = censored or own
    rest = [code for code in codes if code not in (*seen, *censored)]
    if len(rest) == 1 and bool(seen) != bool(censored):  # the only other code is the other kind
        return seen or rest, censored or rest
    return seen, censored
