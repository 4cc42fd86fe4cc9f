"""Previews of predictions: chosen slices, orientation, and written files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom import make_phantom, save_volume
from duplus_nnunet.data.scans import CT
from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs import preview
from duplus_nnunet.outputs.answer import CaseAnswer
from duplus_nnunet.outputs.planes import PLANES, locate_slices, orient_case, view_image, view_target
from duplus_nnunet.outputs.preview import write_preview

from .outputs_answers import PROPERTIES, SHAPE, SPACING, make_answer, make_cube, make_image

SMALL = replace(CT, shape=(24, 22, 16), spacing=(11.0, 12.0, 13.0))
CUBE, NOTHING = make_cube((1, 2, 3), (3, 2, 4)), np.zeros(SHAPE, bool)


def scan_phantom(folder: Path, orientation: str, reader: Any) -> tuple[CaseAnswer, Any]:
    """Return the same patient stored in different orientations, with the reference as prediction."""
    phantom = make_phantom(3, 0, 0, replace(SMALL, orientation=orientation))
    files = [folder / f"{orientation}_{name}.nii.gz" for name in ("image", "labels")]
    save_volume(phantom.image, phantom.affine, files[0])
    save_volume(phantom.labels, phantom.affine, files[1])
    image, properties = reader().read_images([str(files[0])])
    labels = reader().read_seg(str(files[1]))[0][0]
    return make_answer({name: labels == value for name, value in LABELS.items()}, properties), image


def take_figure(answer: CaseAnswer, image: Any, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """Draw the first picture, and return its figure."""
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: (drawn.append(self), Path(file).touch()))
    write_preview(answer, image, Path("."))
    return drawn[0]


@pytest.mark.parametrize(
    ("orientation", "reader"),
    [
        ("LPI", NibabelIO),
        ("RAS", NibabelIO),
        ("LPI", SimpleITKIO),
        ("RAS", SimpleITKIO),
        ("SAR", NibabelIOWithReorient),
        ("PIL", SimpleITKIOWithReorient),
    ],
)
def test_left_kidney_is_at_the_right_hand_in_the_back_whatever_way_it_is_stored(
    orientation: str, reader: Any, tmp_path: Path
) -> None:
    case = orient_case(*scan_phantom(tmp_path, orientation, reader))
    kidney, spine, liver = (
        next(part.box for part in case.parts if part.target.name == name) for name in ("left kidney", "spine", "liver")
    )
    assert case.oriented
    assert kidney[2].start >= spine[2].stop - 2
    assert liver[2].start < spine[2].start
    assert spine[1].stop > liver[1].stop
    assert liver[0].stop > kidney[0].stop


def test_picture_of_a_patient_is_the_same_whatever_way_it_is_stored(tmp_path: Path) -> None:
    pictures = []
    for orientation, reader in (("LPS", SimpleITKIO), ("RAS", NibabelIO), ("LPI", SimpleITKIO), ("AIR", NibabelIO)):
        answer, image = scan_phantom(tmp_path, orientation, reader)
        answer = replace(answer, targets=answer.targets[2:4])
        (file,) = write_preview(answer, image, tmp_path / f"{orientation}{reader.__name__}")
        pictures.append(matplotlib.image.imread(file)[..., :3])
    for other in pictures[1:]:
        assert other.shape == pictures[0].shape
        assert np.abs(other - pictures[0]).mean() < 1e-3


@pytest.mark.parametrize(
    ("plane", "letters", "rows_run_up"), [(0, "RLAP", False), (1, "RLHF", True), (2, "APHF", True)]
)
def test_letters_stand_where_the_patients_sides_are(
    plane: int, letters: str, rows_run_up: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    panel = take_figure(make_answer({"liver": CUBE}), make_image(), monkeypatch).axes[plane]
    places = {text.get_text(): text.xy for text in panel.texts if hasattr(text, "xy")}
    left, right, top, bottom = letters
    assert places[left][0] < 0.5 < places[right][0]
    assert places[bottom][1] < 0.5 < places[top][1]
    assert panel.get_xlim()[0] < panel.get_xlim()[1]
    assert (panel.get_ylim()[0] < panel.get_ylim()[1]) == rows_run_up


def test_pixels_have_the_proportions_of_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    panels = take_figure(make_answer({"liver": CUBE}), make_image(), monkeypatch).axes
    z, y, x = SPACING
    assert [panel.get_aspect() for panel in panels] == pytest.approx([y / x, z / x, z / y])


def test_outline_lies_around_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    panel = take_figure(make_answer({"liver": CUBE}), make_image(), monkeypatch).axes[0]
    (outline,) = panel.collections
    corners = outline.get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == pytest.approx((2.5, 6.5, 1.5, 3.5))


def test_sides_are_not_named_if_the_file_does_not_say_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    figure = take_figure(make_answer({"liver": CUBE}, {"spacing": list(SPACING)}), make_image(), monkeypatch)
    assert not {text.get_text() for panel in figure.axes for text in panel.texts} & set("RLAPHF")
    assert "orientation" in figure.texts[0].get_text()


def test_slices_go_through_the_middle_of_a_target() -> None:
    case = orient_case(make_answer({"liver": make_cube((1, 1, 1), (3, 5, 5))}), make_image())
    assert view_target(case, case.parts[0]).levels == (2, 3, 3)


def test_slices_between_two_parts_are_moved_into_one() -> None:
    pair = make_cube((1, 1, 0), (3, 3, 2)) | make_cube((1, 1, 5), (3, 3, 3))
    case = orient_case(make_answer({"kidneys": pair}), make_image())
    view = view_target(case, case.parts[0])
    assert all(case.parts[0].cut(plane, view.levels[plane.across]) for plane in PLANES)
    assert view.levels[2] == 5


def test_field_lies_inside_the_image_and_holds_the_target() -> None:
    spacing = {"spacing": [40.0, 40.0, 40.0]}
    case = orient_case(make_answer({"liver": make_cube((0, 3, 5), (1, 1, 2))}, spacing), make_image())
    view = view_target(case, case.parts[0])
    for (first, last), size, box in zip(view.field, SHAPE, case.parts[0].box, strict=True):
        assert -0.5 <= first <= box.start
        assert box.stop - 1 <= last <= size - 0.5
        assert last - first == pytest.approx(min(4.5, size))


def test_grey_values_are_spread_over_what_is_around_the_target() -> None:
    image = np.full((1, *SHAPE), -1000, np.float32)
    image[0][make_cube((0, 0, 0), (6, 7, 4))] = 50
    case = orient_case(make_answer({"liver": make_cube((1, 1, 0), (2, 2, 1))}, {"spacing": [40.0] * 3}), image)
    dark, bright = view_target(case, case.parts[0]).window
    assert -1000 < dark < 50 < bright


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_image_without_contrast_is_drawn_too(value: float, tmp_path: Path) -> None:
    (file,) = write_preview(make_answer({"liver": CUBE}), np.full((1, *SHAPE), value, np.float32), tmp_path)
    assert matplotlib.image.imread(file).ndim == 3


def test_answer_without_any_target_is_a_picture_of_the_image_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = write_preview(make_answer({"liver": NOTHING, "spleen": NOTHING}), make_image(), tmp_path)
    assert file == tmp_path / "case_1_preview.png"
    assert matplotlib.image.imread(file)[..., :3].max() > 0.5
    monkeypatch.chdir(tmp_path)
    figure = take_figure(make_answer({"liver": NOTHING, "spleen": NOTHING}), make_image(), monkeypatch)
    assert "Not found: liver, spleen" in figure.texts[0].get_text()
    assert len(figure.axes) == 3


def test_middle_of_the_image_is_looked_at_if_there_is_nothing_else() -> None:
    view = view_image(orient_case(make_answer({"liver": NOTHING}), make_image()))
    assert view.levels == (2, 3, 3)


def test_many_targets_take_several_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "TARGETS_PER_PICTURE", 2)
    files = write_preview(make_answer(dict.fromkeys("abcde", CUBE)), make_image(), tmp_path)
    assert [file.name for file in files] == ["case_1_preview.png", "case_1_preview_2.png", "case_1_preview_3.png"]


@pytest.mark.parametrize("name", ["$x_", "_hidden", "肝臓", "long " * 60, "two\nlines"])
def test_any_text_of_a_user_can_be_drawn(name: str, tmp_path: Path) -> None:
    assert write_preview(make_answer({name: CUBE, name + "?": NOTHING}), make_image(), tmp_path)[0].is_file()


def test_legend_names_what_is_seen_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preview, "TARGETS_PER_PICTURE", 1)
    masks = {"liver": CUBE, "vein": make_cube((2, 3, 3), (1, 1, 1)), "far": make_cube((5, 6, 7), (1, 1, 1))}
    figure = take_figure(make_answer(masks), make_image(), monkeypatch)
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["liver", "vein"]


def test_writing_that_fails_leaves_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Figure, file: Path, **__: Any) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        write_preview(make_answer({"liver": CUBE}), make_image(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_image_on_another_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"case_1.*\(1, 2, 2, 2\).*6, 7, 8"):
        write_preview(make_answer({"liver": CUBE}), np.zeros((1, 2, 2, 2)), tmp_path)


def test_twelve_targets_of_one_colour_have_different_outlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = make_answer(dict.fromkeys("abcdefghijkl", CUBE))
    targets = tuple(replace(target, value=1 + 7 * number) for number, target in enumerate(answer.targets))
    figure = take_figure(replace(answer, targets=targets), make_image(), monkeypatch)
    lines = figure.legends[0].get_lines()
    assert len({line.get_color() for line in lines}) == 1
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 12


@pytest.mark.parametrize(
    ("properties", "texts"),
    [
        (PROPERTIES, ["z 2, S 45.2 mm", "y 2, A -5.1 mm", "x 4, R 8.2 mm"]),
        ({"spacing": list(SPACING)}, ["z 2", "y 2", "x 4"]),
    ],
)
def test_slices_name_their_index_and_world_coordinate(
    properties: dict[str, Any], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = make_answer({"liver": make_cube((1, 1, 3), (3, 3, 3))}, properties)
    panels = take_figure(answer, make_image(), monkeypatch).axes
    assert [
        text for panel, text in zip(panels, texts, strict=True) if text in {t.get_text() for t in panel.texts}
    ] == texts


@pytest.mark.parametrize(
    ("orientation", "reader"), [("LPI", NibabelIO), ("RAS", SimpleITKIO), ("PIL", SimpleITKIOWithReorient)]
)
def test_position_of_a_slice_is_that_of_the_target_whatever_way_it_is_stored(
    orientation: str, reader: Any, tmp_path: Path
) -> None:
    answer, image = scan_phantom(tmp_path, orientation, reader)
    case = orient_case(answer, image)
    part = next(part for part in case.parts if part.target.name == "liver")
    positions = locate_slices(case, view_target(case, part))
    (first,) = (target for target in answer.targets if target.name == "liver")
    for position in positions:
        axis = "zyx".index(position.axis)
        assert first.box[axis].start <= position.index < first.box[axis].stop
    same = orient_case(*scan_phantom(tmp_path, "LPS", SimpleITKIO))
    twin = next(part for part in same.parts if part.target.name == "liver")
    expected = [position.millimetres for position in locate_slices(same, view_target(same, twin))]
    assert [position.millimetres for position in positions] == pytest.approx(expected, abs=1e-3)


def test_level_and_width_of_the_window_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer, image = make_answer({"liver": CUBE}, {"spacing": [40.0] * 3}), 100 * make_image()
    case = orient_case(answer, image)
    dark, bright = view_target(case, case.parts[0]).window
    title = take_figure(answer, image, monkeypatch).axes[2].get_title(loc="right")
    level, width = (float(word.split()[1]) for word in title.split(", "))
    assert (level, width) == pytest.approx(((dark + bright) / 2, bright - dark), rel=0.01, abs=0.1)
