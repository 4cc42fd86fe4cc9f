"""A folder that is not one evenly spaced DICOM series is refused; axes at odd angles are straightened."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from duplus_nnunet.conversion.steps import Loaded, straighten
from duplus_nnunet.conversion.volumes import Volume, read_masks, read_volume
from duplus_nnunet.errors import DataError

from .trees import save_masks, save_series


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    save_series(tmp_path, 6)
    (tmp_path / "IMG-0001-00003.dcm").unlink()
    with pytest.raises(DataError, match=r"missing|spaced"):
        read_volume(tmp_path)


def test_slices_of_two_series_are_refused(tmp_path: Path) -> None:
    save_series(tmp_path, 4)
    file = tmp_path / "IMG-0001-00002.dcm"
    image = SimpleITK.ReadImage(str(file))
    image.SetMetaData("0020|000e", "1.2.3.99")
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(file))
    writer.Execute(image)
    with pytest.raises(DataError, match="2 series"):
        read_volume(tmp_path)


def test_a_folder_without_slices_and_too_few_masks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no DICOM series"):
        read_volume(tmp_path / "empty")
    save_series(tmp_path / "series", 3)
    save_masks(tmp_path / "masks", [np.zeros((6, 8))] * 2)
    with pytest.raises(DataError, match=r"2 masks.*3 slices"):
        read_masks(tmp_path / "masks", tmp_path / "series")


def test_straightening_keeps_spacing_and_centre() -> None:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[0, 1] = 0.02
    before = Volume(np.zeros((5, 7, 9)), affine, Path("a.nii"))
    after = straighten(Loaded("a", {}, (before,), None), {}).images[0]
    centre = np.array([2, 3, 4, 1])
    assert np.allclose(after.affine @ centre, before.affine @ centre)
    assert np.allclose(after.spacing, before.spacing)
    axes = after.affine[:3, :3] / after.spacing
    assert np.allclose(axes.T @ axes, np.eye(3))
