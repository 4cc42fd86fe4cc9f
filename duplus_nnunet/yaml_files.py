"""Reads YAML files that people write, together with the line of every key; every problem is reported with its line.

Files are bounded in size, depth, number of nodes and length of a text. Anchors, aliases and merge keys are refused, as
a few nested aliases stand for billions of nodes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from duplus_nnunet.errors import DataError
from duplus_nnunet.text_files import read_text

Keys = tuple[str | int, ...]

_MOST_BYTES = 1 << 20
_MOST_NODES = 15_000
_MOST_DEPTH = 50
_MOST_CHARACTERS = 20_000
_MOST_BITS = 64
_INT, _MERGE = "tag:yaml.org,2002:int", "tag:yaml.org,2002:merge"


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
    """Read a YAML file; errors in it are returned as problems, not raised.

    Whole numbers are decimal: 060 is the text "060", which can name a dataset or a code, not 48.
    """
    file = str(path)
    try:
        text = read_text(path, _MOST_BYTES)
    except OSError as error:
        return _unread(
            file, 1, f"Cannot read this file: {error.strerror or error}. Check that it exists and is readable."
        )
    except DataError as error:
        return _unread(file, 1, f"Cannot read this file: {str(error).removeprefix(f'{file} cannot be read: ')}")
    try:
        loader = _BoundedLoader(text)
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        line = _line_of_error(error, text)
        return _unread(file, line, f"Not valid YAML: {_describe_error(error)}. Correct this line.")
    walk = _Walk(file)
    walk.visit(node, ())
    return MarkedYaml(file, data, walk.lines, tuple(walk.problems))


class _BoundedLoader(yaml.SafeLoader):
    """Differs from yaml.SafeLoader: raises nothing but YAMLError, without aliases, and within bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Differs from yaml.SafeLoader: refuses what exceeds the bounds, before it is read."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes += 1
        problem = self._find_problem(event)
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _find_problem(self, event: Any) -> str:
        anchor = getattr(event, "anchor", None)  # collections and texts may have one
        if anchor is not None:
            kind = "alias" if isinstance(event, yaml.AliasEvent) else "anchor"
            return f"the {kind} {anchor!r} is not supported; write the content out at each place"
        if self._nodes > _MOST_NODES:
            return f"more than {_MOST_NODES} values"
        if self._depth >= _MOST_DEPTH:
            return f"nested more than {_MOST_DEPTH} levels deep"
        return _find_text_problem(event.value) if isinstance(event, yaml.ScalarEvent) else ""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Differs from yaml.SafeLoader: each error is one of YAML, with the line of the value."""
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # of the conversion of a text by its tag: ValueError, KeyError, AttributeError, ...
            raise _refuse_value(node) from error
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise _refuse_value(node)
        return value

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Differs from yaml.SafeLoader: refuses merge keys."""
        for key, _ in node.value:
            if key.tag == _MERGE:
                problem = "the merge key '<<' is not supported; write the content out"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        super().flatten_mapping(node)


_BoundedLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _INT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_BoundedLoader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))


def _find_text_problem(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        return f"a text of {len(text)} characters; expected at most {_MOST_CHARACTERS}"
    strange = next((sign for sign in text if (sign < " " and sign not in "\n\t") or "\ud800" <= sign <= "\udfff"), "")
    return f"a text holds U+{ord(strange):04X}, which is no character; write the character itself" if strange else ""


def _refuse_value(node: yaml.Node) -> yaml.YAMLError:
    kind = str(node.tag).rpartition(":")[2]
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else kind
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    problem = f"{shown!r} cannot be read as a value of type {kind!r}; write a text in quotes"
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class _Walk:
    """Collects lines and duplicate keys from a tree of YAML nodes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Keys, int] = {}
        self.problems: list[Problem] = []

    def visit(self, node: yaml.Node | None, keys: Keys) -> None:
        if node is None:
            return
        self.lines.setdefault(keys, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, keys)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*keys, index))

    def _visit_mapping(self, node: yaml.MappingNode, keys: Keys) -> None:
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in first:
                message = f"The key {name!r} occurs twice, here and in line {first[name]}. Remove or rename one."
                self.problems.append(Problem(self.file, line, message))
            first.setdefault(name, line)
            self.lines[(*keys, name)] = line
            self.visit(value, (*keys, name))


def _unread(file: str, line: int, message: str) -> MarkedYaml:
    return MarkedYaml(file, None, {}, (Problem(file, line, message),))


def _line_of_error(error: yaml.YAMLError, text: str) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark:
        return int(mark.line) + 1
    position = getattr(error, "position", None)  # of a character that YAML does not allow
    return text.count("\n", 0, position) + 1 if position is not None else 1


def _describe_error(error: yaml.YAMLError) -> str:
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    reason = getattr(error, "reason", None)
    return ", ".join(part for part in (*parts, reason) if part) or str(error)
