"""Form of the file of a table of cases, in which names of targets and sets of targets are listed once.

A case is a row of its source, its patient, the number of its set of annotated targets, and which of these it contains:
"+-" if the first of two is present and the second is not. In files of version 1, each case spells its targets.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Literal

from pydantic import ConfigDict, StrictInt, StrictStr

from duplus_nnunet.errors import DataError

VERSIONS = (1, 2)
_PRESENT, _ABSENT = "+", "-"
_AS_FLAGS = bytes(character == ord(_PRESENT) for character in range(256))

Names = tuple[str, ...]
# Source, patient, number of the set of annotated targets, and marks of the present ones; instead of marks, numbers of
# targets, where the present ones are not in the order of the annotated ones.
Row = tuple[StrictStr, StrictStr, StrictInt, StrictStr | list[StrictInt]]


@dataclass(frozen=True)
class PackedTable:
    """Content of a file, without its version.

    Attributes:
        sources: Sources by name, as plain data.
        targets: Names of all targets that are annotated in some case.
        target_sets: Sets of targets that are annotated in a case, as numbers of targets.
        cases: Training cases by identifier.
        tests: Test cases by identifier.
        spacing: As in the table.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    sources: dict[str, Any]
    targets: list[StrictStr]
    target_sets: list[list[StrictInt]]
    cases: dict[str, Row]
    tests: dict[str, Row] = field(default_factory=dict)
    spacing: Literal["context", "shared"] = "context"


class RowPacker:
    """Turns cases into rows, and numbers the targets and sets of targets that occur in them."""

    def __init__(self) -> None:
        self._targets: dict[str, int] = {}
        self._sets: dict[Names, int] = {}

    def pack(self, source: str, patient: str, annotated: Names, present: Names) -> Row:
        """Return the row of a case."""
        number = self._sets.setdefault(annotated, len(self._sets))
        contained = set(present)
        if tuple(name for name in annotated if name in contained) == present:
            marks = "".join(_PRESENT if name in contained else _ABSENT for name in annotated)
            return source, patient, number, marks
        return source, patient, number, self._count(present)

    def list_sets(self) -> tuple[list[str], list[list[int]]]:
        """Return the names of all targets, and each set of annotated targets as numbers of targets."""
        sets = [self._count(names) for names in self._sets]
        return list(self._targets), sets

    def _count(self, names: Iterable[str]) -> list[int]:
        return [self._targets.setdefault(name, len(self._targets)) for name in names]


class RowReader:
    """Turns rows into cases; equal sets of targets are one object.

    Args:
        packed: Content of the file.

    Raises:
        DataError: A set names a target by a number that there is not.
    """

    def __init__(self, packed: PackedTable) -> None:
        self._targets = packed.targets
        self._sets = [
            self._find(numbers, f"target_sets, set {index}") for index, numbers in enumerate(packed.target_sets)
        ]
        self._known: dict[tuple[int, str], Names] = {}

    def read(self, rows: Mapping[str, Row]) -> Iterator[tuple[str, tuple[str, str, Names, Names]]]:
        """Yield each case's identifier, and its source, patient, annotated and present targets.

        Raises:
            DataError: A row refers to no set or target, or has not one mark for each annotated target.
        """
        for identifier, (source, patient, number, marks) in rows.items():
            if not 0 <= number < len(self._sets):
                raise DataError(
                    f"Case {identifier!r} has the set of targets {number}; the sets are 0 to {len(self._sets) - 1}."
                )
            annotated = self._sets[number]
            if not isinstance(marks, str):
                yield identifier, (source, patient, annotated, self._find(marks, f"Case {identifier!r}"))
                continue
            present = self._known.get((number, marks))
            if present is None:
                present = self._known[number, marks] = _take(identifier, annotated, marks)
            yield identifier, (source, patient, annotated, present)

    def _find(self, numbers: Sequence[int], where: str) -> Names:
        wrong = [number for number in numbers if not 0 <= number < len(self._targets)]
        if wrong:
            raise DataError(f"{where} has the target {wrong[0]}; the targets are 0 to {len(self._targets) - 1}.")
        return tuple(self._targets[number] for number in numbers)


def _take(identifier: str, annotated: Names, marks: str) -> Names:
    if len(marks) != len(annotated) or marks.count(_PRESENT) + marks.count(_ABSENT) != len(marks):
        raise DataError(
            f"Case {identifier!r} has {marks!r}; expected '{_PRESENT}' or '{_ABSENT}' for each of its "
            f"{len(annotated)} annotated targets."
        )
    return tuple(compress(annotated, marks.encode().translate(_AS_FLAGS)))


def format_table(packed: PackedTable) -> str:
    """Write the content of a file as JSON, with one source, set of targets or case a line."""
    parts = {
        "version": str(VERSIONS[-1]),
        "spacing": json.dumps(packed.spacing),
        "sources": _format_object(packed.sources),
        "targets": _format_list(packed.targets),
        "target_sets": _format_list(packed.target_sets),
        "cases": _format_object(packed.cases),
        "tests": _format_object(packed.tests),
    }
    return "{\n" + ",\n".join(f' "{key}": {text}' for key, text in parts.items()) + "\n}\n"


def _format_object(content: Mapping[str, Any]) -> str:
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    return "{\n" + rows + "\n }" if rows else "{}"


def _format_list(content: Sequence[Any]) -> str:
    rows = ",\n".join(f"  {json.dumps(value)}" for value in content)
    return "[\n" + rows + "\n ]" if rows else "[]"
