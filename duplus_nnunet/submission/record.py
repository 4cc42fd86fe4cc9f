"""The record of what was sent: jobs, commands, time and versions, in a JSON file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ConfigDict

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import read_form, write_text

FILE_NAME = "jobs.json"
VERSION = 1
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class SentTask:
    """One training that was sent.

    Attributes:
        job: Number of its job; empty if it was interrupted before the scheduler gave one.
        name: Dataset, plans and fold.
        command: Its command.
        output: Folder in nnUNet_results into which nnU-Net writes it.
        epochs: Number of its epochs; null where its trainer decides.
    """

    __pydantic_config__ = _STRICT

    job: str
    name: str
    command: tuple[str, ...]
    output: str
    epochs: int | None


@dataclass(frozen=True)
class Record:
    """What was sent.

    Attributes:
        kind: "folds", "sources", "ablations" or "seeds".
        sent: Time, ISO 8601, UTC.
        executor: "slurm" or "local".
        host: Machine that sent it.
        resources: What each job asked for.
        versions: Versions of packages by name.
        tasks: The trainings.
    """

    __pydantic_config__ = _STRICT

    kind: str
    sent: str
    executor: str
    host: str
    resources: dict[str, object]
    versions: dict[str, str]
    tasks: tuple[SentTask, ...]


def write_record(record: Record, folder: Path) -> Path:
    """Write a record into the folder of its jobs, atomically; return the file."""
    file = folder / FILE_NAME
    write_text(file, json.dumps({"version": VERSION, **asdict(record)}, indent=1) + "\n")
    return file


def read_record(file: Path) -> Record:
    """Read a record.

    Args:
        file: The file, or the folder in which it lies.

    Raises:
        DataError: There is none, or it is damaged.
    """
    file = file / FILE_NAME if file.is_dir() else file
    if not file.is_file():
        raise DataError(f"{file} does not exist. `duplus submit` writes it, and prints its name.")
    return read_form(file, Record, VERSION, "Name the jobs.json that `duplus submit` wrote.")


def name_state_file(folder: Path, number: int) -> Path:
    """Name the file in which a task notes its state."""
    return folder / "tasks" / f"task_{number}.json"


def name_log(folder: Path, job: str) -> Path:
    """Name the log that submitit writes of the first process of a job."""
    return folder / f"{job}_0_log.out"
