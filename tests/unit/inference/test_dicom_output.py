"""A prediction is written as DICOM on the slices of its series, whatever orientation its image file has."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from scipy.ndimage import binary_dilation, binary_erosion

from duplus_nnunet.dicom.finding import find_series
from duplus_nnunet.dicom.reading import read_volume
from duplus_nnunet.dicom.source_slices import read_source_slices
from duplus_nnunet.dicom.structures import open_structure_file, read_structures
from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.inference.dicom_output import check_slices, find_slices, write_dicom
from duplus_nnunet.inference.options import OUTPUT_FORMATS, Options
from duplus_nnunet.inference.prediction import Prediction

from ...dicom_series import make_slices, save
from ..dicom.series_phantom import CORONAL, OBLIQUE, make_masks, write_series
from ..outputs.outputs_answers import make_answer

SHAPE = (5, 9, 11)


def make(tmp_path, masks, exclusive=False, **options):
    """Make a series, and a prediction whose axes and directions are others than those of the series."""
    files = write_series(tmp_path / "series", np.zeros(SHAPE), **options)
    source = read_source_slices(files)
    affine = source.affine.copy()
    affine[:3, 3] += affine[:3, 1] * (SHAPE[1] - 1)
    affine[:3, 1] *= -1
    turned = {name: np.flip(mask, 1).transpose(2, 0, 1) for name, mask in masks.items()}
    # Columns from the file's indices (x, y, z), which are the array's in reverse.
    properties = {"spacing": (0.8, 1.5, 0.8), "nibabel_stuff": {"original_affine": affine[:, [1, 0, 2, 3]]}}
    answer = make_answer(turned, properties)
    return files, source, replace(answer, rivals="all" if exclusive else None)


def read_back(file, source):
    return {one.name: one.mask for one in read_structures(open_structure_file(file), source)}


@pytest.mark.parametrize("direction", [CORONAL, OBLIQUE])
def test_masks_are_laid_on_the_slices(tmp_path, direction):
    masks = make_masks(SHAPE)
    files, source, answer = make(tmp_path, masks, direction=direction)
    written = write_dicom(answer, files, tmp_path / "out" / "case", ["dicom-seg", "rtstruct"], "Model")
    assert [file.name for file in written.files] == ["case_seg.dcm", "case_rtstruct.dcm"]
    for file in written.files:
        back = read_back(file, source)
        assert set(back) == set(masks) - {"stomach"}
        for name, mask in back.items():
            np.testing.assert_array_equal(mask, masks[name])
    assert len(written.notes) == 2  # one a file, of the empty target
    assert all("stomach" in note for note in written.notes)


def test_exclusive_targets_are_written_from_the_label_map(tmp_path):
    masks = make_masks(SHAPE)
    masks = {"spleen": masks["spleen"], "liver": masks["liver"] & ~masks["spleen"]}
    files, source, answer = make(tmp_path, masks, exclusive=True)
    (file,) = write_dicom(answer, files, tmp_path / "case", ["dicom-labelmap"]).files
    for name, mask in read_back(file, source).items():
        np.testing.assert_array_equal(mask, masks[name])


def test_an_image_beside_the_grid_of_its_series_is_noted(tmp_path):
    files, _, answer = make(tmp_path, {"liver": make_masks(SHAPE)["liver"]})
    affine = answer.geometry.properties["nibabel_stuff"]["original_affine"].copy()
    affine[:3, 3] += 0.3
    properties = {**answer.geometry.properties, "nibabel_stuff": {"original_affine": affine}}
    moved = replace(answer, geometry=replace(answer.geometry, properties=properties))
    assert any("grid" in note for note in write_dicom(moved, files, tmp_path / "case", ["rtstruct"]).notes)


def test_a_prediction_without_targets_writes_no_file_and_says_so(tmp_path):
    files, _, answer = make(tmp_path, {"liver": np.zeros(SHAPE, bool)})
    written = write_dicom(answer, files, tmp_path / "case", OUTPUT_FORMATS)
    assert not written.files
    assert len(written.notes) == len(OUTPUT_FORMATS)


def test_a_target_not_seen_in_training_is_marked(tmp_path):
    files, _, answer = make(tmp_path, {"a text": make_masks(SHAPE)["liver"]})
    answer = replace(answer, targets=tuple(replace(target, seen=False) for target in answer.targets))
    (file,) = write_dicom(answer, files, tmp_path / "case", ["rtstruct"]).files
    assert "not seen" in pydicom.dcmread(file).StructureSetROISequence[0].ROIName


def test_python_writes_them_too(tmp_path):
    files, _, answer = make(tmp_path, {"liver": make_masks(SHAPE)["liver"]})
    assert Prediction(answer).write_dicom(tmp_path / "p", files, ["rtstruct"]) == (tmp_path / "p_rtstruct.dcm",)


def test_an_image_without_world_coordinates_is_refused(tmp_path):
    files, _, answer = make(tmp_path, {"liver": make_masks(SHAPE)["liver"]})
    answer = replace(answer, geometry=replace(answer.geometry, properties={}))
    with pytest.raises(DataError, match="world coordinates"):
        write_dicom(answer, files, tmp_path / "case", ["rtstruct"])


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(PromptError, match="'dicom-sag'"):
        Options(output_format=("dicom-sag",))
    files, _, answer = make(tmp_path, {"liver": make_masks(SHAPE)["liver"]})
    with pytest.raises(DataError, match="'nifti'"):
        write_dicom(answer, files, tmp_path / "case", ["nifti"])


def test_the_series_of_a_case_is_found_by_its_folder(tmp_path):
    own = write_series(tmp_path / "all" / "case_1", np.zeros(SHAPE))
    (tmp_path / "all" / "case_1" / "notes.txt").write_text("no DICOM")
    assert [Path(file) for file in find_slices(tmp_path / "all", "case_1")] == own
    single = write_series(tmp_path / "single", np.zeros(SHAPE))
    assert [Path(file) for file in find_slices(tmp_path / "single", "case_1")] == single


def test_a_series_that_is_not_known_is_refused_before_the_prediction(tmp_path):
    with pytest.raises(DataError, match="dicom-source"):
        check_slices(["rtstruct"], [("case", ())], None)
    with pytest.raises(DataError, match="no DICOM file"):
        check_slices(["rtstruct"], [("case", ())], str(tmp_path))
    check_slices([], [("case", ())], None)


def test_two_series_in_a_folder_are_refused(tmp_path):
    for name in "ab":
        write_series(tmp_path / "case" / name, np.zeros(SHAPE))
    with pytest.raises(DataError, match="SeriesInstanceUID"):
        check_slices(["rtstruct"], [("case", ())], str(tmp_path))
    shutil.rmtree(tmp_path / "case" / "b")
    check_slices(["rtstruct"], [("case", ())], str(tmp_path))


def test_the_series_of_one_case_is_not_taken_for_another(tmp_path):
    write_series(tmp_path / "case_1", np.zeros(SHAPE))
    with pytest.raises(DataError, match="case_2"):
        check_slices(["rtstruct"], [("case_1", ()), ("case_2", ())], str(tmp_path))
    write_series(tmp_path / "case_2", np.zeros(SHAPE))
    check_slices(["rtstruct"], [("case_1", ()), ("case_2", ())], str(tmp_path))


def test_a_job_does_not_take_the_series_of_the_whole_folder(tmp_path):
    write_series(tmp_path, np.zeros(SHAPE))
    check_slices(["rtstruct"], [("case_1", ())], str(tmp_path))
    with pytest.raises(DataError, match="case_1"):
        check_slices(["rtstruct"], [("case_1", ())], str(tmp_path), one_of_several=True)


def write_image(file, source, shift=0.0):
    """Write an image on the grid of a series, moved by mm."""
    affine = source.affine[:, [2, 1, 0, 3]].copy()
    affine[:3, 3] += shift
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE[::-1], np.int16), affine), file)
    return {"case": str(file)}


def test_an_image_of_another_place_is_refused_before_the_prediction(tmp_path):
    source = read_source_slices(write_series(tmp_path / "all" / "case", np.zeros(SHAPE)))
    near = write_image(tmp_path / "case_0000.nii.gz", source)
    check_slices(["rtstruct"], [("case", ())], str(tmp_path / "all"), images=near)
    far = write_image(tmp_path / "case_0000.nii.gz", source, 30)
    with pytest.raises(DataError, match="another series"):
        check_slices(["rtstruct"], [("case", ())], str(tmp_path / "all"), images=far)


@pytest.mark.parametrize("name", ["case_0000.json", "case.json"])
def test_a_side_file_that_names_another_series_is_refused(tmp_path, name):
    source = read_source_slices(write_series(tmp_path / "all" / "case", np.zeros(SHAPE)))
    images = write_image(tmp_path / "case_0000.nii.gz", source)
    (tmp_path / name).write_text(json.dumps({"SeriesInstanceUID": source.series}))
    check_slices(["rtstruct"], [("case", ())], str(tmp_path / "all"), images=images)
    (tmp_path / name).write_text(json.dumps({"SeriesInstanceUID": source.series + "1"}))
    with pytest.raises(DataError, match="SeriesInstanceUID"):
        check_slices(["rtstruct"], [("case", ())], str(tmp_path / "all"), images=images)


def test_a_case_that_was_made_of_another_series_is_refused(tmp_path):
    files = write_series(tmp_path / "made", np.zeros(SHAPE))
    source = read_source_slices(files)
    name = f"series_{source.hash}"
    images = {name: write_image(tmp_path / f"{name}_0000.nii.gz", source)["case"]}
    check_slices(["rtstruct"], [(name, ())], str(tmp_path / "made"), images=images)
    write_series(tmp_path / "all" / name, np.zeros(SHAPE))
    with pytest.raises(DataError, match=source.hash):
        check_slices(["rtstruct"], [(name, ())], str(tmp_path / "all"), images=images)


def test_a_series_without_thickness_is_written(tmp_path):
    files, source, answer = make(tmp_path, {"liver": make_masks(SHAPE)["liver"]})
    for file in files:
        content = pydicom.dcmread(file)
        del content.SliceThickness
        content.save_as(file)
    (file,) = write_dicom(answer, files, tmp_path / "case", ["dicom-seg"]).files
    measures = pydicom.dcmread(file).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == pytest.approx(1.5)
    np.testing.assert_array_equal(read_back(file, source)["liver"], make_masks(SHAPE)["liver"])


@pytest.mark.parametrize("along", [0, 1])
def test_a_prediction_of_a_tilted_series_lies_on_its_slices(tmp_path, along):
    """What is bright in the slices is found in the straightened volume, and written where it was."""
    bright = np.zeros((6, 12, 9), bool)
    bright[1:5, 3:9, 2:6] = True
    slices = make_slices(np.where(bright, 1500, 0))
    for index, one in enumerate(slices):
        place = [float(value) for value in one.ImagePositionPatient]
        place[along] += 0.63 * index
        one.ImagePositionPatient = place
    (series,) = find_series(save(tmp_path / "series", slices)).series
    volume = read_volume(series)
    affine = volume.affine[:, [2, 1, 0, 3]]
    answer = make_answer(
        {"liver": volume.values > 750 - 1024},
        {"spacing": (1, 1, 1), "nibabel_stuff": {"original_affine": affine}},
    )
    written = write_dicom(answer, series.files, tmp_path / "case", ["dicom-seg", "rtstruct"])
    source = read_source_slices(series.files)
    segmentation = pydicom.dcmread(written.files[0])
    referred = {
        str(item.ReferencedSOPInstanceUID)
        for item in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referred == {one.SOPInstanceUID for one in slices}
    for file in written.files:
        mask = read_back(file, source)["liver"]
        assert mask.any(axis=(1, 2)).tolist() == bright.any(axis=(1, 2)).tolist()
        # The slices were interpolated once and the mask not at all: it is off by a voxel at its edges at most.
        assert not (mask & ~binary_dilation(bright)).any()
        assert not (binary_erosion(bright, np.ones((1, 3, 3))) & ~mask).any()


def test_an_image_elsewhere_is_not_of_the_series(tmp_path):
    files, _, answer = make(tmp_path, {"liver": make_masks(SHAPE)["liver"]})
    affine = answer.geometry.properties["nibabel_stuff"]["original_affine"].copy()
    affine[:3, 3] += 30
    properties = {**answer.geometry.properties, "nibabel_stuff": {"original_affine": affine}}
    moved = replace(answer, geometry=replace(answer.geometry, properties=properties))
    with pytest.raises(DataError, match="another series"):
        write_dicom(moved, files, tmp_path / "case", ["rtstruct"])
