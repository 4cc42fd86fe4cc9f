"""Writes masks as a DICOM Segmentation that refers to the slices of their source series.

Patient and study are those of the source: the file belongs beside it in the archive. Targets without a voxel are left
out, since many readers fail on segments without frames.
"""

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet import __version__
from duplus_nnunet.dicom.codes import (
    NamedMask,
    find_target_code,
    make_coded_concept,
    make_concept_with_modifier,
    shorten,
)
from duplus_nnunet.dicom.extra import require
from duplus_nnunet.dicom.source_slices import Mask, SourceSlices
from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file

BINARY, LABELMAP = "binary", "labelmap"
FORMS = (BINARY, LABELMAP)
MAKER = "DuPLUS for nnU-Net"
_SERIES_NUMBER = 901
_LONGEST_TEXT = 64
# Attributes of patient and study that may be empty, and are missing in files without identities.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)


def write_segmentation(
    file: Path,
    source: SourceSlices,
    targets: Sequence[NamedMask],
    masks: Sequence[Mask],
    form: str = BINARY,
    model: str = "",
) -> tuple[str, ...]:
    """Write masks as one DICOM Segmentation.

    Args:
        file: The file.
        source: The source series.
        targets: Names of the targets.
        masks: Mask of each target, shape (slices, rows, columns) of the series.
        form: `binary`, in which targets may overlap, or `labelmap`, in which a voxel belongs to one target.
        model: Name of the model, for the record.

    Returns:
        Names of the targets that were left out, as their masks are empty. If all are, no file is written.

    Raises:
        DataError: The masks are on another grid, or overlap in a label map.
        HostError: The extra `dicom` is not installed.
    """
    present = find_present(source, masks)
    empty = tuple(target.name for index, target in enumerate(targets) if index not in present)
    if not present:
        return empty
    kept = [targets[index] for index in present]
    pixels = _join(kept, (masks[index] for index in present), source.shape, form)
    if pixels is None:
        pixels = np.stack([masks[index] for index in present], axis=-1)
    content = _make(source, kept, _order_frames(pixels, source), form, model)
    with open_new_file(file) as new:
        content.save_as(new, enforce_file_format=True)
    return empty


def find_present(source: SourceSlices, masks: Sequence[Mask]) -> list[int]:
    """List the masks that are not empty, by their numbers from 0.

    Raises:
        DataError: A mask has another shape than the series.
    """
    present = []
    for index, mask in enumerate(masks):
        if mask.shape != source.shape:
            raise DataError(
                f"A mask has the shape {mask.shape}; the source series has {source.shape} (slices, rows, columns). "
                "Lay it on the slices of the series first."
            )
        present += [index] if mask.any() else []
    return present


def copy_header(source: SourceSlices) -> Any:
    """Copy the header of the first file of a series, with all texts in UTF-8, which names of targets may need.

    Attributes of patient and study that it lacks become empty, and the thickness of slices their distance.
    """
    header = copy.deepcopy(source.headers[0])
    header.decode()
    for name in _MAY_BE_EMPTY:
        setattr(header, name, str(header.get(name) or ""))
    if not header.get("SliceThickness") and source.slices[0].frame is None:
        header.SliceThickness = f"{source.slice_distance:.6f}"
    header.SpecificCharacterSet = "ISO_IR 192"
    return header


def _join(
    targets: Sequence[NamedMask], masks: Iterable[Mask], shape: tuple[int, int, int], form: str
) -> NDArray[Any] | None:
    """Join masks to a label map with the numbers of the segments; None if they overlap, as a binary form may."""
    labels = np.zeros(shape, np.uint8 if len(targets) < 256 else np.uint16)
    for number, mask in enumerate(masks, 1):
        shared = labels[mask]
        if shared.any():
            if form == BINARY:
                return None
            other = targets[int(shared[shared > 0][0]) - 1].name
            raise DataError(
                f"{targets[number - 1].name!r} and {other!r} overlap, and a label map has one target for a voxel. "
                "Write a binary segmentation (dicom-seg) instead."
            )
        labels[mask] = number
    return labels


def _order_frames(pixels: NDArray[Any], source: SourceSlices) -> NDArray[Any]:
    """Put the slices into the order in which the source file has its frames, if it is one of several frames."""
    frames = [one.frame for one in source.slices if one.frame is not None]
    if not frames:
        return pixels
    if len(source.headers) > 1:
        raise DataError(
            f"The series has {len(source.headers)} multi-frame files; a segmentation refers to one. Name one of them."
        )
    return pixels[np.argsort(frames)]


def _make(source: SourceSlices, targets: Sequence[NamedMask], pixels: NDArray[Any], form: str, model: str) -> Any:
    segmentation, uid = require("highdicom.seg"), require("pydicom").uid.generate_uid
    headers = [copy_header(source), *source.headers[1:]]
    with warnings.catch_warnings():
        # Names of patients may be in forms that pydicom warns of; they are copied as they are.
        warnings.simplefilter("ignore", UserWarning)
        content = segmentation.Segmentation(
            headers,
            pixels,
            form.upper(),
            [_describe(number, target, model) for number, target in enumerate(targets, 1)],
            series_instance_uid=uid(prefix=None),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=uid(prefix=None),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=shorten(model, _LONGEST_TEXT) or MAKER,
            software_versions=__version__,
            device_serial_number="0",
            content_description="Predicted by a model; not reviewed",
            content_label="PREDICTION",
            series_description=f"{MAKER}: predicted masks",
        )
    content.CodingSchemeIdentificationSequence = describe_private_scheme()
    content.ContentCreatorName = ""  # it has to be there, and highdicom leaves it out
    return content


def describe_private_scheme() -> Any:
    """Describe the coding scheme of targets without a code of SNOMED CT."""
    from duplus_nnunet.dicom.codes import PRIVATE_SCHEME

    pydicom = require("pydicom")
    item = pydicom.Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = PRIVATE_SCHEME, f"{MAKER}: names of targets"
    return pydicom.Sequence([item])


def describe_algorithm(model: str) -> Any:
    """Describe the program that made the masks, as an item of an algorithm identification sequence."""
    content, codes = require("highdicom.content"), require("pydicom.sr.codedict").codes
    parameters: Mapping[str, str] | None = {"model": model} if model else None
    family = codes.cid7162.ArtificialIntelligence
    return content.AlgorithmIdentificationSequence(MAKER, family, __version__, parameters=parameters)


def _describe(number: int, target: NamedMask, model: str) -> Any:
    segmentation, colours = require("highdicom.seg"), require("highdicom.color")
    code = find_target_code(target.name)
    regions = None
    if code.region is not None:
        keyword = "AnatomicRegionModifierSequence"
        regions = [make_concept_with_modifier(code.region, code.region_modifier, keyword)]
    item = segmentation.SegmentDescription(
        number,
        target.label,
        make_coded_concept(code.category),
        make_concept_with_modifier(code.type, code.modifier, "SegmentedPropertyTypeModifierCodeSequence"),
        "AUTOMATIC",
        describe_algorithm(model),
        tracking_uid=require("pydicom").uid.generate_uid(prefix=None),
        tracking_id=shorten(target.name, _LONGEST_TEXT),
        anatomic_regions=regions,
        display_color=colours.CIELabColor.from_rgb(*target.colour),
    )
    if target.description:
        item.SegmentDescription = shorten(target.description, 1024)
    return item
