"""Writes masks as a DICOM RT Structure Set: closed contours, one or more a slice, that refer to their source series.

Patient and study are those of the source: the file belongs beside it in the archive. Targets without a voxel are left
out. Contours and holes: see `duplus_nnunet.dicom.contours`.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet import __version__
from duplus_nnunet.dicom.codes import NamedMask, find_target_code, is_lesion, make_concept_with_modifier, shorten
from duplus_nnunet.dicom.contours import Contour, trace_contours
from duplus_nnunet.dicom.extra import require
from duplus_nnunet.dicom.segmentation import (
    MAKER,
    copy_header,
    describe_algorithm,
    describe_private_scheme,
    find_present,
)
from duplus_nnunet.dicom.source_slices import Mask, SourceSlices
from duplus_nnunet.files import open_new_file

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
# The class that a structure set names for a study: retired, and still what the standard asks for.
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_SERIES_NUMBER = 902
_SHORT, _LONG = 16, 64
# Coordinates in mm are written to a ten-thousandth; a text of a number has at most 16 letters.
_DIGITS = 4
_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
_OPTIONAL = ("SpecificCharacterSet", "IssuerOfPatientID", "StudyDescription", "PatientAge", "PatientSize",
             "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod")  # fmt: skip


def write_structure_set(
    file: Path, source: SourceSlices, targets: Sequence[NamedMask], masks: Sequence[Mask], model: str = ""
) -> tuple[str, ...]:
    """Write masks as one RT Structure Set.

    Args:
        file: The file.
        source: The source series.
        targets: Names of the targets.
        masks: Mask of each target, shape (slices, rows, columns) of the series; they may overlap.
        model: Name of the model, for the record.

    Returns:
        Names of the targets that were left out, as their masks are empty. If all are, no file is written.

    Raises:
        DataError: The masks are on another grid.
        HostError: The extra `dicom` is not installed.
    """
    present = find_present(source, masks)
    empty = tuple(target.name for index, target in enumerate(targets) if index not in present)
    if not present:
        return empty
    content = _start(source)
    _describe_set(content, source)
    content.StructureSetROISequence, content.ROIContourSequence, content.RTROIObservationsSequence = [], [], []
    for number, index in enumerate(present, 1):
        target, mask = targets[index], masks[index]
        content.StructureSetROISequence.append(_describe_roi(number, target, source, model))
        content.ROIContourSequence.append(_describe_contours(number, target, mask, source))
        content.RTROIObservationsSequence.append(_describe_observation(number, target))
    content.CodingSchemeIdentificationSequence = describe_private_scheme()
    with open_new_file(file) as new:
        content.save_as(new, enforce_file_format=True)
    return empty


def _start(source: SourceSlices) -> Any:
    """Start a file with patient, study, series and equipment."""
    pydicom = require("pydicom")
    content, header = pydicom.Dataset(), copy_header(source)
    for name in (*_PATIENT, *_STUDY, *_OPTIONAL):
        if name in header:
            content[name] = header[name]
    content.SOPClassUID, content.SOPInstanceUID = STRUCTURE_SET, pydicom.uid.generate_uid(prefix=None)
    content.Modality, content.OperatorsName, content.SeriesNumber = "RTSTRUCT", "", _SERIES_NUMBER
    content.SeriesInstanceUID = pydicom.uid.generate_uid(prefix=None)
    content.SeriesDescription = f"{MAKER}: predicted contours"
    content.Manufacturer = content.ManufacturerModelName = MAKER
    content.SoftwareVersions, content.InstanceNumber = __version__, 1
    content.FrameOfReferenceUID, content.PositionReferenceIndicator = source.frame_of_reference, ""
    content.ApprovalStatus = "UNAPPROVED"
    content.file_meta = pydicom.dataset.FileMetaDataset()
    content.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    return content


def _describe_set(content: Any, source: SourceSlices) -> None:
    """Add what the structure set as a whole refers to."""
    now = datetime.now()  # DICOM's dates and times are local
    content.StructureSetLabel, content.StructureSetName = "PREDICTION", f"{MAKER}: predicted contours"
    content.StructureSetDate, content.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    content.InstanceCreationDate, content.InstanceCreationTime = content.StructureSetDate, content.StructureSetTime
    content.StructureSetDescription = "Predicted by a model; not reviewed"
    images = [_make_item(_make_reference(header)) for header in source.headers]
    series = _make_item({"SeriesInstanceUID": source.series, "ContourImageSequence": images})
    study = _make_item(
        {
            "ReferencedSOPClassUID": _STUDY_CLASS,
            "ReferencedSOPInstanceUID": str(source.headers[0].StudyInstanceUID),
            "RTReferencedSeriesSequence": [series],
        }
    )
    frame = {"FrameOfReferenceUID": source.frame_of_reference, "RTReferencedStudySequence": [study]}
    content.ReferencedFrameOfReferenceSequence = [_make_item(frame)]


def _describe_roi(number: int, target: NamedMask, source: SourceSlices, model: str) -> Any:
    return _make_item(
        {
            "ROINumber": number,
            "ReferencedFrameOfReferenceUID": source.frame_of_reference,
            "ROIName": target.label,
            "ROIDescription": shorten(target.description, 1024),
            "ROIGenerationAlgorithm": "AUTOMATIC",
            "ROIDerivationAlgorithmIdentificationSequence": describe_algorithm(model),
        }
    )


def _describe_contours(number: int, target: NamedMask, mask: Mask, source: SourceSlices) -> Any:
    contours = [
        _make_item(
            {
                "ContourNumber": count,
                "ContourImageSequence": [_make_item(_make_reference(source.slices[index].header, index, source))],
                "ContourGeometricType": "CLOSED_PLANAR",
                "NumberOfContourPoints": len(contour),
                "ContourData": _to_texts(contour, index, source),
            }
        )
        for count, (index, contour) in enumerate(_list_contours(mask), 1)
    ]
    return _make_item(
        {"ROIDisplayColor": list(target.colour), "ContourSequence": contours, "ReferencedROINumber": number}
    )


def _describe_observation(number: int, target: NamedMask) -> Any:
    code = find_target_code(target.name)
    keyword = "SegmentedPropertyTypeModifierCodeSequence"
    return _make_item(
        {
            "ObservationNumber": number,
            "ReferencedROINumber": number,
            "ROIObservationLabel": shorten(target.label, _SHORT),
            "RTROIIdentificationCodeSequence": [make_concept_with_modifier(code.type, code.modifier, keyword)],
            "RTROIInterpretedType": _interpret(target.name),
            "ROIInterpreter": "",
        }
    )


def _interpret(name: str) -> str:
    """Choose DICOM's type of a region of interest; empty, which means not known, for a target without a code."""
    from duplus_nnunet.prompt_registry.codes import find_code

    code = find_code(name)
    return "" if code is None else "GTV" if is_lesion(code) else "ORGAN"


def _list_contours(mask: Mask) -> Iterator[tuple[int, Contour]]:
    """List the contours of a mask with the index of their slice."""
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        for contour in trace_contours(mask[index]):
            yield int(index), contour


def _to_texts(contour: Contour, index: int, source: SourceSlices) -> list[str]:
    """Write the corners of a contour in mm (LPS), x, y and z of one after another."""
    corners = np.column_stack([contour, np.ones(len(contour))]) @ source.locate(index)[:3].T
    return [f"{number:.{_DIGITS}f}" for number in corners.ravel()]


def _make_reference(header: Any, index: int | None = None, source: SourceSlices | None = None) -> dict[str, Any]:
    """Refer to a file, and to the frame of a slice in it."""
    reference: dict[str, Any] = {
        "ReferencedSOPClassUID": str(header.SOPClassUID),
        "ReferencedSOPInstanceUID": str(header.SOPInstanceUID),
    }
    frame = None if source is None or index is None else source.slices[index].frame
    return reference if frame is None else {**reference, "ReferencedFrameNumber": frame}


def _make_item(values: dict[str, Any]) -> Any:
    item = require("pydicom").Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
