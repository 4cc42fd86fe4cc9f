"""A prediction is written as DICOM on the slices of its series, whatever orientation its image file has."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from duplus_nnunet.dicom.source_slices import read_source_slices
from duplus_nnunet.dicom.structures import open_structure_file, read_structures
from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.inference.dicom_output import check_slices, find_slices, write_dicom
from duplus_nnunet.inference.options import OUTPUT_FORMATS, Options
from duplus_nnunet.inference.prediction import Prediction

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


def test_an_image_elsewhere_is_not_of_the_series(tmp_path):
    files, _, answer = make(tmp_path, {"liver": make_masks(SHAPE)["liver"]})
    affine = answer.geometry.properties["nibabel_stuff"]["original_affine"].copy()
    affine[:3, 3] += 30
    properties = {**answer.geometry.properties, "nibabel_stuff": {"original_affine": affine}}
    moved = replace(answer, geometry=replace(answer.geometry, properties=properties))
    with pytest.raises(DataError, match="another series"):
        write_dicom(moved, files, tmp_path / "case", ["rtstruct"])
