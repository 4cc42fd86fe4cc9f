"""Records which cases of a composed dataset are written, so that an interrupted composition goes on from there."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from duplus_nnunet.data.composing.labels import LabelJob, LabelSummary
from duplus_nnunet.errors import DataError

FILE_NAME = ".composed_cases.jsonl"
# Fewest cases that are worth keeping: fewer are composed again in seconds.
_WORTH_KEEPING = 100


class Journal:
    """The cases that are written in a folder, one a line: what was read of each, and a checksum of its job and files.

    Args:
        folder: The folder; the journal is one file in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / FILE_NAME

    def resume(self, jobs: Mapping[str, LabelJob]) -> dict[str, LabelSummary]:
        """Return the summaries of the cases that are done, and delete everything else in the folder.

        A case is done if its source files, and what is to be made of them, are as they were, and its files are there.

        Args:
            jobs: The job of each case, by its name.
        """
        outputs = [path for job in jobs.values() for path in (*job.new_images, job.new_label) if path is not None]
        folders = {folder for path in outputs if (folder := Path(path).parent).parent == self._folder}
        for other in self._folder.iterdir():  # of a composition with other sources
            if other.is_dir() and other not in folders:
                shutil.rmtree(other)
            elif other.is_file() and other != self._file:
                other.unlink()
        present = {entry.path for folder in folders for entry in os.scandir(folder)}
        done = {}
        for name, (checksum, summary) in self._read().items():
            job = jobs.get(name)
            if job is not None and present.issuperset(_list_outputs(job)) and _checksum(job) == checksum:
                done[name] = summary
        for path in present - {path for name in done for path in _list_outputs(jobs[name])}:
            os.unlink(path)
        with self._file.open("w", encoding="utf-8") as file:
            file.writelines(_write_line(name, jobs[name], summary) for name, summary in done.items())
        return done

    def note(self, name: str, job: LabelJob, summary: LabelSummary) -> None:
        """Note that a case is written."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(_write_line(name, job, summary))

    def close(self) -> None:
        """Delete the journal: the dataset is complete."""
        self._file.unlink(missing_ok=True)

    def _read(self) -> dict[str, tuple[str, LabelSummary]]:
        """Read the cases; a line that was cut off is ignored."""
        cases: dict[str, tuple[str, LabelSummary]] = {}
        with suppress(FileNotFoundError):
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    summary = LabelSummary(frozenset(row["values"]), str(row["orientation"]), int(row["rounded"]))
                    cases[row["case"]] = str(row["checksum"]), summary
        return cases


def count_kept(folder: Path) -> int:
    """Count the cases that are written in a folder; 0 if they are too few to be worth keeping."""
    with suppress(OSError), (folder / FILE_NAME).open("rb") as file:
        count = sum(1 for _ in file)
        return count if count >= _WORTH_KEEPING else 0
    return 0


def _write_line(name: str, job: LabelJob, summary: LabelSummary) -> str:
    row = {
        "case": name,
        "checksum": _checksum(job),
        "values": sorted(int(value) for value in summary.values),
        "orientation": summary.orientation,
        "rounded": int(summary.rounded),
    }
    return json.dumps(row) + "\n"


def _list_outputs(job: LabelJob) -> list[str]:
    label = [job.new_label] if job.new_label is not None and job.label is not None else []
    return [*job.new_images, *label]


def _checksum(job: LabelJob) -> str:
    """Compute a checksum of what a case is made of: its files with their sizes and times, and its new values."""
    stamps = [_stamp(file) for file in (*job.images, *([job.label] if job.label else []))]
    content = repr((job.images, job.label, sorted(job.table.items()), job.new_images, job.new_label, stamps))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _stamp(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}). Correct the link, or remove it.") from error
    return status.st_size, status.st_mtime_ns
