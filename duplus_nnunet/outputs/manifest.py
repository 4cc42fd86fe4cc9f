"""Records how predictions were made in manifest.json: the settings of the run and the outcome of each case.

The manifest is written after every case and read when a run is resumed. Paths are recorded as the user gave them.
"""

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from duplus_nnunet import __version__
from duplus_nnunet.files import read_form, write_text
from duplus_nnunet.outputs.naming import to_valid_text

NAME = "manifest.json"
VERSION = 1
COMPLETE: Literal["complete"] = "complete"

Status = Literal["complete", "failed", "skipped"]

_HASHED_UP_TO = 64 << 20  # bytes; hashing a larger file takes as long as predicting from it
# Fields that may differ between two runs without changing the predictions.
_WITHOUT_INFLUENCE = ("device", "threads")


@dataclass(frozen=True)
class FileRecord:
    """The state of a file when it was read or written.

    Attributes:
        path: Path as the user gave it, or relative to the folder of predictions; of a DICOM series, its hash.
        size: Size in bytes.
        sha256: SHA-256 hash; None for images above 64 MiB.
        modified: Time of the last modification, ISO 8601 in UTC; None for images with a hash.
    """

    path: str
    size: int
    sha256: str | None = None
    modified: str | None = None

    @property
    def content(self) -> tuple[int, str | None, str | None]:
        """Fields that identify the content of the file, independent of its path."""
        return self.size, self.sha256, self.modified


