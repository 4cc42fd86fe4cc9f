"""A raw dataset is checked from its headers and label maps, all problems at once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from duplus_nnunet.data.image_headers import ImageHeader
from duplus_nnunet.data.raw_checks import (
    RawCheck,
    check_label_maps,
    check_raw_files,
    describe_problems,
    find_grid_difference,
)

WriteRaw = Callable[..., Path]
GRID = ImageHeader((10, 12, 14), (2.0, 1.5, 1.5), (-30.0, -20.0, 10.0), oriented=True)
MIRRORED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def check(folder: Path, strict: bool = False) -> RawCheck:
    return check_raw_files(folder, json.loads((folder / "dataset.json").read_text()), 2, strict)


def check_values(folder: Path) -> RawCheck:
    return check_label_maps(check(folder), json.loads((folder / "dataset.json").read_text()), SimpleITKIO, 2)


@pytest.fixture
def folder(write_raw: WriteRaw) -> Path:
    return write_raw("Dataset001_A", {"a": 1, "b": 1})


def change(file: Path, make: Callable[[Any], Any]) -> None:
    SimpleITK.WriteImage(make(SimpleITK.ReadImage(str(file))), str(file))


def moved(image: Any) -> Any:
    image.SetOrigin((29.0, 3.5, 40.25))
    return image


def widened(image: Any) -> Any:
    image.SetSpacing((2.5, 0.8, 0.7))
    return image


def test_a_sound_dataset_has_no_problems(folder: Path) -> None:
    found = check(folder, strict=True)
    assert (found.problems, found.notes, list(found.files.cases)) == ((), (), ["a", "b"])
    assert check_values(folder).problems == ()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (moved, "40 mm apart"),
        (widened, "voxel sizes"),
        (lambda image: image[:, :, 1:], "voxels"),
        (lambda image: SimpleITK.Flip(image, (True, False, False)), "stored in another order"),
    ],
)
@pytest.mark.parametrize("file", ["labelsTr/b.nii.gz", "imagesTr/b_0001.nii.gz"])
def test_files_of_a_case_on_different_grids(write_raw: WriteRaw, file: str, make: Any, said: str) -> None:
    folder = write_raw("Dataset001_A", {"a": 1, "b": 1}, channel_names={"0": "CT", "1": "PET"})
    change(folder / file, make)
    (problem,) = check(folder).problems
    assert "'b'" in problem
    assert said in problem


def test_an_image_of_two_time_points_is_refused(folder: Path) -> None:
    change(folder / "imagesTr" / "a_0000.nii.gz", lambda image: SimpleITK.JoinSeries([image, image]))
    assert "a_0000.nii.gz" in check(folder).problems[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channel_names": None}, "channel_names"),
        ({"channel_names": {"1": "CT"}}, "channel_names"),
        ({"channel_names": ["CT"]}, "channel_names"),
        ({"file_ending": None}, "file_ending"),
        ({"file_ending": "nii.gz"}, "file_ending"),
        ({"file_ending": ".dcm"}, "cannot read"),
        ({"file_ending": ".mha"}, "it holds a_0000.nii.gz"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "'a' and 'b'"),
        ({"labels": {"background": 0, "a": 255}, "overwrite_image_reader_writer": "SimpleITKIOWithReorient"}, "8 bits"),
    ],
)
def test_a_dataset_json_that_cannot_be_used(folder: Path, changes: dict[str, Any], said: str) -> None:
    content = {**json.loads((folder / "dataset.json").read_text()), **changes}
    (folder / "dataset.json").write_text(
        json.dumps({key: value for key, value in content.items() if value is not None})
    )
    assert said in "\n".join(check(folder).problems)


def test_missing_and_misnamed_files_are_named_all_at_once(folder: Path) -> None:
    images = folder / "imagesTr"
    (images / "a_0000.nii.gz").rename(images / "a.nii.gz")
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "labelsTr" / "c.nii.gz").touch()
    found = check(folder)
    assert [next(name for name in ("a.nii.gz", "b.nii.gz") if name in text) for text in found.problems] == [
        "a.nii.gz",
        "b.nii.gz",
    ]
    assert any("c.nii.gz" in note for note in found.notes)


def test_a_case_of_which_no_file_can_be_read(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "labelsTr").iterdir())
    images = sorted((folder / "imagesTr").glob(names[0].split(".")[0] + "*"))
    for file in (folder / "labelsTr" / names[0], *images):
        file.write_bytes(b"no image")
    assert len(check(folder).problems) == 1 + len(images)


def test_a_missing_channel_names_the_case(write_raw: WriteRaw) -> None:
    folder = write_raw("Dataset001_A", {"a": 1, "b": 1}, channel_names={"0": "CT", "1": "PET"})
    (folder / "imagesTr" / "b_0000.nii.gz").unlink()
    assert "b has _0001" in check(folder).problems[0]


def test_listed_cases_may_lie_anywhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSEWHERE", str(folder))
    listed = {"x": {"images": ["imagesTr/a_0000.nii.gz"], "label": "$ELSEWHERE/labelsTr/a.nii.gz"}, "y": {"images": []}}
    content = {**json.loads((folder / "dataset.json").read_text()), "dataset": listed}
    found = check_raw_files(folder, content, 1)
    assert list(found.files.cases) == ["x"]
    assert "'y'" in found.problems[0]


@pytest.mark.parametrize("changes", [{"numTraining": 9}, {"labels": {"background": 0, "a": 1, "b": 5}}])
def test_what_only_nnunets_verification_requires(write_raw: WriteRaw, changes: dict[str, Any]) -> None:
    folder = write_raw("Dataset001_A", {"a": 1}, **changes)
    assert check(folder).problems == ()
    assert len(check(folder, strict=True).problems) == 1


def test_label_values_that_no_label_has(write_raw: WriteRaw) -> None:
    folder = write_raw("Dataset001_A", {"a": 1, "b": 7, "c": 8})
    assert [text.partition(" contains")[0][-8:] for text in check_values(folder).problems] == ["b.nii.gz", "c.nii.gz"]


def test_background_alone_is_refused_and_an_absent_label_is_noted(write_raw: WriteRaw) -> None:
    labels = {"background": 0, "liver": 1, "spleen": 2}
    assert len(check_values(write_raw("Dataset001_A", {"a": 0, "b": 0})).problems) == 1
    found = check_values(write_raw("Dataset002_B", {"a": 0, "b": 1}, labels=labels))
    assert found.problems == ()
    assert "'spleen'" in found.notes[0]


@pytest.mark.parametrize(
    "other",
    [
        GRID,
        replace(GRID, origin=(-30.2, -20.2, 10.2)),
        replace(GRID, spacing=(2.00001, 1.5, 1.5)),
        replace(GRID, origin=(90.0, 0.0, 0.0), oriented=False),
    ],
)
def test_equal_grids(other: ImageHeader) -> None:
    assert find_grid_difference(GRID, other) == ""


@pytest.mark.parametrize(
    "other",
    [
        replace(GRID, shape=(10, 14, 12)),
        replace(GRID, spacing=(1.5, 1.5, 2.0)),
        replace(GRID, origin=(-29.0, -20.0, 10.0)),
        replace(GRID, direction=MIRRORED),
        replace(GRID, direction=MIRRORED, origin=(-30.0 + 13 * 1.5, -20.0, 10.0)),
    ],
)
def test_different_grids(other: ImageHeader) -> None:
    assert find_grid_difference(GRID, other)


def test_a_reader_that_turns_images_needs_equal_positions_alone() -> None:
    mirrored = replace(GRID, direction=MIRRORED, oriented=False)
    assert not find_grid_difference(GRID, mirrored)
    assert find_grid_difference(GRID, mirrored, turned=True)
    assert not find_grid_difference(GRID, replace(mirrored, origin=(-30.0 + 13 * 1.5, -20.0, 10.0)), turned=True)


def test_a_long_list_of_problems_is_cut() -> None:
    lines = describe_problems("here", [f"problem {number}" for number in range(25)]).splitlines()
    assert len(lines) == 22
    assert "5 more" in lines[-1]


def test_labels_of_floats_are_surveyed_as_whole_numbers(write_raw: WriteRaw) -> None:
    from duplus_nnunet.planners.survey import survey_case

    labels = np.zeros((4, 5, 6), np.float32)
    labels[1:3, 1:3, 1:3] = 0.99999
    folder = write_raw("Dataset001_A", {"a": labels})
    images, label = [str(folder / "imagesTr" / "a_0000.nii.gz")], str(folder / "labelsTr" / "a.nii.gz")
    found = survey_case(images, label, SimpleITKIO, 9, {0, 1})
    assert (found.labels, found.rounded) == ((0, 1), 8)
