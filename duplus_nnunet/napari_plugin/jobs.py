"""Writes what was asked in a window as a table of jobs, which `duplus predict --jobs` repeats."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file, write_text


@dataclass(frozen=True)
class Done:
    """One question that was answered.

    Attributes:
        files: Of the image, one a channel.
        case: Name of the image.
        context: Name of its context.
        name: Of the target, or the text.
        seen: Whether it is a target of the model.
    """

    files: tuple[Path, ...]
    case: str
    context: str
    name: str
    seen: bool


def write_jobs(file: Path, done: Sequence[Done], own: Path) -> None:
    """Write a table of jobs: one of all targets of an image in a context, and one of each free text.

    Texts have jobs of their own, since in one job a text gets only the voxels that the job's targets leave.

    Args:
        file: The table, which must end in .json.
        done: What was asked.
        own: Temporary folder; images in it are copied beside the table.

    Raises:
        DataError: Nothing was asked, the name ends otherwise, or the file cannot be written.
    """
    if file.suffix.lower() != ".json":
        raise DataError(f"{file} is no name for a table of jobs: expected one that ends in .json.")
    if not done:
        raise DataError("There is nothing to repeat. Ask for a target first.")
    folder = file.with_name(f"{file.stem}_images")
    files = dict.fromkeys(path for item in done for path in item.files)
    copies = {path: folder / f"{path.parent.name}_{path.name}" for path in files if own in path.parents}
    for path, copy in copies.items():
        with open_new_file(copy) as new:
            shutil.copyfile(path, new)
    # Copies move with the table; other images stay where they are.
    names = {path: str(copies[path].relative_to(file.parent) if path in copies else path.absolute()) for path in files}
    rows = _name_rows(_list_rows(done))
    for row in rows:
        row["image"] = [names[path] for path in row["image"]]
    write_text(file, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def _list_rows(done: Iterable[Done]) -> list[dict[str, Any]]:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in done:
        key = item.files, item.context, "" if item.seen else item.name
        row = rows.setdefault(key, {"case": item.case, "image": item.files, "context": item.context})
        row.setdefault("targets" if item.seen else "prompts", []).append(item.name)
    return list(rows.values())


def _name_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the cases whose name an earlier one has, also on file systems that ignore upper and lower case."""
    taken: set[str] = set()
    for row in rows:
        name, number = row["case"], 1
        while row["case"].casefold() in taken:
            number += 1
            row["case"] = f"{name}_{number}"
        taken.add(row["case"].casefold())
    return rows