@dataclass(frozen=True)
class CaseRecord:
    """The outcome of a case.

    Attributes:
        status: `complete`, `failed`, or `skipped` if it was left out on purpose; a case that was already complete keeps
            its earlier record.
        context: Name of the context that was used.
        prompts: Target prompt by requested target.
        inputs: Image files, one per channel.
        outputs: Files that were written for the case.
        seconds: Duration by stage: read, preprocess, network, resample, write.
        message: Reason why the case failed or was skipped.
        warnings: Warnings that were shown to the user.
        file_name: Name of its files, without ending, if its identifier could not be kept; see outputs.naming.
        target_files: Names of the files of targets in the folder of the case, without ending, by target.
        finished: Time of completion, ISO 8601 in UTC.
        unseen: Requested targets that were not seen in training.
        removed: What was removed from the masks because it was asked for, by target: `components`, `voxels` and
            `volume_ml`.
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
    file_name: str | None = None
    target_files: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    removed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """The settings shared by all cases of a run.

    Attributes:
        model: Name of the model folder.
        checkpoints: SHA-256 by path of the checkpoint within the model folder.
        folds: Names of the folds, as in nnU-Net.
        contexts: Context prompt by context.
        targets: Target prompt by target, by context.
        free_texts: The user's own texts.
        options: Further prediction options, as plain data.
        device: Device that ran the network, such as `cuda:0 (NVIDIA A100)`.
        threads: Number of CPU threads of the network.
        precision: Precision of the network, such as `bfloat16`.
        versions: Versions of the programs.
        notes: Limitations of the model, such as a missing calibration of target presence.
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
    """The record of a folder of predictions.

    Args:
        run: Settings of the run.
        cases: Outcomes of the cases so far, by identifier.
    """

    def __init__(self, run: RunRecord, cases: Mapping[str, CaseRecord] | None = None) -> None:
        self.run = run
        self.cases = dict(cases or {})

    def record(self, case: str, outcome: CaseRecord) -> None:
        """Record the outcome of a case; an earlier record of it is replaced."""
        self.cases[case] = outcome

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
            DataError: It cannot be read or is malformed.
        """
        file = folder / NAME
        if not file.exists():
            return None
        content = read_form(file, _File, VERSION, "Predict into a new folder.")
        return cls(content.run, content.cases)

    def find_changes(self, run: RunRecord) -> tuple[str, ...]:
        """List the settings that differ in another run and may change the predictions."""
        names = [setting.name for setting in fields(RunRecord) if setting.name not in _WITHOUT_INFLUENCE]
        return tuple(name for name in names if _to_data(getattr(self.run, name)) != _to_data(getattr(run, name)))

    def is_complete(self, case: str, requested: CaseRecord, folder: Path, verify: bool = False) -> bool:
        """Check whether a case needs no new prediction, as `explain_incomplete` does."""
        return not self.explain_incomplete(case, requested, folder, verify)

    def explain_incomplete(
        self,
        case: str,
        requested: CaseRecord,
        folder: Path,
        verify: bool = False,
        find_change: "Callable[[Path, FileRecord, bool], str] | None" = None,
    ) -> str:
        """Say why a case needs a new prediction: other prompts, other images, or output files that were changed.

        Output files are compared with the hashes of the manifest. Those above 64 MiB are hashed only if their time of
        modification differs, or to verify them.

        Args:
            case: nnU-Net's case identifier.
            requested: Current context, prompts and inputs; other fields are ignored.
            folder: Folder of the predictions.
            verify: Hash files of any size.
            find_change: Says how an output file, given by its path, its record and `verify`, differs from the record;
                empty if it does not. None: files of this machine are compared.

        Returns:
            The reason, without a point at its end; empty if the case is complete.
        """
        record = self.cases.get(case)
        if record is None:
            return "the manifest does not list it"
        if record.status != COMPLETE:
            return f"the manifest lists it as {record.status}"
        if (record.context, record.prompts) != (requested.context, requested.prompts):
            return "its context or prompts differ"
        if [file.content for file in record.inputs] != [file.content for file in requested.inputs]:
            return "its image was changed"
        find_change = find_change or _find_change
        reasons = (find_change(folder / output.path, output, verify) for output in record.outputs)
        return next(filter(None, reasons), "")


def describe_file(file: Path, path: str | None = None) -> FileRecord:
    """Describe the current state of a file.

    Args:
        file: An existing file.
        path: Path to record; `file` by default.

    Raises:
        OSError: The file cannot be read.
    """
    status, path = file.stat(), to_valid_text(path or str(file))
    if status.st_size <= _HASHED_UP_TO:
        return FileRecord(path, status.st_size, sha256=hash_file(file))
    return FileRecord(path, status.st_size, modified=_read_time(file))


def describe_output(file: Path, path: str) -> FileRecord:
    """Describe a file that was just written, with its hash and its time.

    Args:
        file: An existing file.
        path: Path to record.

    Raises:
        OSError: The file cannot be read.
    """
    return FileRecord(path, file.stat().st_size, sha256=hash_file(file), modified=_read_time(file))


def hash_file(file: Path) -> str:
    """Compute a file's SHA-256, as hexadecimal text."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def current_time() -> str:
    """Return the current time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def list_versions() -> dict[str, str]:
    """Return the versions of the programs that a prediction depends on."""
    return dict(_find_versions())


@functools.cache
def _find_versions() -> dict[str, str]:
    # Cached: the look-up takes time for every case, and has occasionally failed beside other threads.
    hosts = {name: importlib.metadata.version(name) for name in ("nnunetv2", "torch")}
    return {"duplus-nnunet": __version__, **hosts, "python": platform.python_version()}


def _to_data(value: Any) -> Any:
    """Return a value as it is after a round trip through JSON: tuples become lists, numeric keys become strings."""
    return json.loads(json.dumps(value))


def _read_time(file: Path) -> str:
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat()


def _find_change(file: Path, record: FileRecord, verify: bool) -> str:
    """Describe how an output file differs from its record; empty if it does not, or if there is nothing to compare."""
    if not file.is_file():
        return f"{record.path} is missing"
    size = file.stat().st_size
    if size != record.size:
        return f"{record.path} has {size} bytes instead of {record.size}"
    moved = record.modified is not None and _read_time(file) != record.modified
    if record.sha256 is None:
        return f"{record.path} was modified after it was written" if moved else ""
    must_hash = verify or moved or size <= _HASHED_UP_TO
    return (
        f"{record.path} has another SHA-256 than it was written with"
        if must_hash and hash_file(file) != record.sha256
        else ""
    )
