"""Structures of RTSTRUCT and SEG files become masks on the slices of their series."""

import numpy as np
import pydicom
import pytest

from duplus_nnunet.dicom.codes import NamedMask
from duplus_nnunet.dicom.rtstruct import write_structure_set
from duplus_nnunet.dicom.segmentation import write_segmentation
from duplus_nnunet.dicom.source_slices import read_source_slices
from duplus_nnunet.dicom.structures import open_structure_file, read_structures
from duplus_nnunet.errors import DataError

from .series_phantom import AXIAL, CORONAL, OBLIQUE, make_masks, write_series

SHAPE = (5, 9, 11)


def open_series(folder, **options):
    return read_source_slices(write_series(folder, np.arange(np.prod(SHAPE)).reshape(SHAPE), **options))


def draw(file, source, masks, form):
    targets = [NamedMask(name) for name in masks]
    if form == "rtstruct":
        write_structure_set(file, source, targets, list(masks.values()))
    else:
        write_segmentation(file, source, targets, list(masks.values()), form)
    return file


def change(file, edit):
    content = pydicom.dcmread(file)
    edit(content)
    content.save_as(file)
    return file


@pytest.mark.parametrize("form", ["rtstruct", "binary", "labelmap"])
@pytest.mark.parametrize("direction", [AXIAL, CORONAL, OBLIQUE])
@pytest.mark.parametrize("step", [1.5, -1.5])
def test_what_was_written_is_read_voxel_by_voxel(tmp_path, form, direction, step):
    source, masks = open_series(tmp_path / "s", direction=direction, spacing=(step, 0.8, 0.6)), make_masks(SHAPE)
    if form == "labelmap":
        masks = {"spleen": masks["spleen"], "liver": masks["liver"] & ~masks["spleen"]}
    back = read_structures(open_structure_file(draw(tmp_path / "f.dcm", source, masks, form)), source)
    assert [one.name for one in back] == [name for name, mask in masks.items() if mask.any()]
    for one in back:
        np.testing.assert_array_equal(one.mask, masks[one.name])


def test_a_contour_inside_another_cuts_a_hole(tmp_path):
    source, mask = open_series(tmp_path / "s"), np.zeros(SHAPE, bool)
    mask[2, 1:8, 1:8] = True
    hole = np.zeros(SHAPE, bool)
    hole[2, 3:5, 3:5] = True
    file = draw(tmp_path / "f.dcm", source, {"outer": mask, "inner": hole}, "rtstruct")

    def merge(content):
        content.ROIContourSequence[0].ContourSequence += content.ROIContourSequence[1].ContourSequence

    structures = read_structures(open_structure_file(change(file, merge)), source)
    np.testing.assert_array_equal(structures[0].mask, mask & ~hole)


def test_points_are_left_out_and_a_structure_without_contours_is_empty(tmp_path):
    source = open_series(tmp_path / "s")
    file = draw(
        tmp_path / "f.dcm", source, {"a": make_masks(SHAPE)["liver"], "b": make_masks(SHAPE)["liver"]}, "rtstruct"
    )

    def edit(content):
        content.ROIContourSequence[0].ContourSequence = content.ROIContourSequence[0].ContourSequence[:1]
        content.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "POINT"
        del content.ROIContourSequence[1]

    one, other = read_structures(open_structure_file(change(file, edit)), source)
    assert not one.mask.any()
    assert one.notes
    assert not other.mask.any()


def refuse(file, source):
    with pytest.raises(DataError) as caught:
        read_structures(open_structure_file(file), source)
    return str(caught.value)


@pytest.mark.parametrize("form", ["rtstruct", "binary"])
def test_another_series_is_refused(tmp_path, form):
    source, other = open_series(tmp_path / "a"), open_series(tmp_path / "b")
    assert "another series" in refuse(draw(tmp_path / "f.dcm", source, make_masks(SHAPE), form), other)


@pytest.mark.parametrize("form", ["rtstruct", "binary"])
def test_another_frame_of_reference_is_refused(tmp_path, form):
    source, other = (
        open_series(tmp_path / "a", SeriesInstanceUID="1.2"),
        open_series(tmp_path / "b", SeriesInstanceUID="1.2"),
    )
    assert "frame of reference" in refuse(draw(tmp_path / "f.dcm", source, make_masks(SHAPE), form), other)


UIDS = {"SeriesInstanceUID": "1.2", "FrameOfReferenceUID": "1.3"}


def test_contours_between_the_slices_are_refused(tmp_path):
    source = open_series(tmp_path / "a", **UIDS)
    shifted = open_series(tmp_path / "b", origin=(-10, -20, 30.6), **UIDS)
    assert "lies on none" in refuse(draw(tmp_path / "f.dcm", source, make_masks(SHAPE), "rtstruct"), shifted)


def test_contours_slightly_off_the_slices_are_placed(tmp_path):
    source, masks = open_series(tmp_path / "a", **UIDS), make_masks(SHAPE)
    shifted = open_series(tmp_path / "b", origin=(-10, -20, 30.01), **UIDS)
    back = read_structures(open_structure_file(draw(tmp_path / "f.dcm", source, masks, "rtstruct")), shifted)
    np.testing.assert_array_equal(back[0].mask, masks["liver"])


