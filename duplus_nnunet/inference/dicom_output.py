"""Writes a prediction as DICOM: segmentations and structure sets that refer to the series that it was made from."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.dicom.codes import NamedMask
from duplus_nnunet.dicom.rtstruct import write_structure_set
from duplus_nnunet.dicom.segmentation import BINARY, LABELMAP, write_segmentation
from duplus_nnunet.dicom.source_slices import Affine, Mask, SourceSlices, lay_on_slices, lies_within, read_source_slices
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.inference.series_match import require_same_series
from duplus_nnunet.outputs.answer import CaseAnswer, TargetAnswer
from duplus_nnunet.outputs.naming import name_case, show_name
from duplus_nnunet.outputs.world import find_affine
from duplus_nnunet.reporting.colours import colour

SEGMENTATION, LABEL_MAP, STRUCTURE_SET = "dicom-seg", "dicom-labelmap", "rtstruct"
# What is added to the name of a case.
ENDINGS = {SEGMENTATION: "_seg.dcm", LABEL_MAP: "_labelmap_seg.dcm", STRUCTURE_SET: "_rtstruct.dcm"}


@dataclass(frozen=True)
class DicomFiles:
    """What was written.

    Attributes:
        files: The files.
        notes: What a reader of them should know, a sentence each.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]


class LaidMasks(Sequence[Mask]):
    """Masks of targets on the slices of a series, made one at a time: all of them would not fit in memory.

    Args:
        answer: The prediction.
        source: The series.

    Raises:
        DataError: The image of the prediction has no world coordinates.
    """

    def __init__(self, answer: CaseAnswer, source: SourceSlices) -> None:
        affine = find_affine(answer.geometry)
        if affine is None:
            raise DataError(
                f"The image of {show_name(answer.case)} has no world coordinates, so that its masks cannot be laid on "
                "the slices of a DICOM series. Predict the series itself, or a NIfTI file made from it."
            )
        self._answer, self._source, self._affine = answer, source, affine
        # Masks of targets that exclude one another are those of the label map: that is laid on the slices once.
        laid, self.same = lay_on_slices(answer.labels, affine, source)
        self.covers = self.same or lies_within(answer.labels.shape, affine, source)
        self._labels: NDArray[np.integer] | None = laid if answer.rivals is not None else None

    def __len__(self) -> int:
        return len(self._answer.targets)

    @overload
    def __getitem__(self, index: int) -> Mask: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mask]: ...
    def __getitem__(self, index: int | slice) -> Mask | Sequence[Mask]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        target = self._answer.targets[index]
        if self._labels is not None:
            mask: Mask = self._labels == target.value
            return mask
        return _lay(target, self._answer.geometry.shape, self._affine, self._source)


def write_dicom(
    answer: CaseAnswer, slices: Sequence[str | os.PathLike[str]], base: Path, formats: Sequence[str], model: str = ""
) -> DicomFiles:
    """Write a prediction as DICOM.

    Args:
        answer: The prediction.
        slices: Every file of the series that the image was made from, in any order.
        base: File name to which the endings of the formats are added.
        formats: Some of `dicom-seg`, `dicom-labelmap` and `rtstruct`.
        model: Name of the model, for the record.

    Raises:
        DataError: A format is unknown, the slices are not one series, the prediction has no world coordinates, or
            targets overlap in a label map.
        HostError: The extra `dicom` is not installed.
    """
    for name in formats:
        if name not in ENDINGS:
            raise DataError(describe_unknown("output format", name, ENDINGS))
    source = read_source_slices([Path(file) for file in slices])
    masks, targets = LaidMasks(answer, source), [_name(target) for target in answer.targets]
    if not masks.covers:
        raise DataError(
            f"The image of {show_name(answer.case)} does not lie within its series: an edge is more than two voxels "
            "outside. It is probably of another series or patient. Name the series that it was made from."
        )
    files, notes = [], [] if masks.same else [_describe_other_grid()]
    for name in formats:
        file = base.with_name(base.name + ENDINGS[name])
        if name == STRUCTURE_SET:
            empty = write_structure_set(file, source, targets, masks, model)
        else:
            empty = write_segmentation(
                file, source, targets, masks, BINARY if name == SEGMENTATION else LABELMAP, model
            )
        notes += _describe_empty(name, empty, len(targets))
        files += [file] if len(empty) < len(targets) else []
    return DicomFiles(tuple(files), tuple(dict.fromkeys(notes)))


