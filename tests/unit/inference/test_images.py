"""Images at the border of a prediction."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.images import check_finite, check_source, check_whole

DATASET_JSON = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


def write_image(file: Path) -> Path:
    values = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)
    return file


@pytest.mark.parametrize("name", ["case_0000.nii.gz", "case_0000.nii"])
def test_a_whole_file_passes_and_one_cut_off_is_named(tmp_path: Path, name: str) -> None:
    file = write_image(tmp_path / name)
    check_whole(file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DataError, match=name):
        check_whole(file)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    file = tmp_path / "case_0000.nii.gz"
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=file.name):
        check_whole(file)


def test_a_file_in_several_gzip_blocks_passes(tmp_path: Path) -> None:
    file = write_image(tmp_path / "case_0000.nii.gz")
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
    check_whole(file)


def test_other_formats_are_left_to_nnunet(tmp_path: Path) -> None:
    check_whole(tmp_path / "case_0000.mha")


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
