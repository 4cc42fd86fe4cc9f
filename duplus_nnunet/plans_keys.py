"""Finds keys in the section `duplus` of plans that a user meant to be others: misspelt, or settings in the wrong place.

Other unknown keys are kept as they are, since earlier and later versions of the program write them.
"""

from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches

from pydantic import BaseModel

from duplus_nnunet.settings import Settings

# Similarity, 0 to 1, from which an unknown key is a misspelt one.
_CLOSE = 0.8
_SETTINGS = frozenset(field.name for field in fields(Settings))


def find_misspelt(form: BaseModel, where: str = "duplus", unlike: frozenset[str] = _SETTINGS) -> Iterator[str]:
    """Find keys of a form, and of the forms in it, that are nearly the name of a field.

    Args:
        form: Part of the plans.
        where: Keys that lead to it, for messages.
        unlike: Names that belong somewhere else, in `duplus.settings`.

    Yields:
        A sentence for each.
    """
    known = type(form).model_fields
    for key in form.model_extra or {}:
        near = get_close_matches(key, known, 1, _CLOSE)
        if near:
            yield f"{where}.{key} is unknown; did you mean {near[0]!r}?"
        elif key in unlike:
            yield f"{where}.{key} is a setting: write it into duplus.settings."
    for name in known:
        yield from _descend(getattr(form, name), f"{where}.{name}")


def _descend(value: object, where: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from find_misspelt(value, where, frozenset())
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, BaseModel):
                yield from find_misspelt(item, f"{where}.{key}", frozenset())
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if isinstance(item, BaseModel):
                yield from find_misspelt(item, f"{where}.{number}", frozenset())
