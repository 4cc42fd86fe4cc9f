"""One mask per target."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

from duplus_nnunet.outputs.masks import write_masks

from .outputs_answers import SHAPE, make_answer, make_cube, save_oriented

LIVER, TUMOUR, NOTHING = make_cube((1, 1, 1), (4, 4, 4)), make_cube((2, 2, 2), (2, 1, 1)), np.zeros(SHAPE, bool)
MASKS = {"liver": LIVER, "liver/tumour": TUMOUR, "spleen": NOTHING}


class BrokenWriter(SimpleITKIO):  # type: ignore[misc]
    def write_seg(self, seg: Any, output_fname: str, properties: Any) -> None:
        Path(output_fname).write_bytes(b"half")
        raise OSError("disk full")


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient])
@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR"])
def test_masks_lie_on_the_images_grid_bit_by_bit(orientation: str, reader: Any, tmp_path: Path) -> None:
    scan = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    file = save_oriented(tmp_path / "scan.nii.gz", scan, orientation, (0.7, 0.8, 2.5))
    image, properties = reader().read_images([str(file)])
    bright = image[0] > 0.5
    written = write_masks(make_answer({"bright": bright}, properties), tmp_path, reader(), ".nii.gz")[0]
    ours, theirs = nibabel.load(written), nibabel.load(file)
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj) > 0.5)
    assert ours.get_data_dtype() == np.uint8
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)
    mask, whole = (SimpleITK.ReadImage(str(path)) for path in (written, file))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), SimpleITK.GetArrayFromImage(whole) > 0.5)
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(mask, name)() == pytest.approx(getattr(whole, name)(), abs=1e-4)
    np.testing.assert_array_equal(reader().read_seg(str(written))[0][0], bright)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_case_gets_a_folder_with_a_file_a_target(ending: str, tmp_path: Path) -> None:
    written = write_masks(make_answer(MASKS), tmp_path, SimpleITKIO(), ending)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        f"case_1/{name}{ending}" for name in ("liver", "liver_tumour", "spleen")
    ]
    assert sorted((tmp_path / "case_1").iterdir()) == sorted(written)


def test_targets_that_overlap_or_are_absent_have_masks_of_their_own(tmp_path: Path) -> None:
    written = write_masks(make_answer(MASKS), tmp_path, SimpleITKIO(), ".nii.gz")
    for mask, file in zip((LIVER, TUMOUR, NOTHING), written, strict=True):
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))), mask)


def test_targets_of_the_same_file_name_do_not_overwrite_one_another(tmp_path: Path) -> None:
    masks = {"liver tumour": LIVER, "liver_tumour": TUMOUR, "Liver Tumour": NOTHING}
    written = write_masks(make_answer(masks), tmp_path, SimpleITKIO(), ".nii.gz")
    counts = [int(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))).sum()) for file in written]
    assert counts == [64, 2, 0]


def test_writing_that_fails_half_way_leaves_no_mask(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        write_masks(make_answer(MASKS), tmp_path, BrokenWriter(), ".nii.gz")
    assert list((tmp_path / "case_1").iterdir()) == []


def test_answer_is_left_as_it_was(tmp_path: Path) -> None:
    answer = make_answer(MASKS)
    write_masks(answer, tmp_path, SimpleITKIO(), ".nii.gz")
    assert [int(target.mask.sum()) for target in answer.targets] == [64, 2, 0]
