"""A structure set is read back by rt-utils (OpenCV) and by pydicom: the same voxels, references and names."""

import numpy as np
import pydicom
import pytest

from duplus_nnunet.dicom.codes import NamedMask
from duplus_nnunet.dicom.contours import fill_contours
from duplus_nnunet.dicom.rtstruct import write_structure_set
from duplus_nnunet.dicom.source_slices import read_source_slices

from .series_phantom import AXIAL, CORONAL, OBLIQUE, PATIENT, make_masks, write_series

# rt-utils exchanges rows with columns in images that are not square.
SHAPE = (5, 11, 11)


def open_series(folder, **options):
    return read_source_slices(write_series(folder, np.arange(np.prod(SHAPE)).reshape(SHAPE), **options))


def write(file, source, masks):
    targets = [NamedMask(name, description=f"text of {name}", colour=(10, 200, 30)) for name in masks]
    return write_structure_set(file, source, targets, list(masks.values()), "Dataset001")


def measure_dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("direction", [AXIAL, CORONAL, OBLIQUE])
@pytest.mark.parametrize("step", [1.5, -1.5])
def test_rt_utils_reads_the_masks(tmp_path, direction, step):
    builder = pytest.importorskip("rt_utils", reason="extra dev").RTStructBuilder
    source = open_series(tmp_path / "series", direction=direction, spacing=(step, 0.8, 0.8))
    masks = make_masks(SHAPE)
    assert write(tmp_path / "rt.dcm", source, masks) == ("stomach",)
    back = builder.create_from(str(tmp_path / "series"), str(tmp_path / "rt.dcm"))
    assert back.get_roi_names() == ["liver", "left kidney", "spleen", "kidney cyst"]
    for name in back.get_roi_names():
        assert measure_dice(np.moveaxis(back.get_roi_mask_by_name(name), 2, 0), masks[name]) > 0.99


@pytest.mark.parametrize("spacing", [(1.5, 0.8, 0.6), (-1.5, 0.05, 0.04)])
def test_contours_in_the_patients_coordinates_hold_the_voxels(tmp_path, spacing):
    source, masks = open_series(tmp_path / "series", direction=OBLIQUE, spacing=spacing), make_masks(SHAPE)
    write(tmp_path / "rt.dcm", source, masks)
    content = pydicom.dcmread(tmp_path / "rt.dcm")
    back = np.zeros(SHAPE, bool)
    slices = {one.reference[1]: index for index, one in enumerate(source.slices)}
    for contour in content.ROIContourSequence[0].ContourSequence:
        index = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, float).reshape(-1, 3) - source.slices[index].position
        assert np.abs(points @ source.normal).max() < 1e-3
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        assert contour.NumberOfContourPoints == len(points)
        corners = points @ source.directions[::-1].T / source.spacing
        back[index] ^= fill_contours([corners], SHAPE[1:])
    np.testing.assert_array_equal(back, masks["liver"])


def test_patient_study_and_series_are_those_of_the_source(tmp_path):
    source = open_series(tmp_path / "series")
    write(tmp_path / "rt.dcm", source, make_masks(SHAPE))
    content = pydicom.dcmread(tmp_path / "rt.dcm")
    assert {name: str(content[name].value) for name in PATIENT} == PATIENT
    frame = content.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == source.frame_of_reference
    assert series.SeriesInstanceUID == source.series
    images = {image.ReferencedSOPInstanceUID for image in series.ContourImageSequence}
    assert images == {one.reference[1] for one in source.slices}
    assert content.ApprovalStatus == "UNAPPROVED"


def test_regions_of_interest_have_names_types_codes_and_colours(tmp_path):
    source, mask = open_series(tmp_path / "series"), make_masks(SHAPE)["liver"]
    write(tmp_path / "rt.dcm", source, dict.fromkeys(["left kidney", "liver tumor", "a thing"], mask))
    content = pydicom.dcmread(tmp_path / "rt.dcm")
    assert [roi.ROIName for roi in content.StructureSetROISequence] == ["left kidney", "liver tumor", "a thing"]
    kinds = [one.RTROIInterpretedType or "" for one in content.RTROIObservationsSequence]
    assert kinds == ["ORGAN", "GTV", ""]
    code = content.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("64033007", "SCT")
    assert content.StructureSetROISequence[0].ROIDescription == "text of left kidney"
    assert [list(roi.ROIDisplayColor) for roi in content.ROIContourSequence] == [[10, 200, 30]] * 3


def test_masks_that_are_all_empty_write_no_file(tmp_path):
    mask = np.zeros(SHAPE, bool)
    assert write(tmp_path / "rt.dcm", open_series(tmp_path / "series"), {"liver": mask}) == ("liver",)
    assert not (tmp_path / "rt.dcm").exists()
