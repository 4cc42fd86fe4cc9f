"""What a reader has to know, once: in come sentences of many folds, out come as few as say the same."""

import re
from collections.abc import Iterable

_SHOWN = 8
# A sentence that ends in a list of quoted names.
_LISTING = re.compile(r"(?P<head>.*: )(?P<names>'[^']*'(?:, '[^']*')*)\.")


def merge_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Merge sentences that differ only in the quoted names that they list at their end, after a colon.

    Each stands where the first one of its kind did.
    """
    found: dict[str, dict[str, None]] = {}
    for note in notes:
        listing = _LISTING.fullmatch(note)
        head, names = (listing["head"], listing["names"].split(", ")) if listing else (note, [])
        found.setdefault(head, {}).update(dict.fromkeys(names))
    return tuple(_say(head, sorted(names)) for head, names in found.items())


def _say(head: str, names: list[str]) -> str:
    if not names:
        return head
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{head}{', '.join(names[:_SHOWN])}{more}."
