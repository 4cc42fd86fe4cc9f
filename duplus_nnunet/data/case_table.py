"""Which case comes from where, and which targets are annotated in it: in comes a JSON file, out comes a checked table.

`duplus compose` writes it into a raw dataset. The planner writes one beside every plans file, for datasets that were
not composed too, so that preprocessing, training and scoring read one form.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError, describe_unknown

FILE_NAME = "duplus_cases.json"
VERSION = 1

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Source:
    """Cases of one origin: a dataset, or that part of one which shares a context.

    Attributes:
        dataset: nnU-Net's name of the raw dataset it was taken from.
        context: Context prompt (T1) of its images, a key of the plans' contexts.
        targets: Names of the targets that are annotated in at least one of its cases.
        channels: Channel names of its images, as the raw dataset has them; nnU-Net normalises by them.
    """

    __pydantic_config__ = _STRICT

    dataset: str
    context: str
    targets: tuple[str, ...]
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        source: Name of its source.
        patient: Who was imaged; a patient's cases stay on one side of every split.
        annotated: Names of the targets that were looked for in it. All others are unknown, never background.
        present: Those of them that it contains.
    """

    __pydantic_config__ = _STRICT

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
        tests: Cases of imagesTs in the same way.
        spacing: Whether each context has a target spacing of its own, or all share one.

    Raises:
        DataError: A case is of no source, or contains what was not annotated.
    """

    __pydantic_config__ = _STRICT

    sources: Mapping[str, Source]
    cases: Mapping[str, Case]
    tests: Mapping[str, Case] = field(default_factory=dict)
    spacing: Literal["context", "shared"] = "context"

    def __post_init__(self) -> None:
        for identifier, case in {**self.tests, **self.cases}.items():
            if case.source not in self.sources:
                raise DataError(f"Case {identifier!r}: {describe_unknown('source', case.source, self.sources)}")
            stray = [name for name in case.present if name not in case.annotated]
            if stray:
                raise DataError(f"Case {identifier!r} contains {stray[0]!r}, which is not among its annotated targets.")

    def of_source(self, name: str) -> dict[str, Case]:
        """Return the training cases of one source."""
        return {identifier: case for identifier, case in self.cases.items() if case.source == name}

    def find(self, identifier: str) -> Case:
        """Return a training or test case.

        Raises:
            DataError: There is none of that name.
        """
        found = self.cases.get(identifier) or self.tests.get(identifier)
        if found is None:
            raise DataError(describe_unknown("case", identifier, {**self.cases, **self.tests}))
        return found


def read_case_table(folder: str | os.PathLike[str]) -> CaseTable | None:
    """Read a folder's table; None if there is none.

    Raises:
        DataError: It cannot be read, or is not of the form.
    """
    file = Path(folder) / FILE_NAME
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read: {error}. Write it again by `duplus compose`, or by planning."
        ) from error
    version = content.pop("version", None) if isinstance(content, dict) else None
    if version != VERSION:
        raise DataError(f"{file} has version {version!r}, expected {VERSION}. Compose (or plan) the dataset again.")
    try:
        return TypeAdapter(CaseTable).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file}, {where}: {first['msg']}. Compose (or plan) the dataset again.") from error
    except DataError as error:
        raise DataError(f"{file}: {error} Compose (or plan) the dataset again.") from error


def write_case_table(table: CaseTable, folder: str | os.PathLike[str]) -> None:
    """Write a table into a folder, under a temporary name that is then renamed."""
    file = Path(folder) / FILE_NAME
    temporary = file.with_name(file.name + ".writing")
    temporary.write_text(json.dumps({"version": VERSION, **asdict(table)}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)
