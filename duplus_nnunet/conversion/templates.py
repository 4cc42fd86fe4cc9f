"""Finds files by templates of paths, in which `{field}` stands for part of a name."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

Fields = Mapping[str, str]

_FIELD = re.compile(r"\{(\w+)(:d)?\}")


def check_template(text: str) -> str:
    """Return a template of a path if it can be used.

    Raises:
        ValueError: It is absolute, leads out of the download, or has braces that are no field.
    """
    parts = text.split("/")
    if text.startswith("/") or ".." in parts or "" in parts:
        message = f"{text!r} is not a path below the download, such as images/img{{id}}.nii.gz"
        raise ValueError(message)
    if set("{}") & set(_FIELD.sub("", text)):
        message = f"{text!r} has a brace that is no field; write fields as {{id}}, or {{id:d}} for digits alone"
        raise ValueError(message)
    return text


def find_paths(root: Path, template: str, known: Fields | None = None) -> Iterator[tuple[dict[str, str], Path]]:
    """Find the files and folders that a template describes, in the order of their names.

    Args:
        root: Where the template begins.
        template: Path with `{field}` for any part of a name, `{field:d}` for digits alone, and `*` for any text.
        known: Values of fields that are known already.

    Yields:
        The values of all fields, and the path.
    """
    yield from _find(root, template.split("/"), dict(known or {}))


def fill(template: str, fields: Fields) -> str:
    """Replace the fields of a text by their values.

    Raises:
        KeyError: A field has no value.
    """
    return _FIELD.sub(lambda found: fields[found[1]], template)


def _find(folder: Path, parts: list[str], fields: dict[str, str]) -> Iterator[tuple[dict[str, str], Path]]:
    if not parts:
        yield fields, folder
        return
    first, *rest = parts
    pattern = _compile(first, fields)
    if pattern is None:
        names = [fill(first, fields)]
    else:
        try:
            names = sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return
    for name in names:
        found = re.fullmatch(pattern, name) if pattern is not None else None
        if pattern is not None and found is None:
            continue
        path = folder / name
        if path.exists():
            yield from _find(path, rest, fields | (found.groupdict() if found is not None else {}))


def _compile(part: str, fields: Fields) -> str | None:
    """Write one part of a path as a regular expression; None if it stands for one name."""
    pattern, position, seen, is_open = "", 0, set[str](), False
    for field in _FIELD.finditer(part):
        pattern += _escape(part[position : field.start()])
        name = field[1]
        if name in fields:
            pattern += re.escape(fields[name])
        elif name in seen:
            pattern += f"(?P={name})"
        else:
            pattern += f"(?P<{name}>{r'[0-9]+' if field[2] else '.+?'})"
            seen.add(name)
            is_open = True
        position = field.end()
    pattern += _escape(part[position:])
    return pattern if is_open or "*" in part else None


def _escape(text: str) -> str:
    return ".*".join(map(re.escape, text.split("*")))
