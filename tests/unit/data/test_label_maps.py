"""Label maps are whole numbers, whatever type they are stored in."""

import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from duplus_nnunet.data.label_maps import check_labels, describe_rounding, read_label_map
from duplus_nnunet.errors import DataError

LABELS = np.arange(1000).reshape(10, 10, 10) % 4


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.uint32, np.int64, np.float32, np.float64])
def test_whole_values_are_kept_as_they_are(kind: Any) -> None:
    array = LABELS.astype(kind)
    found = check_labels(array, "x.nii.gz", range(4))
    assert found.labels is array
    assert found.rounded == 0
    assert sum(found.counts.values()) == 1000


@pytest.mark.parametrize("change", [lambda x: x * 0.99999, lambda x: x + 9e-4, lambda x: x - 9e-4])
def test_nearly_whole_values_are_rounded(change: Any) -> None:
    found = check_labels(change(LABELS).astype(np.float32), "x.nii.gz", range(4))
    assert np.array_equal(found.labels, LABELS)
    assert found.counts == {0: 250, 1: 250, 2: 250, 3: 250}
    assert found.rounded >= 750


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.5, 1.002, -1, 32768, 70000, 3e9])
def test_what_cannot_be_a_label_is_refused_with_value_and_count(value: float) -> None:
    array = LABELS.astype(np.float64)
    array[0, 0, :3] = value
    with pytest.raises(DataError, match=re.escape(f"3 voxel(s) of {value:g}")):
        check_labels(array, "x.nii.gz")


@pytest.mark.parametrize("value", [-1, 32768])
def test_integers_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(DataError, match=f"8 voxel.* of {value}"):
        check_labels(np.full((2, 2, 2), value, np.int32), "x")


def test_undeclared_values_are_refused_with_their_count() -> None:
    with pytest.raises(DataError, match=r"values 2, 3, .* 500 voxel\(s\); expected 0, 1\."):
        check_labels(LABELS, "x", {0, 1})


def test_values_of_all_blocks_are_counted() -> None:
    array = np.zeros(3 << 20, np.uint8)
    array[-1] = 1
    assert check_labels(array, "x").counts == {0: (3 << 20) - 1, 1: 1}


@pytest.mark.parametrize("slope", [1 / 255, 1 / 3, 1e-3])
def test_scaled_labels_are_read_as_what_they_stand_for(tmp_path: Path, slope: float) -> None:
    image = nibabel.Nifti1Image(np.rint(LABELS / slope).astype(np.int16), np.diag([-1.5, -1.5, 2, 1]))
    image.header.set_slope_inter(slope, 0)
    file = tmp_path / "x.nii.gz"
    nibabel.save(image, file)
    found, _ = read_label_map(file, SimpleITKIO, range(4))
    assert np.array_equal(found.labels[0], LABELS.transpose(2, 1, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_of_a_file_are_found_though_its_reader_makes_them_0(tmp_path: Path, value: float) -> None:
    array = LABELS.astype(np.float32)
    array[0, 0, :2] = value
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "x.nii.gz")
    with pytest.raises(DataError, match=rf"2 voxel\(s\) of {value:g}"):
        read_label_map(tmp_path / "x.nii.gz", SimpleITKIO)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.nii.gz"
    nibabel.save(nibabel.Nifti1Image(LABELS.astype(np.uint8), np.eye(4)), file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"x\.nii\.gz"):
        read_label_map(file, SimpleITKIO)


def test_rounding_is_told_in_one_sentence_for_all_files() -> None:
    assert describe_rounding({"a": 0}) == ""
    assert "2 label map(s)" in describe_rounding({"a": 0, "b": 5, "c": 7})
