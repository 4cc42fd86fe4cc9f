"""How predictions were made: in come a run's settings and what became of each case, out comes manifest.json, and back.

It is written after every case, and a resumed run reads it. Paths are as the user gave them.
"""

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from duplus_nnunet import __version__
from duplus_nnunet.outputs.files import read_form, write_text

NAME = "manifest.json"
VERSION = 1
COMPLETE: Literal["complete"] = "complete"

Status = Literal["complete", "failed", "skipped"]

_HASHED_UP_TO = 64 << 20  # bytes; reading a larger file again takes as long as predicting from it
# What may differ between two runs without another result; times and memory do.
_WITHOUT_INFLUENCE = ("device", "threads")


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when it was read or written.

    Attributes:
        path: As the user gave it, or within the folder of predictions.
        size: In bytes.
        sha256: Its hash; None of a file above 64 MiB.
        modified: When it was changed last, ISO 8601 in UTC; None where there is a hash.
    """

    path: str
    size: int
    sha256: str | None = None
    modified: str | None = None

    @property
    def content(self) -> tuple[int, str | None, str | None]:
        """What tells it from another file, wherever either lies."""
        return self.size, self.sha256, self.modified


@dataclass(frozen=True)
class CaseRecord:
    """What became of a case.

    Attributes:
        status: `complete`, `failed`, or `skipped` if it was left out on purpose; a case that was complete before keeps
            the record it had.
        context: The context it was predicted in.
        prompts: Target prompt (T2) by what was asked for.
        inputs: The image's files, one a channel.
        outputs: What was written of it.
        seconds: Time by stage: read, preprocess, network, resample, write.
        message: Why it failed or was skipped.
        warnings: What the user was told.
        finished: When, ISO 8601 in UTC.
    """

    status: Status
    context: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[FileRecord, ...] = ()
    outputs: tuple[FileRecord, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    message: str | None = None
    warnings: tuple[str, ...] = ()
    finished: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """Everything that is the same for all cases of a run.

    Attributes:
        model: Name of the model's folder.
        checkpoints: SHA-256 by the checkpoint's path within that folder.
        folds: As nnU-Net names them.
        contexts: Context prompt (T1) by context.
        targets: Target prompt (T2) by target, by context.
        free_texts: The user's own texts.
        options: What else was chosen, as plain data.
        device: Where the network ran, such as `cuda:0 (NVIDIA A100)`.
        threads: Of the network on a CPU.
        precision: Such as `bfloat16`.
        versions: Of the programs.
        notes: What the model could not be asked, such as the presence of its targets.
    """

    model: str
    checkpoints: Mapping[str, str]
    folds: tuple[str, ...]
    contexts: Mapping[str, str]
    targets: Mapping[str, Mapping[str, str]]
    free_texts: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    threads: int | None = None
    precision: str = "float32"
    versions: Mapping[str, str] = field(default_factory=lambda: list_versions())
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    run: RunRecord
    cases: dict[str, CaseRecord]


class Manifest:
    """What a folder of predictions says of itself.

    Args:
        run: How its cases are predicted.
        cases: What became of those so far, by identifier.
    """

    def __init__(self, run: RunRecord, cases: Mapping[str, CaseRecord] | None = None) -> None:
        self.run = run
        self.cases = dict(cases or {})

    def record(self, case: str, what: CaseRecord) -> None:
        """Note what became of a case; what was noted of it before is replaced."""
        self.cases[case] = what

    def write(self, folder: Path) -> Path:
        """Write manifest.json into a folder."""
        cases = {case: asdict(record) for case, record in self.cases.items()}
        content = {"version": VERSION, "run": asdict(self.run), "cases": cases}
        write_text(folder / NAME, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return folder / NAME

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Read a folder's manifest; None if there is none.

        Raises:
            DataError: It is not of the form.
        """
        file = folder / NAME
        if not file.exists():
            return None
        found = read_form(file, _File, VERSION, "Predict into a new folder.")
        return cls(found.run, found.cases)

    def find_changes(self, run: RunRecord) -> tuple[str, ...]:
        """Name the settings of another run that differ from this one's, and from which other results may come."""
        names = [one.name for one in fields(RunRecord) if one.name not in _WITHOUT_INFLUENCE]
        return tuple(name for name in names if _to_data(getattr(self.run, name)) != _to_data(getattr(run, name)))

    def is_complete(self, case: str, wanted: CaseRecord, folder: Path) -> bool:
        """Say whether a case needs no second prediction: the same is asked of the same images, and no file is missing.

        Args:
            case: nnU-Net's case identifier.
            wanted: Context, prompts and inputs as they are now; the rest does not count.
            folder: Where the predictions stand.
        """
        record = self.cases.get(case)
        if record is None or record.status != COMPLETE:
            return False
        if (record.context, record.prompts) != (wanted.context, wanted.prompts):
            return False
        if [one.content for one in record.inputs] != [one.content for one in wanted.inputs]:
            return False
        return all(_has_size(folder / output.path, output.size) for output in record.outputs)


def describe_file(file: Path, path: str | None = None) -> FileRecord:
    """Describe a file as it is now.

    Args:
        file: Where it is.
        path: What to call it; as `file` says if not given.

    Raises:
        OSError: It cannot be read.
    """
    status = file.stat()
    if status.st_size <= _HASHED_UP_TO:
        return FileRecord(path or str(file), status.st_size, sha256=hash_file(file))
    modified = datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
    return FileRecord(path or str(file), status.st_size, modified=modified)


def hash_file(file: Path) -> str:
    """Compute a file's SHA-256, as hexadecimal text."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def current_time() -> str:
    """Give the time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def list_versions() -> dict[str, str]:
    """List the programs that a prediction depends on, with their versions."""
    return dict(_find_versions())


@functools.cache
def _find_versions() -> dict[str, str]:
    # Once: looking packages up for every case takes time, and has failed now and then beside other threads.
    hosts = {name: importlib.metadata.version(name) for name in ("nnunetv2", "torch")}
    return {"duplus-nnunet": __version__, **hosts, "python": platform.python_version()}


def _to_data(value: Any) -> Any:
    """Give what becomes of a value in JSON: a list of a tuple, a text of a number that is a key."""
    return json.loads(json.dumps(value))


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size
