"""Cases of a sensitivity study."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from duplus_nnunet.errors import DataError
from duplus_nnunet.sensitivity.cases import LabelledCase, find_cases, read_image, read_truth

ENDING = ".nii.gz"
READERS = [SimpleITKIO, NibabelIO, NibabelIOWithReorient]


def save(file: Path, shape: tuple[int, ...] = (4, 5, 6), spacing: float = 1.0, origin: float = 0.0) -> str:
    file.parent.mkdir(exist_ok=True)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, dtype=np.uint8), affine), file)
    return str(file)


def test_one_case_is_called_by_its_label_map(tmp_path: Path) -> None:
    images = [save(tmp_path / f"a_000{channel}{ENDING}") for channel in (0, 1)]
    label = save(tmp_path / f"truth{ENDING}")
    assert find_cases(images, label, ENDING) == [LabelledCase("truth", tuple(images), label)]


def test_folders_hold_a_case_each_with_all_its_channels(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001", "b_0000"):
        save(tmp_path / "images" / f"{name}{ENDING}")
    for name in ("a", "b", "unused"):
        save(tmp_path / "labels" / f"{name}{ENDING}")
    cases = find_cases([str(tmp_path / "images")], str(tmp_path / "labels"), ENDING)
    assert [(case.name, len(case.images)) for case in cases] == [("a", 2), ("b", 1)]


def test_a_case_without_a_label_map_is_named(tmp_path: Path) -> None:
    save(tmp_path / "images" / f"a_0000{ENDING}")
    save(tmp_path / "labels" / f"b{ENDING}")
    with pytest.raises(DataError, match=r"1 of 1 .*\ba\.nii\.gz"):
        find_cases([str(tmp_path / "images")], str(tmp_path / "labels"), ENDING)


def test_a_folder_of_images_needs_a_folder_of_label_maps(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"-i .*-l .*a\.nii\.gz"):
        find_cases([str(tmp_path)], save(tmp_path / f"a{ENDING}"), ENDING)


def test_a_folder_without_images_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"_0000\.nii\.gz.*notes\.txt"):
        find_cases([str(tmp_path)], str(tmp_path), ENDING)


@pytest.mark.parametrize("option", ["-i", "-l"])
def test_a_missing_file_is_named_with_its_option(tmp_path: Path, option: str) -> None:
    existing, missing = save(tmp_path / f"existing{ENDING}"), str(tmp_path / f"missing{ENDING}")
    image, label = (missing, existing) if option == "-i" else (existing, missing)
    with pytest.raises(DataError, match=rf"missing\.nii\.gz \({option}\)"):
        find_cases([image], label, ENDING)


def test_another_file_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.nii\.gz \(-i\) .*\.nrrd"):
        find_cases([save(tmp_path / f"a{ENDING}")], save(tmp_path / f"b{ENDING}"), ".nrrd")


def compare(reader: Any, tmp_path: Path, **grid: Any) -> np.ndarray:
    case = LabelledCase("a", (save(tmp_path / f"a_0000{ENDING}"),), save(tmp_path / f"a{ENDING}", **grid))
    image, properties = read_image(reader(), case)
    return read_truth(reader(), case, properties, image.shape[1:])


@pytest.mark.parametrize("reader", READERS)
def test_a_label_map_on_the_images_grid_is_read(reader: Any, tmp_path: Path) -> None:
    assert compare(reader, tmp_path, spacing=1.0004).shape == (6, 5, 4)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "grid", [{"shape": (4, 5, 7)}, {"spacing": 1.5}, {"origin": 2.0}], ids=lambda grid: next(iter(grid))
)
def test_a_label_map_on_another_grid_is_refused(reader: Any, grid: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"[\\/]a\.nii\.gz .*a_0000\.nii\.gz .*grid"):
        compare(reader, tmp_path, **grid)


def test_an_image_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / f"a_0000{ENDING}"
    file.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a_0000\.nii\.gz"):
        read_image(NibabelIO(), LabelledCase("a", (str(file),), ""))


def test_a_label_map_that_is_none_is_named(tmp_path: Path) -> None:
    case = LabelledCase("a", (save(tmp_path / f"a_0000{ENDING}"),), str(tmp_path / f"a{ENDING}"))
    image, properties = read_image(NibabelIO(), case)
    Path(case.label).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"[\\/]a\.nii\.gz"):
        read_truth(NibabelIO(), case, properties, image.shape[1:])


def test_channels_of_different_shapes_are_refused(tmp_path: Path) -> None:
    images = (save(tmp_path / f"a_0000{ENDING}"), save(tmp_path / f"a_0001{ENDING}", shape=(4, 5, 7)))
    with pytest.raises(DataError, match=r"a_0001\.nii\.gz .*a_0000\.nii\.gz"):
        read_image(NibabelIO(), LabelledCase("a", images, ""))
