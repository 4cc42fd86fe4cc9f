"""Raw datasets on disk."""

from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.raw_dataset import list_images, require_file_ending


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_images_are_listed_by_case_and_channel(tmp_path: Path) -> None:
    make(tmp_path, "b_0000.nii.gz", "a_1_0001.nii.gz", "a_1_0000.nii.gz", "a_1_0000.json")
    images = list_images(tmp_path, ".nii.gz")
    assert {case: list(channels) for case, channels in images.items()} == {"a_1": [0, 1], "b": [0]}
    assert images["a_1"][1] == tmp_path / "a_1_0001.nii.gz"


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    make(tmp_path, "._a_0000.nii.gz", "a_0000.nii.gz")
    (tmp_path / "b_0000.nii.gz").mkdir()
    assert list(list_images(tmp_path, ".nii.gz")) == ["a"]


def test_folder_that_does_not_exist_has_no_images(tmp_path: Path) -> None:
    assert list_images(tmp_path / "imagesTs", ".nii.gz") == {}


@pytest.mark.parametrize("name", ["a.nii.gz", "a_000.nii.gz", "_0000.nii.gz"])
def test_file_without_channel_number_is_refused_or_skipped(name: str, tmp_path: Path) -> None:
    make(tmp_path, name, "b_0000.nii.gz")
    with pytest.raises(DataError, match=rf"/{name} .*CASE_0000\.nii\.gz"):
        list_images(tmp_path, ".nii.gz")
    assert list(list_images(tmp_path, ".nii.gz", skip_unnumbered=True)) == ["b"]


def test_file_ending_is_read_from_dataset_json() -> None:
    assert require_file_ending({"file_ending": ".mha"}, Path("dataset.json")) == ".mha"


@pytest.mark.parametrize("content", [{}, {"file_ending": "nii.gz"}, {"file_ending": 3}])
def test_missing_or_odd_file_ending_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"dataset\.json.*file_ending"):
        require_file_ending(content, Path("dataset.json"))


def test_case_with_a_line_break_in_its_name_is_listed(tmp_path: Path) -> None:
    (tmp_path / "two\nlines_0000.nii").touch()
    assert list(list_images(tmp_path, ".nii")) == ["two\nlines"]
