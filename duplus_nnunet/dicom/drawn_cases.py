"""Finds files of structures in a folder, and the series that each was drawn on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from duplus_nnunet.dicom.finding import STRUCTURE_MODALITIES, Study, find_series
from duplus_nnunet.dicom.series import Series
from duplus_nnunet.dicom.structures import STRUCTURES, StructureFile, list_references, open_structure_file
from duplus_nnunet.errors import DataError


@dataclass(frozen=True)
class DrawnCase:
    """A series with structures.

    Attributes:
        structures: The file of structures.
        series: The series, or the volume of a series of several.
        study: Keeps what was unpacked.
    """

    structures: StructureFile
    series: Series
    study: Study = field(compare=False, repr=False)

    @property
    def patient(self) -> str:
        """Patient ID; it stays out of names and records unless it is asked for."""
        return self.series.about.patient

    @property
    def modality(self) -> str:
        """DICOM's code, such as CT."""
        return self.series.modality

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
        source: Folder or zip file with series, of one patient or of several, at any depth.
        files: Files of structures; empty: all in the folder.

    Returns:
        The cases, in the order of the UIDs of their series.

    Raises:
        DataError: There is no file of structures, its series is not in the folder, or two files are of one series.
        HostError: The extra `dicom` is not installed.
    """
    study = find_series(source)
    drawn = list(files) or list(study.structures)
    if not drawn:
        raise DataError(f"{source} holds no RTSTRUCT and no SEG file. Name one by --rtstruct or --seg.")
    cases = [_make_case(open_structure_file(file), study, source) for file in drawn]
    cases.sort(key=lambda case: (case.series.uid, case.series.part))
    for one, other in pairwise(cases):
        if one.series == other.series:
            raise DataError(
                f"{one.structures.file} and {other.structures.file} are of one series. Name the one to use by "
                "--rtstruct or --seg, or remove the other."
            )
    return cases


def _make_case(found: StructureFile, study: Study, source: Path) -> DrawnCase:
    images = [one for one in study.series if one.modality not in STRUCTURE_MODALITIES]
    possible = {one.uid for one in images if one.is_usable} or {one.uid for one in images if one.slices}
    uid = found.series or (next(iter(possible)) if len(possible) == 1 else "")
    if not uid:
        raise DataError(
            f"{found.file} does not say which of the {len(possible)} series in {source} it was drawn on. Name a folder "
            "with that series alone."
        )
    volumes = [one for one in images if one.uid == uid]
    if not volumes:
        raise DataError(
            f"{found.file} refers to a series that is not in {source}. Name the folder that holds the series of the "
            "structures."
        )
    return DrawnCase(found, _choose_volume(found, volumes), study)


def _choose_volume(found: StructureFile, volumes: Sequence[Series]) -> Series:
    """Choose the volume, of a series of several, whose images the contours or frames of a file refer to."""
    if len(volumes) == 1:
        return volumes[0]
    references = list_references(found)
    fitting = [one for one in volumes if not references.isdisjoint(part.instance for part in one.slices)]
    if len(fitting) != 1:
        raise DataError(
            f"The series of {found.file} holds {len(volumes)} volumes, and the file refers to {len(fitting)} of them; "
            "expected one. Name a folder with the slices of that volume alone."
        )
    return fitting[0]
