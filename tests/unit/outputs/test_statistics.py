"""Statistics of targets; scikit-image and SimpleITK measure the same."""

import csv
import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from skimage.measure import label, regionprops

from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs.measures import TargetStatistics
from duplus_nnunet.outputs.statistics import StatisticsTable

from .outputs_answers import PROPERTIES, SHAPE, SPACING, make_answer, make_cube, make_image

CUBE = make_cube((1, 2, 3), (3, 2, 4))
NOTHING = np.zeros(SHAPE, bool)
ABSENT = {"case", "context", "target", "value", "present", "volume_ml", "voxels", "seen_in_training"}


def measure(mask: Any, image: Any = None, **changes: Any) -> TargetStatistics:
    answer = make_answer({"liver": mask}, changes.pop("properties", PROPERTIES))
    return StatisticsTable(**changes).add(answer, make_image() if image is None else image)[0]


def make_masks() -> st.SearchStrategy[Any]:
    return arrays(bool, SHAPE, elements=st.booleans()).filter(np.any)


def test_cube_has_the_volume_of_its_voxels() -> None:
    properties = {"spacing": [5.0, 2.0, 2.0]}
    found = measure(make_cube((1, 1, 1), (2, 5, 5)), properties=properties)
    assert (found.voxels, found.volume_ml, found.present) == (50, 1.0, True)


def test_cube_has_its_box_and_extent() -> None:
    found = measure(CUBE)
    assert (found.z_start, found.z_stop, found.y_start, found.y_stop, found.x_start, found.x_stop) == (1, 4, 2, 4, 3, 7)
    assert (found.extent_z_mm, found.extent_y_mm, found.extent_x_mm) == pytest.approx((7.5, 1.6, 2.8))


@given(make_masks())
def test_scikit_image_measures_the_same(mask: Any) -> None:
    image, found = make_image(), measure(mask)
    (theirs,) = regionprops(mask.astype(np.uint8), intensity_image=image[0].astype(float), spacing=SPACING)
    assert found.volume_ml == pytest.approx(theirs.area / 1000)
    assert found.voxels == theirs.num_pixels
    starts = found.z_start, found.y_start, found.x_start
    assert (*starts, found.z_stop, found.y_stop, found.x_stop) == theirs.bbox
    assert found.intensity_mean == pytest.approx(theirs.intensity_mean, abs=1e-6)
    assert found.intensity_std == pytest.approx(theirs.intensity_std, abs=1e-6)
    parts = label(mask, connectivity=3)
    assert found.components == parts.max()
    assert found.largest_share == pytest.approx(np.bincount(parts[mask]).max() / mask.sum())


@given(make_masks())
def test_simpleitk_finds_the_same_middle(mask: Any) -> None:
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(PROPERTIES["sitk_stuff"]["origin"])
    shape = SimpleITK.LabelShapeStatisticsImageFilter()
    shape.Execute(image)
    left, posterior, superior = shape.GetCentroid(1)
    found = measure(mask)
    ours = found.centroid_right_mm, found.centroid_anterior_mm, found.centroid_superior_mm
    assert ours == pytest.approx((-left, -posterior, superior), abs=1e-5)
    assert found.volume_ml == pytest.approx(shape.GetPhysicalSize(1) / 1000)


@given(make_masks(), st.integers(0, 3))
def test_size_of_the_box_does_not_matter(mask: Any, margin: int) -> None:
    image, table = make_image(), StatisticsTable()
    tight, wide = (asdict(table.add(make_answer({"liver": mask}, margin=size), image)[0]) for size in (0, margin))
    assert tight == pytest.approx(wide, abs=1e-9)  # a middle is rounded in its last digit


def test_percentiles_are_those_of_the_first_channel_inside() -> None:
    image = np.zeros((2, *SHAPE), np.float32)
    image[0][CUBE] = np.arange(24) * 10
    found = measure(CUBE, image)
    assert found.intensity_median == 115
    assert (found.intensity_p05, found.intensity_p95) == pytest.approx((11.5, 218.5))


def test_parts_that_touch_at_a_corner_are_one() -> None:
    touching = make_cube((0, 0, 0), (1, 1, 1)) | make_cube((1, 1, 1), (2, 2, 2))
    assert (measure(touching).components, measure(touching).largest_share) == (1, 1.0)
    apart = make_cube((0, 0, 0), (1, 1, 1)) | make_cube((2, 2, 2), (3, 1, 1))
    assert (measure(apart).components, measure(apart).largest_share) == (2, 0.75)


@pytest.mark.parametrize(
    ("start", "touches"),
    [((1, 1, 1), False), ((0, 1, 1), True), ((1, 0, 1), True), ((4, 1, 1), True), ((1, 1, 6), True)],
)
def test_mask_at_an_edge_of_the_image_is_marked(start: tuple[int, int, int], touches: bool) -> None:
    assert measure(make_cube(start, (2, 2, 2))).touches_border is touches


