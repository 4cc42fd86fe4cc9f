"""What a reader has to know, once: in come sentences of many folds, out come as few as say the same."""

import re
from collections.abc import Iterable

_SHOWN = 8
# A sentence that ends in a list of quoted names.
_LISTING = re.compile(r"(?P<head>.*: )(?P<names>'[^']*'(?:, '[^']*')*)\.")
_QUOTED_OR_NUMBER = re.compile(r"'[^']*'|\d+(?:\.\d+)?")


def merge_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Merge sentences that differ only in the quoted names that they list at their end, or in numbers.

    Each stands where the first one of its kind did; of those that differ in numbers, the first one stands for all.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    for note in notes:
        listing = _LISTING.fullmatch(note)
        head, names = (listing["head"], listing["names"].split(", ")) if listing else (note, [])
        kind = _QUOTED_OR_NUMBER.sub(lambda part: part[0] if part[0].startswith("'") else "#", head)
        found.setdefault(kind, {}).setdefault(head, {}).update(dict.fromkeys(names))
    return tuple(_say(alike) for alike in found.values())


def _say(alike: dict[str, dict[str, None]]) -> str:
    head, names = next(iter(alike)), sorted({name for listed in alike.values() for name in listed})
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"{head}{', '.join(names[:_SHOWN])}{more}."
    return f"{head} So it is in other folds, with other numbers." if len(alike) > 1 else head
