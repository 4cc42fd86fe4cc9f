"""Figures of predictions: the chosen slice, the size, and refused input."""

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.colours import colour
from duplus_nnunet.reporting.figure import FigureRow, SliceView, Volume, choose_view, save_figure


def label_map(*boxes: tuple[int, int]) -> np.ndarray:
    """One 4x4 box of value k+1 in the slices given for it."""
    labels = np.zeros((10, 16, 16), dtype=np.uint8)
    for index, (first, last) in enumerate(boxes):
        labels[first:last, 5 * index : 5 * index + 4, 2:6] = index + 1
    return labels


def volume(slices: int = 10, height: float = 5.0) -> Volume:
    return Volume(np.zeros((slices, 16, 16), dtype=np.float32), (height, 2.0, 2.0), (-160.0, 320.0))


def row(prompt: str, labels: np.ndarray, note: str = "") -> FigureRow:
    return FigureRow(prompt, labels, labels, volume(len(labels)), SliceView(axis=0, level=2), note)


def test_chosen_slice_shows_every_structure() -> None:
    labels = label_map((0, 6), (5, 9))
    view = choose_view([labels])
    assert set(np.unique(view.cut(labels))) == {0, 1, 2}


def test_chosen_slice_shows_the_structures_of_every_row() -> None:
    below, above = label_map((0, 4)), label_map((3, 9))
    view = choose_view([below, above])
    assert view.cut(below).any()
    assert view.cut(above).any()


def test_structures_side_by_side_are_shown_in_a_coronal_slice() -> None:
    labels = np.zeros((10, 16, 16), dtype=np.uint8)
    labels[1:4, 6:9, 2:6], labels[6:9, 6:9, 9:12] = 1, 2
    view = choose_view([labels])
    assert view == SliceView(axis=1, level=6)


def test_coronal_slice_has_the_head_on_top() -> None:
    labels = label_map((9, 10))
    assert SliceView(axis=1, level=0).cut(labels)[0].any()


def test_pixels_keep_the_spacings_proportion() -> None:
    assert SliceView(axis=0, level=0).aspect((5.0, 2.0, 1.0)) == 2.0
    assert SliceView(axis=1, level=0).aspect((5.0, 2.0, 1.0)) == 5.0


def test_same_position_is_found_on_another_grid() -> None:
    coarse, fine = volume(slices=10, height=5.0), volume(slices=49, height=1.0)
    assert SliceView(axis=0, level=7).find_in(coarse, fine) == SliceView(axis=0, level=36)
    assert SliceView(axis=1, level=3).find_in(coarse, fine) == SliceView(axis=1, level=3)


def test_a_position_outside_another_volume_gives_its_last_slice() -> None:
    assert SliceView(axis=0, level=9).find_in(volume(slices=10), volume(slices=4)) == SliceView(axis=0, level=3)


def test_rows_may_show_images_on_different_grids(tmp_path: Path) -> None:
    other = label_map((2, 5))[:6, :, :9]
    image = Volume(np.zeros(other.shape, dtype=np.float32), (5.0, 2.0, 3.0), (0.0, 4.0))
    rows = [row("CT", label_map((2, 5))), FigureRow("MR", other, other, image, SliceView(axis=0, level=2))]
    save_figure(tmp_path / "a.png", rows, {"liver": 1})
    assert (tmp_path / "a.png").exists()


def test_without_a_common_slice_the_fullest_is_chosen() -> None:
    labels = np.zeros((10, 16, 16), dtype=np.uint8)
    for value in (1, 2, 3):
        labels[3 * value, 4 * value, :] = value
    labels[9, 5, 0] = 4
    assert choose_view([labels]) == SliceView(axis=0, level=9)


def test_without_any_structure_the_middle_is_chosen() -> None:
    assert choose_view([label_map()]) == SliceView(axis=0, level=5)


def test_picture_is_written_and_holds_the_colours_asked_for(tmp_path: Path) -> None:
    truth = label_map((2, 5), (2, 5))
    rows = [row("A computed tomography of liver", truth * (truth == 1), "Dice 1.00")]
    save_figure(tmp_path / "new" / "demo.png", rows, {"liver": 1, "spleen": 2})
    pixels = matplotlib.image.imread(tmp_path / "new" / "demo.png")[..., :3].reshape(-1, 3)
    near = [(np.abs(pixels - matplotlib.colors.to_rgb(colour(value))).max(axis=1) < 0.02).any() for value in (1, 2)]
    assert near == [True, False]


def test_more_rows_make_a_taller_picture(tmp_path: Path) -> None:
    heights = []
    for count in (1, 3):
        save_figure(tmp_path / "a.png", [row("all targets", label_map((2, 5)))] * count, {"liver": 1})
        heights.append(matplotlib.image.imread(tmp_path / "a.png").shape[0])
    assert heights[1] > 2 * heights[0]


def test_label_map_of_another_grid_is_refused(tmp_path: Path) -> None:
    wrong = replace(row("liver", label_map((2, 5))), prediction=np.zeros((10, 16, 15), dtype=np.uint8))
    with pytest.raises(DataError, match=r"prediction .*'liver'.*\(10, 16, 15\).*\(10, 16, 16\)"):
        save_figure(tmp_path / "a.png", [wrong], {"liver": 1})


def test_no_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row"):
        save_figure(tmp_path / "a.png", [], {"liver": 1})
