"""Headers of images: what is taken is what the readers take, and what would go wrong is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import imageio.v3
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile

from duplus_nnunet.data.image_headers import ImageHeader, inspect_image
from duplus_nnunet.errors import DataError

VALUES = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
AFFINE = np.array([[-1.5, 0, 0, 30], [0, -1.5, 0, 20], [0, 0, 2, 10], [0, 0, 0, 1.0]])


def flip(affine: Any, axis: int) -> Any:
    turned = affine.copy()
    turned[:, axis] *= -1
    return turned


def rotate(degrees: float) -> Any:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(np.deg2rad(degrees)), -np.sin(np.deg2rad(degrees))],
                    [np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))]]  # fmt: skip
    return turn


def write(
    folder: Path, *, qform: Any = AFFINE, sform: Any = AFFINE, codes: tuple[int, int] = (1, 1), **fields: Any
) -> Path:
    """Write a NIfTI file, byte by byte; fields of the header are set last."""
    header = nibabel.Nifti1Image(VALUES, None).header
    header.set_qform(qform, codes[0])
    header.set_sform(sform, codes[1])
    header["magic"], header["vox_offset"] = b"n+1", 352
    for name, value in fields.items():
        header[name] = value
    file = folder / "case_0000.nii.gz"
    file.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4 + VALUES.tobytes("F")))
    return file


def pixdim(*sizes: float) -> list[float]:
    return [1, *sizes, 1, 1, 1, 1]


def shape(*sizes: int) -> list[int]:
    return [len(sizes), *sizes, *[1] * (7 - len(sizes))]


def read_with_sitk(file: Path) -> ImageHeader:
    image = SimpleITK.ReadImage(str(file))
    size, spacing = image.GetSize()[::-1], image.GetSpacing()[::-1]
    return ImageHeader(size, spacing, image.GetOrigin(), image.GetDirection())


def require_same(found: ImageHeader, expected: ImageHeader) -> None:
    assert found.shape == expected.shape
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4)


GOOD: dict[str, dict[str, Any]] = {
    "plain": {},
    "qform alone": {"codes": (1, 0)},
    "sform alone": {"codes": (0, 1)},
    "aligned sform": {"codes": (1, 2), "sform": rotate(10) @ AFFINE},
    "scanner's sform": {"codes": (2, 1), "sform": rotate(10) @ AFFINE},
    "no codes": {"codes": (0, 0)},
    "right-handed": {"qform": flip(AFFINE, 0), "sform": flip(AFFINE, 0)},
    "axes permuted": {"qform": AFFINE[:, [2, 0, 1, 3]], "sform": AFFINE[:, [2, 0, 1, 3]]},
    "oblique": {"qform": rotate(30) @ AFFINE, "sform": rotate(30) @ AFFINE},
    "fourth axis of one": {"dim": shape(5, 6, 7, 1)},
    "fifth axis of one": {"dim": shape(5, 6, 7, 1, 1)},
    "micrometres": {"codes": (1, 0), "xyzt_units": 3, "pixdim": pixdim(900, 900, 2000)},
    "metres": {"codes": (1, 0), "xyzt_units": 1, "pixdim": pixdim(0.0009, 0.0009, 0.002)},
    "slope 0": {"scl_slope": 0, "scl_inter": 0},
    "slope NaN": {"scl_slope": np.nan, "scl_inter": np.nan},
    "sheared, with qform": {"sform": rotate(0) @ AFFINE + np.eye(4, k=1) * 0.02},
}


@pytest.mark.parametrize("name", GOOD)
def test_the_grid_is_the_one_that_simpleitk_takes(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, **GOOD[name])
    require_same(inspect_image(file), read_with_sitk(file))


@pytest.mark.parametrize("name", ["plain", "qform alone", "sform alone", "aligned sform", "no codes", "axes permuted"])
def test_the_grid_is_the_one_that_nibabel_takes(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, **GOOD[name])
    found, stored = inspect_image(file, "NibabelIO"), nibabel.load(file)
    expected = np.diag([-1, -1, 1]) @ stored.affine[:3]
    np.testing.assert_allclose(np.reshape(found.direction, (3, 3)) * found.spacing[::-1], expected[:, :3], atol=1e-5)
    np.testing.assert_allclose(found.origin, expected[:, 3], atol=1e-5)


BAD: dict[str, dict[str, Any]] = {
    "vox_offset": {"vox_offset": 348},
    "vox_offset behind the end": {"vox_offset": 400},
    "fewer voxels": {"dim": shape(4, 6, 7)},
    "more voxels": {"dim": shape(6, 6, 7)},
    "no voxels": {"dim": shape(5, 0, 7)},
    "several volumes": {"dim": shape(5, 6, 1, 7)},
    "RGB": {"datatype": 128, "bitpix": 24, "dim": shape(5, 2, 7)},
    "complex": {"datatype": 32, "bitpix": 64, "dim": shape(5, 6, 1)},
    "bits of another type": {"bitpix": 32},
    "pixdim 0": {"pixdim": pixdim(1.5, 1.5, 0)},
    "pixdim negative": {"pixdim": pixdim(1.5, 1.5, -2)},
    "pixdim NaN": {"pixdim": pixdim(1.5, 1.5, np.nan)},
    "pixdim against sform": {"pixdim": pixdim(1.5, 1.5, 4)},
    "pixdim 30 times the sform": {"codes": (1, 2), "sform": AFFINE * 30},
    "sides exchanged": {"sform": flip(AFFINE, 0)},
    "sides exchanged, aligned": {"codes": (1, 2), "sform": flip(AFFINE, 0)},
    "mirrored by its z axis": {"sform": flip(AFFINE, 2)},
    "sheared": {"codes": (0, 1), "sform": AFFINE + np.eye(4, k=1) * 0.02},
    "singular": {"srow_z": [0, 0, 0, 0]},
    "NaN in the sform": {"srow_x": [np.nan, 0, 0, 0]},
    "metres for millimetres": {"xyzt_units": 1},
    "micrometres for millimetres": {"xyzt_units": 3},
    "1000 mm": {"codes": (1, 0), "pixdim": pixdim(1000, 1, 1)},
    "slope infinite": {"scl_slope": np.inf, "scl_inter": 0},
    "offset without slope": {"scl_slope": 0, "scl_inter": 5},
    "offset NaN": {"scl_slope": 2, "scl_inter": np.nan},
}


@pytest.mark.parametrize("name", BAD)
def test_a_header_that_would_be_read_wrong_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"case_0000\.nii\.gz"):
        inspect_image(write(tmp_path, **BAD[name]))


DOUBTFUL: dict[str, dict[str, Any]] = {
    "no codes": {"codes": (0, 0)},
    "rotated": {"sform": np.c_[(rotate(10) @ AFFINE)[:, :3], AFFINE[:, 3]]},
    "shifted": {"sform": np.c_[AFFINE[:, :3], AFFINE[:, 3] + (7, 0, 0, 0)]},
    "pixdim nearly the sform": {"pixdim": pixdim(1.5, 1.5, 2.01)},
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubtful_header_is_taken_with_a_warning(tmp_path: Path, name: str) -> None:
    assert inspect_image(write(tmp_path)).warnings == ()
    assert len(inspect_image(write(tmp_path, **DOUBTFUL[name])).warnings) == 1


def test_a_header_without_codes_says_nothing_of_the_patient(tmp_path: Path) -> None:
    assert not inspect_image(write(tmp_path, codes=(0, 0))).oriented
    assert inspect_image(write(tmp_path, codes=(0, 1))).oriented


def test_nifti_2_is_read_by_nibabel_alone(tmp_path: Path) -> None:
    file = tmp_path / "case_0000.nii.gz"
    nibabel.save(nibabel.Nifti2Image(VALUES, AFFINE), file)
    assert inspect_image(file, "NibabelIO").shape == (7, 6, 5)
    with pytest.raises(DataError, match="NIfTI-2"):
        inspect_image(file)


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "case_0000.nii"
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(VALUES.astype(">i2"), AFFINE, header), file)
    require_same(inspect_image(file), read_with_sitk(file))


@pytest.mark.parametrize("name", ["case_0000.nii.gz", "case_0000.nii", "case_0000.mha", "case_0000.gipl"])
def test_a_whole_file_passes_and_one_without_its_header_or_end_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VALUES), str(file))
    content = file.read_bytes()
    assert inspect_image(file).shape == (5, 6, 7)
    if not name.endswith(".mha"):  # its reader finds out by itself
        file.write_bytes(content[:-50])
        with pytest.raises(DataError, match=name):
            inspect_image(file)
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=name):
        inspect_image(file)


def test_a_file_in_several_gzip_blocks_passes(tmp_path: Path) -> None:
    file = write(tmp_path)
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert inspect_image(file).shape == (7, 6, 5)


def test_a_file_that_is_not_compressed_as_its_name_says_is_named(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_bytes(gzip.decompress(file.read_bytes()))
    with pytest.raises(DataError, match=file.name):
        inspect_image(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.nii\.gz"):
        inspect_image(tmp_path / "nowhere.nii.gz")


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_other_formats_of_simpleitk_have_their_grid(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"case_0000.{ending}"
    image = SimpleITK.GetImageFromArray(VALUES)
    image.SetSpacing((0.5, 0.75, 3))
    image.SetOrigin((1, -2, 3))
    image.SetDirection((-1, 0, 0, 0, 0, 1, 0, 1, 0))
    SimpleITK.WriteImage(image, str(file))
    require_same(inspect_image(file), read_with_sitk(file))


def test_a_colour_image_of_simpleitk_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "case_0000.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VALUES.reshape(5, 6, 7, 1).repeat(3, 3), True), str(file))
    with pytest.raises(DataError, match=file.name):
        inspect_image(file)


def test_the_spacing_of_a_tiff_file_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "case_0000.tif"
    tifffile.imwrite(file, VALUES)
    assert inspect_image(file).spacing == (1, 1, 1)
    assert len(inspect_image(file).warnings) == 1
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [3, 0.5, 0.75]}))
    assert inspect_image(file) == ImageHeader((5, 6, 7), (3, 0.5, 0.75))


def test_a_picture_is_one_slice(tmp_path: Path) -> None:
    imageio.v3.imwrite(tmp_path / "case_0000.png", VALUES[0].astype(np.uint8))
    assert inspect_image(tmp_path / "case_0000.png") == ImageHeader((1, 6, 7), (999, 1, 1))
