"""Images at the border of a prediction."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.images import check_finite, check_source

DATASET_JSON = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


def write_image(file: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)
    return file


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)nowhere.*-i"):
        check_source(str(tmp_path / "nowhere"), DATASET_JSON)


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path.name}.*'\.nii\.gz'"):
        check_source(str(tmp_path), DATASET_JSON)
    (tmp_path / "case_0000.mha").touch()
    with pytest.raises(DataError, match=r"\b1\b.*'case_0000\.mha'"):
        check_source(str(tmp_path), DATASET_JSON)


def test_a_file_without_a_channel_number_is_told(tmp_path: Path) -> None:
    write_image(tmp_path / "case.nii.gz")
    with pytest.raises(DataError, match=r"case\.nii\.gz.*CASE_0000\.nii\.gz"):
        check_source(str(tmp_path), DATASET_JSON)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_voxel_that_is_no_number_is_told(wrong: float) -> None:
    image = torch.zeros(1, 2, 3, 4)
    check_finite(image)
    image[0, 1, 1, 1] = wrong
    with pytest.raises(DataError, match=r"\b1\b.*\b24\b"):
        check_finite(image)