def test_probability_is_averaged_inside() -> None:
    assert measure(CUBE).probability_mean == pytest.approx(expit(3.0))


@pytest.mark.parametrize(("low", "high", "unusual"), [(0.01, 0.1, False), (0.01, 0.02, True), (0.1, 0.2, True)])
def test_volume_outside_of_what_training_saw_is_unusual(low: float, high: float, unusual: bool) -> None:
    found = measure(CUBE, volumes={"liver": (low, high), "spleen": (0, 0)})
    assert found.volume_ml == pytest.approx(0.0336)
    assert (found.training_low_ml, found.training_high_ml, found.volume_unusual) == (low, high, unusual)


def test_volume_is_not_judged_without_training() -> None:
    assert measure(CUBE).volume_unusual is None


def test_absent_target_has_no_values() -> None:
    found = asdict(measure(NOTHING))
    assert (found["present"], found["volume_ml"], found["voxels"]) == (False, 0.0, 0)
    assert {name for name, value in found.items() if value is not None} == ABSENT


def test_presence_is_handed_on() -> None:
    answer = make_answer({"liver": NOTHING})
    answer = replace(answer, targets=(replace(answer.targets[0], presence=0.02),))
    assert StatisticsTable().add(answer, make_image())[0].presence == 0.02


def test_image_without_orientation_has_no_middle_in_the_patient() -> None:
    found = measure(CUBE, properties={"spacing": list(SPACING)})
    assert (found.centroid_right_mm, found.volume_ml) == (None, pytest.approx(0.0336))


def test_what_is_not_finite_is_no_value() -> None:
    image = make_image()
    image[0, 2, 3, 4] = np.nan
    found = measure(CUBE, image)
    assert (found.intensity_mean, found.intensity_median, found.voxels) == (None, None, 24)


def test_csv_has_empty_cells_and_never_says_nan(tmp_path: Path) -> None:
    table = StatisticsTable()
    table.add(make_answer({"liver": CUBE, "spleen, left": NOTHING}), make_image())
    _, file = table.write(tmp_path)
    with file.open(encoding="utf-8", newline="") as lines:
        liver, spleen = csv.DictReader(lines)
    assert list(liver) == [field.name for field in fields(TargetStatistics)]
    assert (liver["target"], liver["present"], liver["volume_ml"], liver["components"]) == (
        "liver",
        "true",
        "0.0336",
        "1",
    )
    assert {name for name, cell in spleen.items() if cell} == ABSENT
    assert (spleen["target"], spleen["present"], spleen["volume_ml"]) == ("spleen, left", "false", "0.0")
    assert "nan" not in file.read_text(encoding="utf-8").casefold().split(",")


def test_json_says_the_same_with_null(tmp_path: Path) -> None:
    table = StatisticsTable()
    rows = table.add(make_answer({"liver": CUBE, "spleen": NOTHING}), make_image())
    file, _ = table.write(tmp_path)
    assert json.loads(file.read_text(encoding="utf-8"))["rows"] == [asdict(row) for row in rows]


def test_resumed_run_keeps_rows_and_replaces_those_of_a_case_done_again(tmp_path: Path) -> None:
    first = StatisticsTable()
    first.add(make_answer({"liver": CUBE, "spleen": NOTHING}, case="a"), make_image())
    first.add(make_answer({"liver": NOTHING}, case="b"), make_image())
    first.write(tmp_path)
    second = StatisticsTable.read(tmp_path)
    assert (second.rows, second.cases) == (first.rows, ("a", "b"))
    second.add(make_answer({"liver": CUBE}, case="b"), make_image())
    second.add(make_answer({"liver": CUBE}, case="c"), make_image())
    assert [(row.case, row.present) for row in second.rows] == [("a", True), ("a", False), ("b", True), ("c", True)]


def test_folder_without_statistics_starts_a_new_table(tmp_path: Path) -> None:
    assert StatisticsTable.read(tmp_path).rows == ()


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("{", r"statistics\.json"),
        ('{"version": 2, "rows": []}', r"statistics\.json .*version 2\b.*\b1\b"),
        ('{"version": 1, "rows": [{"case": "a"}]}', r"(?s)statistics\.json .*context"),
        ("[]", r"statistics\.json"),
    ],
)
def test_malformed_file_is_refused(text: str, pattern: str, tmp_path: Path) -> None:
    (tmp_path / "statistics.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=pattern):
        StatisticsTable.read(tmp_path)


@pytest.mark.parametrize("shape", [SHAPE, (1, 2, 3, 4), (1, *SHAPE[::-1])])
def test_image_on_another_grid_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"'case_1' .*\(channels, 6, 7, 8\)"):
        StatisticsTable().add(make_answer({"liver": CUBE}), np.zeros(shape))
