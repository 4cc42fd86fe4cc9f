"""Volumes are read in radiological orientation, however they are stored."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.volumes import read_axial, read_label_map


def write(path: Path, orientation: str) -> Path:
    """A volume whose voxel at the patient's left, front and head is 1."""
    values = np.zeros((4, 5, 6), dtype=np.float32)
    values[0, -1, -1] = 1
    stored = nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0]))  # RAS
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(stored.affine), nibabel.orientations.axcodes2ornt(orientation)
    )
    nibabel.save(stored.as_reoriented(turn), path)
    return path


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SPL", "AIR"])
def test_left_is_last_front_is_first_head_is_last(tmp_path: Path, orientation: str) -> None:
    values, spacing = read_axial(write(tmp_path / "a.nii.gz", orientation))
    assert values.shape == (6, 5, 4)
    assert spacing == (4.0, 3.0, 2.0)
    assert np.argwhere(values).tolist() == [[5, 0, 3]]


def test_label_map_is_of_whole_numbers(tmp_path: Path) -> None:
    labels = read_label_map(write(tmp_path / "a.nii.gz", "RAS"))
    assert labels.dtype == np.uint8
    assert labels.sum() == 1


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.nii\.gz cannot be read"):
        read_axial(tmp_path / "gone.nii.gz")


def test_file_that_is_no_volume_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("hello")
    with pytest.raises(DataError, match=r"text\.nii cannot be read"):
        read_axial(tmp_path / "text.nii")


def test_fourth_axis_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 2), dtype=np.float32), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a\.nii .*\(2, 2, 2, 2\)"):
        read_axial(tmp_path / "a.nii")
