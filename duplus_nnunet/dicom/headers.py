"""Reads the headers of DICOM files: one slice of a file, or one a frame of a multi-frame file."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from duplus_nnunet.dicom.extra import require
from duplus_nnunet.dicom.series import Description, Slice
from duplus_nnunet.errors import DataError

# Where volumes at one place are told apart, the first of these that does; of MR and PET, time comes first.
MARKS = (
    "TemporalPositionIndex", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "DiffusionBValue", "EchoTime", "EffectiveEchoTime", "EchoNumbers", "FrameReferenceTime", "AcquisitionNumber",
    "FrameAcquisitionNumber", "ConvolutionKernel", "ImageType", "FrameType", "ContentTime", "AcquisitionTime",
)  # fmt: skip
_WORDS = (
    "ProtocolName",
    "SequenceName",
    "ScanningSequence",
    "SequenceVariant",
    "ContrastBolusAgent",
    "StudyDescription",
)
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "ImageType",
    "SeriesDescription", "BodyPartExamined", "InstanceNumber", "NumberOfFrames", "Rows", "Columns", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "AcquisitionDate",
    "AcquisitionDateTime", "SeriesDate", "FrameOfReferenceUID", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "SamplesPerPixel", "AnatomicRegionSequence", *_WORDS, *MARKS,
)  # fmt: skip
# The bytes DICM after a preamble of 128 bytes.
_PREAMBLE, _MAGIC = 128, b"DICM"
# A directory of the files on a medium: its SOP class, and the name that the standard gives it.
DIRECTORY, DIRECTORY_NAME = "1.2.840.10008.1.3.10", "DICOMDIR"


def read_header(file: Path) -> Any | None:
    """Read what a file's header says about its place in a series; None if it is not DICOM, or a directory of files.

    Raises:
        DataError: It is marked as DICOM, and damaged: it may have been a slice.
    """
    pydicom = load_pydicom()
    if file.name.upper() == DIRECTORY_NAME:
        return None
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
        if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DIRECTORY:
            return None
        if header.get("SeriesInstanceUID"):
            describe(header)  # values are decoded when they are asked for
            return header
    except Exception as error:  # a damaged file may fail in any way
        if is_marked(file):
            raise DataError(f"It is damaged: {type(error).__name__}.") from error
        return None
    if is_marked(file):
        raise DataError("It has no SeriesInstanceUID (0020,000E).")
    return None


def is_marked(file: Path) -> bool:
    """Report whether a file has DICOM's mark after its preamble."""
    try:
        with file.open("rb") as content:
            return content.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC
    except OSError:
        return False


def load_pydicom() -> Any:
    """Import pydicom, without its warnings of values that break a rule: they quote the value, which may name a patient.

    Raises:
        HostError: It is not installed.
    """
    pydicom = require("pydicom")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


def describe(header: Any) -> Description:
    """Return what a header says about its series."""
    parts = [str(item.get("CodeMeaning", "")) for item in header.get("AnatomicRegionSequence") or ()]
    return Description(
        uid=str(header.SeriesInstanceUID),
        study=_text(header, "StudyInstanceUID"),
        patient=_text(header, "PatientID"),
        modality=_text(header, "Modality").upper(),
        text=_text(header, "SeriesDescription"),
        body_part=_text(header, "BodyPartExamined") or " ".join(parts),
        words=tuple(word for word in (_text(header, name) for name in _WORDS) if word),
        image_type=tuple(map(str, _values(header.get("ImageType")))),
        sop_class=_text(header, "SOPClassUID"),
    )


def list_slices(file: Path, header: Any) -> tuple[list[Slice], str]:
    """List the slices of a file.

    Returns:
        The slices; and why there are none, empty if there are.
    """
    if not header.get("Rows") or not header.get("Columns"):
        return [], "it holds no images"
    try:
        return list(_list_frames(file, header)), ""
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError):
        return [], (
            "its images have no usable ImagePositionPatient, ImageOrientationPatient or PixelSpacing, so that their "
            "place in the patient is not known"
        )


def _list_frames(file: Path, header: Any) -> Iterator[Slice]:
    if "PerFrameFunctionalGroupsSequence" not in header:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise ValueError
        yield _make_slice(file, header, [header], 0, int(header.get("InstanceNumber") or 0))
        return
    shared = list(header.get("SharedFunctionalGroupsSequence") or ())
    for index, own in enumerate(header.PerFrameFunctionalGroupsSequence):
        items = [item for group in (own, *shared) for item in _flatten(group)]
        yield _make_slice(file, header, [*items, header], index, index + 1)


def _flatten(group: Any) -> Iterator[Any]:
    """Yield the items of all functional groups of a frame."""
    for element in group:
        if element.VR == "SQ":
            yield from element.value


def _make_slice(file: Path, header: Any, items: list[Any], frame: int, number: int) -> Slice:
    def find(name: str) -> Any:
        return next((item[name].value for item in items if name in item and item[name].value not in (None, "")), None)

    spacing, directions, position = (
        tuple(float(value) for value in find(name))
        for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
    )
    if (len(spacing), len(directions), len(position)) != (2, 6, 3):
        raise ValueError
    slope, intercept = find("RescaleSlope"), find("RescaleIntercept")
    if (
        _text(header, "Modality") == "PT" and find("RealWorldValueSlope") is not None
    ):  # enhanced PET names its unit there
        slope, intercept = find("RealWorldValueSlope"), find("RealWorldValueIntercept")
    marks = {name: "\\".join(map(str, _values(find(name)))) for name in MARKS}
    return Slice(
        file,
        str(header.SOPInstanceUID),
        frame,
        (int(header.Rows), int(header.Columns)),
        (spacing[0], spacing[1]),
        directions,
        position,
        number,
        None if slope is None else float(slope),
        None if intercept is None else float(intercept),
        {name: value for name, value in marks.items() if value},
        read_moment(header, "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime"),
    )


def read_moment(header: Any, both: str, date: str, time: str) -> datetime | None:
    """Read a date and time: one element, or a date and a time; None if they are missing or not valid.

    A time without a date gets the date of the series. A time zone is left out: all times of a series have the same.
    """
    text = _text(header, both)
    if len(text) < 12:
        day = _text(header, date) or _text(header, "SeriesDate")
        text = day.replace(".", "") + _text(header, time).replace(":", "")
    text = text.partition("+")[0]
    text = text.partition("-")[0]
    whole, _, rest = text.partition(".")
    try:
        moment = datetime.strptime(whole[:14].ljust(14, "0") if len(whole) > 8 else "", "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return moment + timedelta(seconds=float(f"0.{rest}")) if rest.isdecimal() else moment


def _text(header: Any, name: str) -> str:
    return " ".join(map(str, _values(header.get(name)))).strip()


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, bytes, int, float)) or not hasattr(value, "__iter__"):
        return [value]
    return list(value)
