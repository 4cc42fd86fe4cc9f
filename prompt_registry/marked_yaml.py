"""Reads YAML files together with the line of every key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """A problem in a file: its line, what is wrong, and what to do."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        """Return `file:line: message`, as compilers write it."""
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True)
class MarkedYaml:
    """The content of a YAML file and the line of each part of it."""

    file: str
    data: Any
    lines: dict[Keys, int]
    problems: tuple[Problem, ...]

    def line_of(self, keys: Keys) -> int:
        """Return the line (from 1) of a key, or of the nearest key above it that is in the file."""
        while keys and keys not in self.lines:
            as_text = (*keys[:-1], str(keys[-1]))
            keys = as_text if as_text in self.lines else keys[:-1]
        return self.lines.get(keys, 1)


def read_marked_yaml(path: Path) -> MarkedYaml:
    """Read a YAML file; errors in it are returned as problems, not raised."""
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        return _unread(
            file, 1, f"Cannot read this file: {error.strerror or error}. Check that it exists and is readable."
        )
    except UnicodeDecodeError as error:
        return _unread(file, 1, f"Not UTF-8 text ({error.reason} at byte {error.start}). Save the file as UTF-8.")
    except yaml.YAMLError as error:
        return _unread(file, _line_of_error(error), f"Not valid YAML: {_describe_error(error)}. Correct this line.")
    walk = _Walk(file)
    walk.visit(node, (), ())
    return MarkedYaml(file, data, walk.lines, tuple(walk.problems))


class _Walk:
    """Collects lines and duplicate keys from a tree of YAML nodes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Keys, int] = {}
        self.problems: list[Problem] = []

    def visit(self, node: yaml.Node | None, keys: Keys, above: tuple[int, ...]) -> None:
        if node is None:
            return
        self.lines.setdefault(keys, node.start_mark.line + 1)
        if id(node) in above:
            self.problems.append(
                Problem(self.file, self.lines[keys], "An alias refers to itself. Write the content out.")
            )
        elif isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, keys, (*above, id(node)))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*keys, index), (*above, id(node)))

    def _visit_mapping(self, node: yaml.MappingNode, keys: Keys, above: tuple[int, ...]) -> None:
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in first:
                message = f"The key {name!r} occurs twice, here and in line {first[name]}. Remove or rename one."
                self.problems.append(Problem(self.file, line, message))
            first.setdefault(name, line)
            self.lines[(*keys, name)] = line
            self.visit(value, (*keys, name), above)


def _unread(file: str, line: int, message: str) -> MarkedYaml:
    return MarkedYaml(file, None, {}, (Problem(file, line, message),))


def _line_of_error(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return mark.line + 1 if mark else 1


def _describe_error(error: yaml.YAMLError) -> str:
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    return ", ".join(part for part in parts if part) or str(error)
