"""Finds the series in a folder, or in a zip file that is unpacked into a temporary folder."""

import os
import shutil
import tempfile
import weakref
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO

from duplus_nnunet.dicom.checks import make_series
from duplus_nnunet.dicom.headers import DIRECTORY_NAME, describe, is_marked, list_slices, read_header
from duplus_nnunet.dicom.series import Description, Series, Slice
from duplus_nnunet.errors import DataError

# A zip file that unpacks to more is refused: 64 GiB, a million files, or what the disk has free.
_MOST_BYTES, _MOST_FILES = 64 << 30, 1_000_000
_BLOCK = 1 << 20
STRUCTURE_MODALITIES = ("RTSTRUCT", "SEG")
# What all files of a series have in common.
_OWNERS = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")


class Workspace:
    """A temporary folder that only the user may read; it is removed when nothing refers to it any more."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="duplus-dicom-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder now."""
        self._remove()


@dataclass(frozen=True)
class Study:
    """What was found in a folder or zip file.

    Attributes:
        series: By patient, study and series; those that cannot be read too.
        others: Number of files that are not DICOM.
        workspace: Where a zip file was unpacked; None of a folder.
        structures: Files of structures: RT Structure Sets and DICOM Segmentations.
    """

    series: tuple[Series, ...]
    others: int = 0
    workspace: Workspace | None = field(default=None, compare=False)
    structures: tuple[Path, ...] = ()


def find_series(source: Path) -> Study:
    """Find all series in a folder, however its files are named and nested, or in a zip file.

    Raises:
        DataError: The source is missing, holds no DICOM series, or is a zip file that is not safe to unpack.
        HostError: The extra `dicom` is not installed.
    """
    workspace = None
    if source.is_dir():
        folder = source
    elif zipfile.is_zipfile(source):
        workspace = Workspace()
        _unpack(source, workspace.folder)
        folder = workspace.folder
    elif source.is_file():
        raise DataError(f"{source.name} is one file; name the folder of the DICOM series, or a zip file of it.")
    else:
        raise DataError(f"{source} is missing, or is neither a folder nor a zip file. Check the path.")
    found: dict[str, tuple[Description, list[Slice], Counter[str]]] = {}
    owners: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    damaged: Counter[Path] = Counter()
    structures: list[Path] = []
    others = 0
    for file in _walk(folder):
        try:
            header = read_header(file)
        except DataError:
            damaged[file.parent] += 1
            continue
        if header is None:
            others += 1
            continue
        structures += [file] if describe(header).modality in STRUCTURE_MODALITIES else []
        owners[str(header.SeriesInstanceUID)].add(tuple(str(header.get(name) or "") for name in _OWNERS))
        _, slices, reasons = found.setdefault(str(header.SeriesInstanceUID), (describe(header), [], Counter()))
        own, reason = list_slices(file, header)
        slices += own
        if reason:
            reasons[reason] += 1
    if not found:
        raise DataError(f"{source} holds no DICOM series: {_describe_files(others, sum(damaged.values()))}")
    series = [
        one for about, slices, reasons in found.values() for one in make_series(about, slices, _join_reasons(reasons))
    ]
    series = [_refuse_mixture(one, owners[one.uid], damaged) for one in series]
    return Study(tuple(sorted(series, key=_sort_key)), others, workspace, tuple(structures))


def _describe_files(others: int, damaged: int) -> str:
    unread = f", {damaged} DICOM file(s) damaged or without a SeriesInstanceUID (0020,000E)" if damaged else ""
    return f"{others} file(s) that are not DICOM{unread}. Name the folder of a series."


def _refuse_mixture(series: Series, owners: set[tuple[str, ...]], damaged: Counter[Path]) -> Series:
    """Refuse a series of several patients, studies or frames of reference, or with a damaged file beside its slices."""
    refusals = [
        f"Its files have {len(values)} different values of {name}."
        for name, values in zip(_OWNERS, map(set, zip(*owners, strict=True)), strict=True)
        if len(values) > 1
    ]
    count = sum(damaged[folder] for folder in {file.parent for file in series.files})
    if count:
        refusals.append(
            f"{count} DICOM file(s) beside its slices are damaged, so that a slice may be missing. Copy the series "
            "again, or remove these files if they are not of it."
        )
    return replace(series, refusals=(*series.refusals, *refusals)) if refusals else series


def holds_dicom(source: Path) -> bool:
    """Report whether a path is a zip file, or a folder with a DICOM file in it or in its sub-folders."""
    if source.is_dir():
        return any(map(is_marked, _walk(source)))
    return source.is_file() and zipfile.is_zipfile(source)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(files))


def _join_reasons(reasons: Counter[str]) -> str:
    return "; ".join(f"{reason} ({count} file(s))" for reason, count in reasons.items())


def _sort_key(series: Series) -> tuple[str, str, str, int, int]:
    return series.about.patient, series.about.study, series.uid, series.part, -len(series.slices)


def _unpack(file: Path, folder: Path) -> None:
    """Unpack a zip file under numbers, in a numbered folder for each of its folders; a DICOMDIR is left out.

    Raises:
        DataError: It is damaged, encrypted or too large, or an entry has a path outside of the folder.
    """
    limit = min(_MOST_BYTES, shutil.disk_usage(folder).free)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [
                entry
                for entry in archive.infolist()
                if not entry.is_dir() and PurePosixPath(entry.filename).name.upper() != DIRECTORY_NAME
            ]
            _check_entries(file, entries, limit)
            parents: dict[str, Path] = {}
            for number, entry in enumerate(entries):
                parent = str(PurePosixPath(entry.filename.replace("\\", "/")).parent)
                place = parents.setdefault(parent, folder / f"{len(parents):06d}")
                place.mkdir(exist_ok=True)
                with archive.open(entry) as packed, (place / f"{number:06d}").open("wb") as unpacked:
                    limit -= _copy(packed, unpacked, limit, file)
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{file.name} cannot be unpacked ({error}). Unpack it yourself, and name the folder."
        ) from error


def _check_entries(file: Path, entries: list[zipfile.ZipInfo], limit: int) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > limit or len(entries) > _MOST_FILES:
        raise DataError(
            f"{file.name} unpacks to {len(entries)} files of {size / 2**30:.1f} GiB; at most {_MOST_FILES} files and "
            f"{limit / 2**30:.1f} GiB are unpacked here. Unpack it yourself, and name the folder."
        )
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise DataError(f"{file.name} has an entry whose path leads outside of its folder. Do not trust the file.")
        if entry.flag_bits & 1:
            raise DataError(f"{file.name} is encrypted. Unpack it yourself, and name the folder.")


def _copy(packed: IO[bytes], unpacked: IO[bytes], limit: int, file: Path) -> int:
    """Copy an entry, and return its size, which is not what the entry says if the file was made to deceive."""
    size = 0
    while block := packed.read(_BLOCK):
        size += len(block)
        if size > limit:
            raise DataError(f"{file.name} unpacks to more than it says. Do not trust the file.")
        unpacked.write(block)
    return size
