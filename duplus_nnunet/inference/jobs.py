"""Reads a table of prediction jobs: images with a context, targets and prompts.

A CSV file has the columns case, image, context, targets and prompts, of which only image is required; several channels,
targets or prompts are separated by semicolons. A JSON file is a list of objects with the same keys, whose values are
lists where there are several. Paths are relative to the folder of the table; images may be given as URLs.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError, DuplusError, describe_unknown
from duplus_nnunet.remote_files import hide_credentials, is_url, read_name, require_storage
from duplus_nnunet.table_files import read_csv, read_json

FIELDS = ("case", "image", "context", "targets", "prompts")
_LISTS = ("image", "targets", "prompts")
_ADVICE = "Give a table of jobs with --jobs."


@dataclass(frozen=True)
class Job:
    """One case to predict.

    Attributes:
        case: Name of its output.
        images: Image files, one for each channel.
        context: Context as given; empty if the table has none.
        targets: Targets as given; empty means all.
        prompts: Free-text prompts as given.
        origin: Position in the table, for messages.
    """

    case: str
    images: tuple[str, ...]
    context: str
    targets: tuple[str, ...]
    prompts: tuple[str, ...]
    origin: str


def read_jobs(file: str | Path, ending: str) -> list[Job]:
    """Read a table of jobs.

    Args:
        file: A .csv or .json file.
        ending: File ending of the model's images, such as `.nii.gz`.

    Raises:
        DataError: The table cannot be read or has an unknown column, a job has no image, or two jobs write one file.
    """
    path = Path(file)
    if path.suffix.lower() not in (".csv", ".json"):
        raise DataError(f"{path} is not a table of jobs: give a file that ends in .csv or .json.")
    rows = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path)
    jobs = [_make_job(path, where, row, ending) for where, row in rows]
    if not jobs:
        raise DataError(f"{path} contains no job. Write one per line, below the header `{','.join(FIELDS)}`.")
    _check_outputs(jobs)
    return jobs


def require_storages(jobs: Sequence[Job]) -> None:
    """Check that the kinds of storage that a table names can be opened, before anything long begins.

    Raises:
        DataError: A kind of storage is not known.
        HostError: The package that it needs is not installed.
    """
    kinds = {url.partition("://")[0]: (job, url) for job in jobs for url in filter(is_url, job.images)}
    for job, url in kinds.values():
        try:
            require_storage(url)
        except DuplusError as error:
            raise type(error)(f"{job.origin}: {error}") from error


def group_jobs(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group jobs with the same targets and prompts, in the order of their first occurrence."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.targets, job.prompts), []).append(job)
    return list(groups.values())


def _read_csv(path: Path) -> list[tuple[str, dict[str, Any]]]:
    table = read_csv(path, _ADVICE, FIELDS)
    columns = [name.casefold() for name in table.columns]
    for name in columns:
        if name not in FIELDS:
            raise DataError(f"{path}, line 1: {describe_unknown('column', name, FIELDS)}")
    rows = []
    for row in table.rows:
        if len(row.cells) > len(columns):
            raise DataError(f"{path}, line {row.line}: it has more cells than the header; quote {table.delimiter!r}.")
        cells = dict(zip(columns, row.cells, strict=False))
        split = {name: _split(cells[name]) for name in _LISTS if name in cells}
        rows.append((f"line {row.line}", {**cells, **split}))
    return rows


def _split(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(";") if part.strip()]


def _read_json(path: Path) -> list[tuple[str, dict[str, Any]]]:
    content = read_json(path, _ADVICE)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{path} contains a {type(content).__name__}; expected a list of jobs, each an object.")
    rows = []
    for number, row in enumerate(content, 1):
        where = f"job {number}"
        for name, value in row.items():
            if name not in FIELDS:
                raise DataError(f"{path}, {where}: {describe_unknown('field', name, FIELDS)}")
            words = value if name in _LISTS and isinstance(value, list) else [value]
            if not all(isinstance(word, str) for word in words):
                raise DataError(f"{path}, {where}: {name} is {value!r}; expected text, or a list of texts.")
            row[name] = words if name in _LISTS else value.strip()
        rows.append((where, row))
    return rows


def _make_job(path: Path, where: str, row: Mapping[str, Any], ending: str) -> Job:
    images = [image if is_url(image) else str(path.parent / image) for image in row.get("image", ())]
    if not images:
        raise DataError(f"{path}, {where}: there is no image. Give one file for each channel, separated by `;`.")
    for url in filter(is_url, images):
        if not read_name(url).endswith(ending):
            raise DataError(
                f"{path}, {where}: {hide_credentials(url)} does not end in {ending!r}, as the model's images do. DICOM "
                "is read from folders of this machine alone."
            )
    name = (read_name(images[0]) if is_url(images[0]) else os.path.basename(images[0])).removesuffix(ending)
    case = row.get("case") or (name[: -len("_0000")] if name.endswith("_0000") else name)
    if Path(case).name != case or case in (".", ".."):
        raise DataError(f"{path}, {where}: {case!r} is not a valid case name. Give one without slashes.")
    return Job(
        case=case,
        images=tuple(images),
        context=row.get("context", ""),
        targets=tuple(row.get("targets", ())),
        prompts=tuple(row.get("prompts", ())),
        origin=f"{path}, {where}",
    )


def _check_outputs(jobs: Sequence[Job]) -> None:
    """Check that no two jobs write the same file, also on file systems that ignore upper and lower case."""
    seen: dict[str, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.case.casefold(), job)
        if other is not job:
            raise DataError(
                f"{other.origin} and {job.origin.split(', ')[-1]} write the same file, {job.case!r}. Give each a "
                "different name in the column `case`."
            )
