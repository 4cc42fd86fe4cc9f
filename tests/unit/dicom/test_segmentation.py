"""A DICOM Segmentation is read back by dcmqi (C++, DCMTK) and by highdicom: the same voxels, names and codes."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from duplus_nnunet.dicom.codes import NamedMask, shorten
from duplus_nnunet.dicom.rtstruct import write_structure_set
from duplus_nnunet.dicom.segmentation import write_segmentation
from duplus_nnunet.dicom.source_slices import read_source_slices
from duplus_nnunet.errors import DataError

from .series_phantom import AXIAL, CORONAL, OBLIQUE, PATIENT, make_masks, write_series

SHAPE = (5, 9, 11)
READER = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent)) or shutil.which("segimage2itkimage")
needs_dcmqi = pytest.mark.skipif(READER is None, reason="dcmqi is not installed (extra dev)")


def open_series(folder, **options):
    return read_source_slices(write_series(folder, np.arange(np.prod(SHAPE)).reshape(SHAPE), **options))


def write(file, source, masks, form="binary"):
    targets = [NamedMask(name, colour=(10, 200, 30)) for name in masks]
    return write_segmentation(file, source, targets, list(masks.values()), form, "Dataset001")


def read_by_dcmqi(file, folder, source):
    """Return the mask of each segment on the grid of the source, and its description, as dcmqi reads them."""
    folder.mkdir()
    words = ["--inputDICOM", file, "--outputDirectory", folder, "--outputType", "nii", "--prefix", "s"]
    subprocess.run([READER, *map(str, words)], check=True, capture_output=True)
    groups = json.loads((folder / "s-meta.json").read_text())["segmentAttributes"]
    series = SimpleITK.ReadImage([str(one.header.filename) for one in source.slices])
    masks = {}
    for number, group in enumerate(groups, 1):
        image = SimpleITK.ReadImage(str(folder / f"s-{number}.nii.gz"))
        nearest = SimpleITK.Resample(image, series, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        assert image.GetSpacing() == pytest.approx(series.GetSpacing(), abs=1e-4)
        labels = SimpleITK.GetArrayFromImage(nearest)
        masks |= {segment["SegmentLabel"]: (labels == segment["labelID"], segment) for segment in group}
    return masks


def read_by_highdicom(file, source):
    """Return the mask of each segment, slices in the order of the source."""
    import highdicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = highdicom.seg.segread(file)
        numbers = {content.get_segment_description(n).SegmentLabel: n for n in content.segment_numbers}
        volume = content.get_volume(segment_numbers=list(numbers.values()), combine_segments=False)
    order = np.argsort([volume.affine[:3, 0] @ source.normal * index for index in range(len(volume.array))])
    return {label: volume.array[order, ..., i] > 0 for i, label in enumerate(numbers)}


@needs_dcmqi
@pytest.mark.parametrize("direction", [AXIAL, CORONAL, OBLIQUE])
@pytest.mark.parametrize("step", [1.5, -1.5])
def test_dcmqi_reads_overlapping_masks_bit_for_bit(tmp_path, direction, step):
    source, masks = open_series(tmp_path / "series", direction=direction, spacing=(step, 0.8, 0.6)), make_masks(SHAPE)
    assert write(tmp_path / "seg.dcm", source, masks) == ("stomach",)
    back = read_by_dcmqi(tmp_path / "seg.dcm", tmp_path / "back", source)
    assert set(back) == set(masks) - {"stomach"}
    for name, (mask, _) in back.items():
        np.testing.assert_array_equal(mask, masks[name])


@needs_dcmqi
def test_dcmqi_reads_a_label_map_bit_for_bit(tmp_path):
    source, masks = open_series(tmp_path / "series"), make_masks(SHAPE)
    masks = {"left kidney": masks["left kidney"], "liver": masks["liver"] & ~masks["left kidney"]}
    write(tmp_path / "seg.dcm", source, masks, "labelmap")
    for name, (mask, _) in read_by_dcmqi(tmp_path / "seg.dcm", tmp_path / "back", source).items():
        np.testing.assert_array_equal(mask, masks[name])


@needs_dcmqi
def test_dcmqi_reads_codes_sides_and_colours(tmp_path):
    source = open_series(tmp_path / "series")
    write(tmp_path / "seg.dcm", source, make_masks(SHAPE))
    back = {name: segment for name, (_, segment) in read_by_dcmqi(tmp_path / "seg.dcm", tmp_path / "b", source).items()}
    assert back["left kidney"]["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "64033007"
    assert back["left kidney"]["SegmentedPropertyTypeModifierCodeSequence"]["CodeMeaning"] == "Left"
    assert back["kidney cyst"]["SegmentedPropertyCategoryCodeSequence"]["CodeValue"] == "49755003"
    assert back["kidney cyst"]["AnatomicRegionSequence"]["CodeMeaning"] == "Kidney"
    assert back["liver"]["recommendedDisplayRGBValue"] == pytest.approx([10, 200, 30], abs=2)


def test_highdicom_reads_the_masks(tmp_path):
    source, masks = open_series(tmp_path / "series"), make_masks(SHAPE)
    full = {name: mask for name, mask in masks.items() if mask.any(axis=(1, 2)).all()}
    write(tmp_path / "seg.dcm", source, full)
    back = read_by_highdicom(tmp_path / "seg.dcm", source)
    for name, mask in full.items():
        np.testing.assert_array_equal(back[name], mask)


def test_patient_study_and_frame_are_those_of_the_source_and_uids_are_new(tmp_path):
    source = open_series(tmp_path / "series")
    write(tmp_path / "a.dcm", source, make_masks(SHAPE))
    write(tmp_path / "b.dcm", source, make_masks(SHAPE))
    one, other = pydicom.dcmread(tmp_path / "a.dcm"), pydicom.dcmread(tmp_path / "b.dcm")
    assert {name: str(one[name].value) for name in PATIENT} == PATIENT
    assert one.ContentCreatorName == ""
    assert one.StudyInstanceUID == source.headers[0].StudyInstanceUID
    assert one.FrameOfReferenceUID == source.frame_of_reference
    assert one.ReferencedSeriesSequence[0].SeriesInstanceUID == source.series
    assert len({one.SOPInstanceUID, other.SOPInstanceUID, one.SeriesInstanceUID, other.SeriesInstanceUID}) == 4


def test_each_frame_refers_to_its_slice(tmp_path):
    source = open_series(tmp_path / "series", spacing=(-1.5, 0.8, 0.8))
    mask = np.zeros(SHAPE, bool)
    mask[3, 4, 5] = True
    write(tmp_path / "seg.dcm", source, {"liver": mask})
    (frame,) = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence
    image = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert image.ReferencedSOPInstanceUID == source.slices[3].reference[1]


def test_a_series_without_identities_is_written_with_empty_ones(tmp_path):
    write(tmp_path / "seg.dcm", open_series(tmp_path / "series", **dict.fromkeys(PATIENT)), make_masks(SHAPE))
    assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientName) == ""


@pytest.mark.parametrize(
    ("charset", "name"), [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "山田^太郎"), (None, "Doe")]
)
def test_names_of_patients_and_targets_keep_their_letters(tmp_path, charset, name):
    series = open_series(tmp_path / "series", SpecificCharacterSet=charset, PatientName=name)
    masks = {"Läsion 肝": make_masks(SHAPE)["liver"]}
    write(tmp_path / "seg.dcm", series, masks)
    write_structure_set(tmp_path / "rt.dcm", series, [NamedMask(*masks)], [*masks.values()])
    for file in ("seg.dcm", "rt.dcm"):
        content = pydicom.dcmread(tmp_path / file)
        assert str(content.PatientName) == name
        names = [item.SegmentLabel for item in content.get("SegmentSequence", [])]
        names += [item.ROIName for item in content.get("StructureSetROISequence", [])]
        assert names == list(masks)


def test_a_target_without_a_known_code_gets_one_of_its_own(tmp_path):
    source, mask = open_series(tmp_path / "series"), make_masks(SHAPE)["liver"]
    write(tmp_path / "seg.dcm", source, {"a thing": mask, "another thing": mask})
    one, other = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    codes = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in (one, other)]
    assert {code.CodingSchemeDesignator for code in codes} == {"99DUPLUS"}
    assert codes[0].CodeValue != codes[1].CodeValue
    assert codes[0].CodeMeaning == "a thing"


def test_masks_that_are_all_empty_write_no_file(tmp_path):
    mask = np.zeros(SHAPE, bool)
    assert write(tmp_path / "seg.dcm", open_series(tmp_path / "series"), {"liver": mask}) == ("liver",)
    assert not (tmp_path / "seg.dcm").exists()


def test_a_label_map_of_overlapping_masks_is_refused(tmp_path):
    source, mask = open_series(tmp_path / "series"), make_masks(SHAPE)["liver"]
    with pytest.raises(DataError, match="'spleen' and 'liver'"):
        write(tmp_path / "seg.dcm", source, {"liver": mask, "spleen": mask}, "labelmap")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_mask_of_another_shape_is_refused(tmp_path):
    with pytest.raises(DataError, match="shape"):
        write(tmp_path / "seg.dcm", open_series(tmp_path / "series"), {"liver": np.ones((5, 9, 10), bool)})


def test_a_multi_frame_source_is_referred_to_by_frame(tmp_path):
    source = read_source_slices([write_enhanced(tmp_path, SHAPE)])
    assert [one.frame for one in source.slices] == [5, 4, 3, 2, 1]
    mask = np.zeros(SHAPE, bool)
    mask[1] = True
    write(tmp_path / "seg.dcm", source, {"liver": mask})
    (frame,) = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence
    assert frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 4


def write_enhanced(folder, shape):
    """Write a multi-frame CT whose frames run against the normal."""
    header = pydicom.dcmread(write_series(folder / "series", np.zeros((1, *shape[1:])))[0])
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    header.NumberOfFrames, shared = shape[0], pydicom.Dataset()
    for name, keyword in (("PlaneOrientationSequence", "ImageOrientationPatient"),):
        item = pydicom.Dataset()
        setattr(item, keyword, header[keyword].value)
        setattr(shared, name, [item])
    measures = pydicom.Dataset()
    measures.PixelSpacing, measures.SliceThickness = header.PixelSpacing, 1.5
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], []
    for number in range(shape[0]):
        place, frame = pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = [0, 0, -1.5 * number]
        frame.PlanePositionSequence = [place]
        header.PerFrameFunctionalGroupsSequence.append(frame)
    header.PixelData = np.zeros(shape, np.int16).tobytes()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(header, keyword)
    header.save_as(folder / "enhanced.dcm")
    return folder / "enhanced.dcm"


@pytest.mark.parametrize(
    ("text", "expected"), [("liver", "liver"), ("a\\b\nc", "a/b c"), ("x" * 20, "x" * 15 + "…"), ("", "")]
)
def test_texts_fit_an_attribute(text, expected):
    assert shorten(text, 16) == expected
