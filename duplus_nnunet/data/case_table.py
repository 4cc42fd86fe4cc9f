"""Table of cases: the source of each case, and the targets that are annotated in it.

`duplus compose` writes it into a raw dataset. The planner writes one beside every plans file, also for datasets that
were not composed, so that preprocessing, training and evaluation read the same form. `case_table_file` describes the
file.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from duplus_nnunet.data.case_table_file import VERSIONS, PackedTable, RowPacker, RowReader, format_table
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.files import write_text
from duplus_nnunet.prompt_registry.raw_dataset import CASE_TABLE
from duplus_nnunet.text_files import load_json

FILE_NAME = CASE_TABLE
# Fewest cases of a table in which targets are listed once. In smaller ones each case spells its targets: these can be
# edited by hand, and earlier versions of the package read them.
_LEAST_PACKED = 2000

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Source:
    """A source: the cases of a dataset, or of that part of it which has one context.

    Attributes:
        dataset: nnU-Net's name of the raw dataset that its cases come from.
        context: Context of its images, a key of the plans' contexts.
        targets: Names of the targets that are annotated in at least one of its cases.
        channels: Channel names of its images in the raw dataset, which decide on nnU-Net's normalisation.
    """

    __pydantic_config__ = _STRICT

    dataset: str
    context: str
    targets: tuple[str, ...]
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        source: Name of its source.
        patient: The patient; all cases of a patient are either in training or in validation.
        annotated: Names of the targets that were annotated in it. All others are unknown, never background.
        present: The annotated targets that it contains.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    source: str
    patient: str
    annotated: tuple[str, ...]
    present: tuple[str, ...]


@dataclass(frozen=True)
class CaseTable:
    """All cases of a dataset.

    Attributes:
        sources: Sources by name.
        cases: Training cases by nnU-Net's case identifier.
        tests: Cases of imagesTs in the same form.
        spacing: Whether each context has a target spacing of its own (context) or all share one (shared).

    Raises:
        DataError: The source of a case is unknown, or a case contains a target that was not annotated in it.
    """

    __pydantic_config__ = _STRICT

    sources: Mapping[str, Source]
    cases: Mapping[str, Case]
    tests: Mapping[str, Case] = field(default_factory=dict)
    spacing: Literal["context", "shared"] = "context"

    def __post_init__(self) -> None:
        sets: dict[tuple[str, ...], frozenset[str]] = {}
        for identifier, case in (*self.tests.items(), *self.cases.items()):
            if case.source not in self.sources:
                raise DataError(f"Case {identifier!r}: {describe_unknown('source', case.source, self.sources)}")
            annotated = sets.get(case.annotated)
            if annotated is None:
                annotated = sets[case.annotated] = frozenset(case.annotated)
            if not annotated.issuperset(case.present):
                extra = [name for name in case.present if name not in annotated]
                raise DataError(f"Case {identifier!r} contains {extra[0]!r}, which is not among its annotated targets.")

    def of_source(self, name: str) -> Mapping[str, Case]:
        """Return the training cases of one source."""
        return self.by_source.get(name, {})

    @cached_property
    def by_source(self) -> Mapping[str, Mapping[str, Case]]:
        """Training cases of each source, by identifier."""
        cases: dict[str, dict[str, Case]] = {name: {} for name in self.sources}
        for identifier, case in self.cases.items():
            cases[case.source][identifier] = case
        return cases

    def find(self, identifier: str) -> Case:
        """Return a training or test case.

        Raises:
            DataError: There is no case of that name.
        """
        case = self.cases.get(identifier) or self.tests.get(identifier)
        if case is None:
            raise DataError(describe_unknown("case", identifier, {**self.cases, **self.tests}))
        return case


def read_case_table(folder: str | os.PathLike[str]) -> CaseTable | None:
    """Read the table of cases in a folder; None if there is none.

    Raises:
        DataError: The table cannot be read, or does not have the expected form.
    """
    file = Path(folder) / FILE_NAME
    try:
        content: dict[str, Any] = load_json(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read: {error}. Write it again with `duplus compose`, or by planning."
        ) from error
    version = content.pop("version", None) if isinstance(content, dict) else None
    if version not in VERSIONS:
        raise DataError(f"{file} has version {version!r}, expected 1 or 2. Compose (or plan) the dataset again.")
    try:
        return _read_first(content) if version == 1 else _read_rows(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file}, {where}: {first['msg']}. Compose (or plan) the dataset again.") from error
    except DataError as error:
        raise DataError(f"{file}: {error} Compose (or plan) the dataset again.") from error


def _read_first(content: Mapping[str, Any]) -> CaseTable:
    """Read version 1, in which each case spells its targets."""
    table: CaseTable = _FORM.validate_python(content)
    return table


def _read_rows(content: Mapping[str, Any]) -> CaseTable:
    packed: PackedTable = _PACKED.validate_python(content)
    sources: dict[str, Source] = _SOURCES.validate_python(packed.sources)
    reader = RowReader(packed)
    cases, tests = (
        {identifier: Case(*values) for identifier, values in reader.read(rows)} for rows in (packed.cases, packed.tests)
    )
    return CaseTable(sources, cases, tests, packed.spacing)


def write_case_table(table: CaseTable, folder: str | os.PathLike[str]) -> None:
    """Write a table of cases atomically into a folder."""
    is_small = len(table.cases) + len(table.tests) < _LEAST_PACKED
    text = json.dumps({"version": 1, **asdict(table)}, indent=1) + "\n" if is_small else format_table(_pack(table))
    write_text(Path(folder) / FILE_NAME, text)


def _pack(table: CaseTable) -> PackedTable:
    packer = RowPacker()
    cases, tests = (
        {key: packer.pack(case.source, case.patient, case.annotated, case.present) for key, case in part.items()}
        for part in (table.cases, table.tests)
    )
    sources = {name: asdict(source) for name, source in table.sources.items()}
    return PackedTable(sources, *packer.list_sets(), cases, tests, table.spacing)


_FORM: TypeAdapter[Any] = TypeAdapter(CaseTable)
_PACKED: TypeAdapter[Any] = TypeAdapter(PackedTable)
_SOURCES: TypeAdapter[Any] = TypeAdapter(dict[str, Source])