@pytest.mark.parametrize(
    "moved",
    [
        {"origin": (-9.7, -20, 30)},
        {"spacing": (1.5, 0.9, 0.8)},
        {"spacing": (1.5, 0.4, 0.4)},
        {"spacing": (1.5, 1.6, 1.6)},
        {"direction": OBLIQUE},
    ],
)
def test_a_segmentation_on_another_grid_is_refused(tmp_path, moved):
    source, other = open_series(tmp_path / "a", **UIDS), open_series(tmp_path / "b", **UIDS, **moved)
    assert "does not lie on the voxels" in refuse(draw(tmp_path / "f.dcm", source, make_masks(SHAPE), "binary"), other)


def test_a_segmentation_shifted_by_whole_voxels_is_laid_where_it_lies(tmp_path):
    source, other = open_series(tmp_path / "a", **UIDS), open_series(tmp_path / "b", origin=(-9.2, -20, 31.5), **UIDS)
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 2:5, 3:6] = True
    (back,) = read_structures(open_structure_file(draw(tmp_path / "f.dcm", source, {"liver": mask}, "binary")), other)
    np.testing.assert_array_equal(back.mask, np.roll(mask, (-1, 0, -1), (0, 1, 2)))


def test_a_contour_that_is_stored_twice_counts_once(tmp_path):
    source, masks = open_series(tmp_path / "s"), {"liver": make_masks(SHAPE)["liver"]}
    file = draw(tmp_path / "f.dcm", source, masks, "rtstruct")

    def repeat(content):
        contours = content.ROIContourSequence[0].ContourSequence
        contours.append(contours[0])

    (back,) = read_structures(open_structure_file(change(file, repeat)), source)
    np.testing.assert_array_equal(back.mask, masks["liver"])
    assert any("cop" in note for note in back.notes)


@pytest.mark.parametrize("name", ["SharedFunctionalGroupsSequence", "PixelData"])
def test_an_incomplete_segmentation_is_refused(tmp_path, name):
    source = open_series(tmp_path / "s")
    file = draw(tmp_path / "f.dcm", source, make_masks(SHAPE), "binary")
    assert "f.dcm" in refuse(change(file, lambda content: delattr(content, name)), source)


def test_two_structures_of_one_name_are_refused(tmp_path):
    source = open_series(tmp_path / "s")
    masks = {name: make_masks(SHAPE)["liver"] for name in ("a", "b")}
    file = draw(tmp_path / "f.dcm", source, masks, "rtstruct")

    def rename(content):
        content.StructureSetROISequence[1].ROIName = "a"

    assert "named 'a'" in refuse(change(file, rename), source)


def test_an_image_is_no_file_of_structures(tmp_path):
    (file, *_) = write_series(tmp_path, np.zeros(SHAPE))
    with pytest.raises(DataError, match="'CT'"):
        open_structure_file(file)


def join(content):
    """Make the contours of the second structure contours of the first one."""
    content.ROIContourSequence[0].ContourSequence += content.ROIContourSequence[1].ContourSequence


def read_joined(tmp_path, first, second, edit=join):
    source = open_series(tmp_path / "s")
    masks = [np.zeros(SHAPE, bool) for _ in range(2)]
    for mask, (rows, columns) in zip(masks, (first, second), strict=True):
        mask[2, slice(*rows), slice(*columns)] = True
    file = draw(tmp_path / "f.dcm", source, {"a": masks[0], "b": masks[1]}, "rtstruct")
    return read_structures(open_structure_file(change(file, edit)), source)[0], masks


def test_contours_that_overlap_in_part_are_a_problem(tmp_path):
    structure, masks = read_joined(tmp_path, ((1, 5), (1, 6)), ((3, 8), (3, 9)))
    assert "6 voxels" in structure.problem
    assert (masks[0] & masks[1]).sum() == 6


def test_contours_that_touch_one_another_are_noted(tmp_path):
    structure, _ = read_joined(tmp_path, ((1, 8), (1, 6)), ((7, 8), (5, 7)))
    assert not structure.problem
    assert any("overlap" in note for note in structure.notes)


def test_contours_that_cut_holes_by_the_standard_are_no_problem(tmp_path):
    def edit(content):
        join(content)
        for contour in content.ROIContourSequence[0].ContourSequence:
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"

    structure, masks = read_joined(tmp_path, ((1, 5), (1, 6)), ((3, 8), (3, 9)), edit)
    assert not structure.problem
    np.testing.assert_array_equal(structure.mask, masks[0] ^ masks[1])


@pytest.mark.parametrize(
    ("drawn", "words"), [([0, 2, 4], ["2 of the 5", "40%", "second"]), ([0, 1, 4], ["2 of the 5"]), ([1, 2, 3], [])]
)
def test_slices_without_contours_are_counted_and_not_interpolated(tmp_path, drawn, words):
    source, mask = open_series(tmp_path / "s"), np.zeros(SHAPE, bool)
    mask[drawn, 2:6, 2:6] = True
    (structure,) = read_structures(
        open_structure_file(draw(tmp_path / "f.dcm", source, {"liver": mask}, "rtstruct")), source
    )
    np.testing.assert_array_equal(structure.mask, mask)
    assert bool(structure.notes) == bool(words)
    assert all(word in " ".join(structure.notes) for word in words)
