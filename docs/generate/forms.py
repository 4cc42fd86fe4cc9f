"""Writes the keys of settings, YAML files and tables as Markdown, from the classes that read them."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from generate.docstrings import read_docstring

_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "any"}
_PLURAL = {
    "text": "texts",
    "whole number": "whole numbers",
    "number": "numbers",
    "source": "sources",
    "cell value": "cell values",
}
_REQUIRED = "*required*"
MISSING = object()


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a form.

    Attributes:
        name: Its name.
        annotation: Its type.
        allowed: Its values, in words.
        default: Its default, or MISSING.
        meaning: What it means.
    """

    name: str
    annotation: Any
    allowed: str
    default: Any
    meaning: str


def list_keys(form: type) -> Iterator[Key]:
    """List the keys of a form: a model or dataclass of pydantic, or a plain dataclass.

    Raises:
        ValueError: The docstring of the form says nothing about a key.
    """
    meanings = read_docstring(form).named.get("Attributes", {})
    for name, annotation, allowed, default in _list_fields(form):
        if name not in meanings:
            raise ValueError(f"The docstring of {form.__name__} has no line for {name!r}. Add it under `Attributes:`.")
        yield Key(name, annotation, allowed, default, meanings[name])


def _list_fields(form: type) -> Iterator[tuple[str, Any, str, Any]]:
    known: Mapping[str, FieldInfo] = getattr(form, "__pydantic_fields__", {})
    if known:
        for name, info in known.items():
            default = info.get_default(call_default_factory=True, validated_data={})
            allowed = info.description or describe_type(info.annotation)
            yield name, info.annotation, allowed, MISSING if default is PydanticUndefined else default
        return
    hints = typing.get_type_hints(form, include_extras=True)
    for item in dataclasses.fields(form):
        made = item.default_factory is not dataclasses.MISSING
        default = item.default_factory() if made else item.default
        absent = default is dataclasses.MISSING
        yield item.name, hints[item.name], describe_type(hints[item.name]), MISSING if absent else default


def describe_type(annotation: Any) -> str:
    """Say in words which values a type has."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        described = (getattr(extra, "description", None) for extra in parts[1:])
        return next((text for text in described if text), describe_type(parts[0]))
    if origin is typing.Literal:
        return _join([f"`{part}`" for part in parts])
    if origin in (typing.Union, types.UnionType):
        return _join(list(dict.fromkeys(describe_type(part) for part in parts if part is not type(None))))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {describe_type(parts[0])} to {describe_type(parts[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        part = describe_type(parts[0])
        return f"list of {_PLURAL.get(part, part.replace('list of', 'lists of'))}"
    if is_form(annotation):
        return f"mapping, see [below](#{_slug(annotation)})"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def is_form(annotation: Any) -> bool:
    """Whether a type has keys of its own."""
    if not isinstance(annotation, type):
        return False
    return issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)


def _slug(form: type) -> str:
    return TITLES.get(form.__name__, form.__name__).casefold().replace(" ", "-").replace("`", "").replace(".", "")


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


# Headings below which the pages describe a form of several keys.
TITLES = {
    "ContextForm": "A context",
    "TargetForm": "A target",
    "PatientsForm": "Patients",
    "TimeForm": "Time",
    "EventForm": "Event",
    "CovariateForm": "A covariate",
    "Source": "A source",
    "Case": "A case",
    "FileRecord": "A file",
}


def write_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table as Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_form(form: type) -> str:
    """Write the keys of a form as a table: name, values, default and meaning."""
    head = ("key", "values", "default", "meaning")
    return write_table(head, ([f"`{k.name}`", k.allowed, _show(k), k.meaning] for k in list_keys(form)))


def write_columns(form: type) -> str:
    """Write what a file holds as a table: name and meaning."""
    return write_table(("name", "meaning"), ([f"`{key.name}`", key.meaning] for key in list_keys(form)))


def _show(key: Key) -> str:
    if key.default is MISSING:
        return _REQUIRED
    if key.default is None or is_form(type(key.default)):
        return ""
    plain = list(key.default) if isinstance(key.default, tuple) else key.default
    return "" if plain in ([], {}, "") else f"`{json.dumps(plain)}`"


def write_settings(settings: type) -> str:
    """Write all settings, those of nested sections below a heading of their own."""
    head = ("setting", "values", "default", "meaning")

    def write_rows(form: type) -> str:
        rows = (
            [f"`{k.name}`", _mark_up(k), f"`{json.dumps(k.default)}`", k.meaning]
            for k in list_keys(form)
            if not is_form(k.annotation)
        )
        return write_table(head, rows)

    blocks = [write_rows(settings)]
    for key in list_keys(settings):
        if is_form(key.annotation):
            text = read_docstring(key.annotation).text.strip()
            blocks += [f"## `{key.name}`", text, write_rows(key.annotation)]
    return "\n\n".join(blocks)


def _mark_up(key: Key) -> str:
    return describe_type(key.annotation) if typing.get_origin(key.annotation) is typing.Literal else key.allowed
