"""Finds files of structures in a folder, and the series that each was drawn on."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from duplus_nnunet.dicom.extra import require
from duplus_nnunet.dicom.structures import SEGMENTATION, STRUCTURES, StructureFile, open_structure_file
from duplus_nnunet.errors import DataError


@dataclass(frozen=True)
class DrawnCase:
    """A series with structures.

    Attributes:
        structures: The file of structures.
        slices: Files of the series.
        series: Its UID.
        patient: Patient ID; it stays out of names and records unless it is asked for.
        modality: DICOM's code, such as CT.
    """

    structures: StructureFile
    slices: tuple[Path, ...]
    series: str
    patient: str
    modality: str

    @property
    def names(self) -> list[str]:
        """Names of the structures."""
        content = self.structures.content
        if self.structures.kind == STRUCTURES:
            items, keyword = content.get("StructureSetROISequence", []), "ROIName"
        else:
            items, keyword = content.get("SegmentSequence", []), "SegmentLabel"
        return [name for item in items if (name := str(item.get(keyword, "")).strip())]


def find_drawn_cases(source: Path, files: Sequence[Path] = ()) -> list[DrawnCase]:
    """Find the cases in a folder.

    Args:
        source: Folder with series, of one patient or of several, at any depth.
        files: Files of structures; empty: all in the folder.

    Returns:
        The cases, in the order of the UIDs of their series.

    Raises:
        DataError: There is no file of structures, its series is not in the folder, or two files are of one series.
        HostError: The extra `dicom` is not installed.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder. Name the folder of the DICOM series.")
    series: dict[str, list[Any]] = defaultdict(list)
    drawn: list[Path] = list(files)
    for header in _list_headers(source):
        modality = str(header.get("Modality", ""))
        if modality in (STRUCTURES, SEGMENTATION):
            drawn += [] if files else [Path(header.filename)]
        elif header.get("SeriesInstanceUID") and header.get("Rows"):
            series[str(header.SeriesInstanceUID)].append(header)
    if not drawn:
        raise DataError(f"{source} holds no RTSTRUCT and no SEG file. Name one by --rtstruct or --seg.")
    cases = [_make_case(open_structure_file(file), series, source) for file in drawn]
    cases.sort(key=lambda case: case.series)
    for one, other in pairwise(cases):
        if one.series == other.series:
            raise DataError(
                f"{one.structures.file} and {other.structures.file} are of one series. Name the one to use by "
                "--rtstruct or --seg, or remove the other."
            )
    return cases


def _make_case(found: StructureFile, series: dict[str, list[Any]], source: Path) -> DrawnCase:
    uid = found.series or (next(iter(series)) if len(series) == 1 else "")
    if not uid:
        raise DataError(
            f"{found.file} does not say which of the {len(series)} series in {source} it was drawn on. Name a folder "
            "with that series alone."
        )
    if uid not in series:
        raise DataError(
            f"{found.file} refers to a series that is not in {source}. Name the folder that holds the series of the "
            "structures."
        )
    headers = series[uid]
    files = tuple(sorted(Path(header.filename) for header in headers))
    return DrawnCase(found, files, uid, str(headers[0].get("PatientID", "")), str(headers[0].get("Modality", "")))


def _list_headers(folder: Path) -> Iterator[Any]:
    """Read the headers of all DICOM files in a folder; other files are passed over."""
    pydicom = require("pydicom")
    names = ["Modality", "SeriesInstanceUID", "PatientID", "Rows"]
    for root, _, files in sorted(os.walk(folder)):
        for name in sorted(files):
            try:
                yield pydicom.dcmread(Path(root, name), stop_before_pixels=True, specific_tags=names)
            except (OSError, pydicom.errors.InvalidDicomError):
                continue