def find_slices(folder: str | os.PathLike[str], case: str) -> tuple[str, ...]:
    """List the slices of a case's series in a folder: in its sub-folder of the case's name, or else in itself.

    Raises:
        DataError: There is no DICOM file.
    """
    whole = Path(folder)
    own = whole / name_case(case)
    place = own if own.is_dir() else whole
    files = (
        sorted(str(file) for file in place.rglob("*") if file.is_file() and _is_dicom(file)) if place.is_dir() else []
    )
    if not files:
        raise DataError(
            f"{show_name(str(place))} holds no DICOM file. The series of the case {show_name(case)} is expected in "
            f"{show_name(str(own))}, or, for a single case, in {show_name(str(whole))}."
        )
    return tuple(files)


def check_slices(
    formats: Sequence[str],
    cases: Iterable[tuple[str, Sequence[str]]],
    folder: str | None,
    one_of_several: bool = False,
    images: Mapping[str, str] | None = None,
) -> None:
    """Check, before a prediction starts, that the series of every case is known and can be referred to.

    Args:
        formats: The formats that are asked for; with none, nothing is checked.
        cases: Name of each case, and the slices that its image was read from, if it was a DICOM series.
        folder: Folder of the series, if one was given.
        one_of_several: Whether there are other cases than these, as in a table of jobs.
        images: File of the image of each case, which must have been made from the series; None: not compared.

    Raises:
        DataError: The series of a case is not known, is not one series, or is another one than that of the image.
        HostError: The extra `dicom` is not installed.
    """
    if not formats:
        return
    listed = list(cases)
    needs_own = one_of_several or len(listed) > 1
    for name, slices in listed:
        if not slices and folder is not None and needs_own and not (Path(folder) / name_case(name)).is_dir():
            raise DataError(
                f"There are several cases, and {show_name(folder)} has no sub-folder {name_case(name)!r} with the "
                "series of that case. Name a folder with one sub-folder a case."
            )
        if not slices and folder is None:
            raise DataError(
                f"The image of {show_name(name)} is not a DICOM series, which {' and '.join(formats)} refer to. "
                "Predict a series, or name the folder of the series that the image was made from by --dicom-source."
            )
        source = read_source_slices([Path(file) for file in slices or find_slices(folder or "", name)])
        if not slices and images is not None:
            require_same_series(name, images[name], source)


def _is_dicom(file: Path) -> bool:
    """Report whether a file has DICOM's mark after its preamble."""
    with file.open("rb") as content:
        return content.read(132)[128:] == b"DICM"


def _lay(target: TargetAnswer, shape: Sequence[int], affine: Affine, source: SourceSlices) -> Mask:
    whole = np.zeros(shape, np.bool_)
    whole[target.box] = target.mask
    return lay_on_slices(whole, affine, source)[0]


def _name(target: TargetAnswer) -> NamedMask:
    shade = colour(target.value)
    red, green, blue = (int(shade[start : start + 2], 16) for start in (1, 3, 5))
    return NamedMask(target.name, target.title, target.prompt, (red, green, blue))


def _describe_empty(name: str, empty: Sequence[str], targets: int) -> Iterator[str]:
    if len(empty) == targets:
        yield f"{name}: no target was found, and no file was written"
    elif empty:
        yield f"{name}: not found, and left out of the file: {', '.join(empty)}"


def _describe_other_grid() -> str:
    return (
        "DICOM: the image is not on the grid of its series; each voxel of a slice has the value of the nearest voxel "
        "of the prediction"
    )
