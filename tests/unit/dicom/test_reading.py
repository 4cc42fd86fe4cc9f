"""Series become volumes with the values of the scanner, in the right place."""

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from duplus_nnunet.dicom.finding import find_series
from duplus_nnunet.dicom.reading import read_volume, write_image
from duplus_nnunet.errors import DataError

from ...dicom_series import (
    CORONAL,
    FEET_FIRST,
    MR,
    PRONE,
    SAGITTAL,
    SUPINE,
    compress,
    expect_affine,
    make_enhanced,
    make_slices,
    make_stored,
    save,
    turn,
)

SPACING, ORIGIN = (2.5, 0.9, 0.7), (-30.25, 12.5, 101.0)
DIRECTIONS = {
    "supine": SUPINE,
    "prone": PRONE,
    "feet first": FEET_FIRST,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "oblique": turn(SUPINE),
    "oblique, feet first": turn(FEET_FIRST),
}


def read_one(folder):
    series = find_series(folder).series
    assert len(series) == 1
    return read_volume(series[0])


@pytest.mark.parametrize("name", DIRECTIONS)
def test_values_and_affine_are_those_of_the_series(tmp_path, name):
    stored = make_stored()
    volume = read_one(save(tmp_path, make_slices(stored, directions=DIRECTIONS[name])))
    np.testing.assert_array_equal(volume.values, stored - 1024.0)
    np.testing.assert_allclose(volume.affine, expect_affine(DIRECTIONS[name], SPACING, ORIGIN), atol=1e-4)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_written_image_is_what_gdcm_reads(tmp_path, name):
    import SimpleITK

    folder = save(tmp_path / "series", make_slices(make_stored(), directions=DIRECTIONS[name]))
    write_image(find_series(folder).series[0], tmp_path / "image.nii")
    ours = SimpleITK.ReadImage(str(tmp_path / "image.nii"))
    theirs = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(ours), SimpleITK.GetArrayFromImage(theirs))
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(ours, get)(), getattr(theirs, get)(), atol=1e-3)


def test_highdicom_reads_the_same_volume(tmp_path):
    import highdicom

    slices = make_slices(make_stored(), directions=turn(SUPINE))
    theirs = highdicom.get_volume_from_series(slices).flip_spatial(0)  # it orders slices the other way round
    ours = read_one(save(tmp_path, slices))
    np.testing.assert_array_equal(ours.values, theirs.array)
    np.testing.assert_allclose(ours.affine, np.diag([-1, -1, 1, 1]) @ theirs.affine, atol=1e-4)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda syntax: syntax.name)
def test_compressed_slices_are_read(tmp_path, syntax):
    stored = make_stored((3, 64, 64))
    slices = compress(make_slices(stored), syntax)
    np.testing.assert_array_equal(read_one(save(tmp_path, slices)).values, stored - 1024.0)


def test_multi_frame_file_is_read_in_the_order_of_positions(tmp_path):
    stored = make_stored()
    whole = make_enhanced(make_slices(stored, directions=turn(CORONAL)))
    volume = read_one(save(tmp_path, [whole]))
    np.testing.assert_array_equal(volume.values, stored - 1024.0)
    np.testing.assert_allclose(volume.affine, expect_affine(turn(CORONAL), SPACING, ORIGIN), atol=1e-4)


def test_each_slice_has_its_own_rescaling(tmp_path):
    stored = make_stored()
    slices = make_slices(stored, sop=MR)
    for index, one in enumerate(slices):
        one.RescaleSlope, one.RescaleIntercept = index + 1.5, -index
    values = read_one(save(tmp_path, slices)).values
    expected = [plane * (index + 1.5) - index for index, plane in enumerate(stored)]
    np.testing.assert_array_equal(values, np.array(expected, np.float32))


def test_unsigned_values_above_the_signed_range_are_kept(tmp_path):
    stored = np.full((3, 4, 4), 60000, np.uint16)
    slices = make_slices(stored.view(np.int16), sop=MR, RescaleIntercept=0, PixelRepresentation=0)
    assert read_one(save(tmp_path, slices)).values.max() == 60000


def test_monochrome1_does_not_turn_values_round(tmp_path):
    stored = make_stored()
    volume = read_one(save(tmp_path, make_slices(stored, PhotometricInterpretation="MONOCHROME1")))
    np.testing.assert_array_equal(volume.values, stored - 1024.0)
    assert volume.notes


def test_padding_gets_the_lowest_value_of_what_was_imaged(tmp_path):
    stored = make_stored()
    stored[:, 0, :] = -2000
    volume = read_one(save(tmp_path, make_slices(stored, PixelPaddingValue=-2000)))
    expected = np.where(stored == -2000, stored[stored != -2000].min(), stored) - 1024.0
    np.testing.assert_array_equal(volume.values, expected)


def test_padding_value_among_other_values_is_kept(tmp_path):
    stored = make_stored()
    stored[:, 0, :] = 500
    volume = read_one(save(tmp_path, make_slices(stored, PixelPaddingValue=500)))
    np.testing.assert_array_equal(volume.values, stored - 1024.0)


@pytest.mark.parametrize("missing", ["RescaleSlope", "RescaleIntercept"])
def test_ct_without_rescaling_is_refused(tmp_path, missing):
    with pytest.raises(DataError, match=missing):
        read_one(save(tmp_path, make_slices(make_stored(), **{missing: None})))


def test_cut_off_pixels_are_refused_by_instance_number(tmp_path):
    slices = make_slices(make_stored())
    slices[2].PixelData = slices[2].PixelData[:40]
    with pytest.raises(DataError, match=f"instance number {slices[2].InstanceNumber} "):
        read_one(save(tmp_path, slices))


@pytest.mark.parametrize("degrees", [-20.0, 5.0, 24.5])
def test_gantry_tilt_is_straightened(tmp_path, degrees):
    """A ramp over the patient's space keeps its values where the tilted slices cover it."""
    slope = np.tan(np.radians(degrees))
    stored = np.zeros((6, 24, 8), np.int16)
    slices = make_slices(stored, RescaleIntercept=0, RescaleSlope=0.01)
    for index, one in enumerate(slices):
        x, y, z = one.ImagePositionPatient
        one.ImagePositionPatient = [x, y + slope * index * SPACING[0], z]
        rows = y + slope * index * SPACING[0] + np.arange(24) * SPACING[1]
        one.PixelData = np.repeat(np.rint(100 * rows)[:, None], 8, axis=1).astype("<i2").tobytes()
    series = find_series(save(tmp_path, slices)).series[0]
    volume = read_volume(series)
    assert series.tilt == pytest.approx(abs(degrees), abs=1e-3)
    assert volume.notes
    assert np.allclose(volume.affine[:3, 0] / SPACING[0], [0, 0, 1])
    rows = np.arange(volume.values.shape[1])
    y = -(volume.affine @ np.stack([0 * rows, rows, 0 * rows, 0 * rows + 1]))[1]
    for index, plane in enumerate(volume.values):
        low = ORIGIN[1] + slope * index * SPACING[0]
        inside = (y >= low - 1e-6) & (y <= low + 23 * SPACING[1] + 1e-6)
        assert inside.sum() >= 23
        np.testing.assert_allclose(plane[inside], np.repeat(y[inside][:, None], 8, axis=1), atol=0.012)
