"""Training data hold the intensities that predictions are made of, and labels lie on the structures of the image."""

import json

import nibabel
import numpy as np
import pytest

from duplus_nnunet.dicom.codes import NamedMask
from duplus_nnunet.dicom.finding import find_series
from duplus_nnunet.dicom.reading import read_volume, write_image
from duplus_nnunet.dicom.rtstruct import write_structure_set
from duplus_nnunet.dicom.segmentation import write_segmentation
from duplus_nnunet.dicom.source_slices import read_source_slices
from duplus_nnunet.dicom.training_data import Choices, convert_drawn
from duplus_nnunet.errors import DataError

from ...dicom_series import MR, PET, make_pet_values, make_slices, make_stored, save

SHAPE = (6, 12, 9)
WRITERS = {"rtstruct": write_structure_set, "seg": write_segmentation}


def tilt(slices, along=1, shift=0.63):
    """Shift slices sideways by mm a slice."""
    for index, one in enumerate(slices):
        place = [float(value) for value in one.ImagePositionPatient]
        place[along] += index * shift
        one.ImagePositionPatient = [round(value, 6) for value in place]
    return slices


def make_padded():
    stored = make_stored(SHAPE)
    stored[:, 0, :] = -2000
    slices = make_slices(stored)
    for one in slices:  # as GE writes it
        one.add_new("PixelPaddingValue", "US", 63536)
    return slices


def make_by_its_own_slope():
    slices = make_slices(make_stored(SHAPE), sop=MR, RescaleIntercept=0)
    for index, one in enumerate(slices):
        one.RescaleSlope = 1 + 0.37 * index
    return slices


SERIES = {
    "CT with padding": make_padded,
    "MONOCHROME1": lambda: make_slices(make_stored(SHAPE), PhotometricInterpretation="MONOCHROME1"),
    "tilted": lambda: tilt(make_slices(make_stored(SHAPE))),
    "tilted the other way": lambda: tilt(make_slices(make_stored(SHAPE)), shift=-0.63),
    "PET": lambda: make_slices(make_stored(SHAPE), sop=PET, **make_pet_values()),
    "MR with a slope for each slice": make_by_its_own_slope,
}


def make_mask():
    mask = np.zeros(SHAPE, bool)
    mask[1:5, 3:9, 2:6] = True
    return mask


def draw(folder, slices, form="rtstruct", masks=None):
    """Save a series with structures beside it."""
    save(folder / "images", slices)
    source = read_source_slices(list((folder / "images").iterdir()))
    masks = masks or {"liver": make_mask()}
    WRITERS[form](folder / "structures.dcm", source, [NamedMask(name) for name in masks], list(masks.values()))
    return source


def convert(folder, **choices):
    done = convert_drawn(folder, (), folder.parent / "Dataset001_Clinical", Choices(**choices))
    return done, [read(done.folder / name) for name in ("imagesTr", "labelsTr")]


def read(folder):
    (file,) = folder.iterdir()
    return nibabel.load(file)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", SERIES)
def test_training_data_are_what_is_predicted(tmp_path, name, form):
    draw(tmp_path / "in", SERIES[name](), form)
    (series,) = [one for one in find_series(tmp_path / "in").series if one.is_usable]
    write_image(series, tmp_path / "predicted.nii")
    done, (image, labels) = convert(tmp_path / "in")
    predicted = nibabel.load(tmp_path / "predicted.nii")
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(predicted.dataobj))
    np.testing.assert_allclose(image.affine, predicted.affine, atol=1e-4)
    np.testing.assert_array_equal(labels.affine, image.affine)
    assert labels.shape == image.shape
    notes = json.loads((done.folder / "conversion.json").read_text())["notes"]
    assert set(read_volume(series).notes) == set(notes.get(next(iter(done.cases)), []))


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("shift", [0.63, -0.8])
def test_labels_of_a_tilted_series_lie_on_the_structure(tmp_path, along, shift):
    """The structure is bright in the image: labels and bright voxels coincide, but for half a voxel."""
    mask = make_mask()
    source = draw(tmp_path / "in", tilt(make_slices(np.where(mask, 1500, 0)), along, shift))
    _, (image, labels) = convert(tmp_path / "in")
    drawn, bright = np.asarray(labels.dataobj) == 1, np.asarray(image.dataobj) > 750 - 1024
    assert drawn.sum() == mask.sum()
    assert 2 * (drawn & bright).sum() / (drawn.sum() + bright.sum()) > 0.85
    for index in range(1, 5):  # the centre of the structure in each slice, in mm
        rows, columns = np.nonzero(mask[index])
        expected = source.locate(index)[:3] @ [rows.mean(), columns.mean(), 1] * [-1, -1, 1]
        found = np.argwhere(drawn[:, :, index]).mean(axis=0)
        np.testing.assert_allclose((labels.affine @ [*found, index, 1])[:3], expected, atol=0.46)


def test_a_volume_of_a_series_of_several_is_found_by_the_images_that_contours_refer_to(tmp_path):
    stored = make_stored(SHAPE)
    slices = [*make_slices(stored, sop=MR, EchoTime=10), *make_slices(stored + 5, sop=MR, EchoTime=80)]
    for one in slices:
        one.SeriesInstanceUID, one.FrameOfReferenceUID = slices[0].SeriesInstanceUID, slices[0].FrameOfReferenceUID
        one.StudyInstanceUID = slices[0].StudyInstanceUID
    draw(tmp_path / "in", slices[len(stored) :])
    save(tmp_path / "in" / "first", slices[: len(stored)])
    _, (image, labels) = convert(tmp_path / "in")
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), stored + 5 - 1024)
    np.testing.assert_array_equal(np.asarray(labels.dataobj).transpose(2, 1, 0), make_mask())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "MIP"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"PixelPaddingValue": "none"}, "PixelPaddingValue"),
    ],
)
def test_what_is_not_predicted_is_not_converted(tmp_path, values, reason):
    slices = make_slices(make_stored(SHAPE))
    draw(tmp_path / "in", slices)
    for one in slices:
        for name, value in values.items():
            if name == "PixelPaddingValue":
                one.add_new("PixelPaddingValue", "LO", value)
            else:
                setattr(one, name, value)
    save(tmp_path / "in" / "images", slices)
    (series,) = [one for one in find_series(tmp_path / "in").series if one.modality == "CT"]
    with pytest.raises(DataError, match=reason):
        read_volume(series)
    with pytest.raises(DataError, match=reason):
        convert(tmp_path / "in")


@pytest.mark.parametrize(
    ("padding", "limit", "signed", "bits"),
    [(63536, None, 1, 16), (-2000, None, 1, 16), (2096, None, 1, 12), (63436, 63536, 1, 16), (-2000, -2100, 1, 16)],
)
def test_padding_is_understood_by_the_sign_of_the_pixels(tmp_path, padding, limit, signed, bits):
    stored = make_stored(SHAPE)
    stored[:, 0, :] = -2000
    slices = make_slices(stored, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=signed)
    for one in slices:
        for name, value in {"PixelPaddingValue": padding, "PixelPaddingRangeLimit": limit}.items():
            if value is not None:
                one.add_new(name, "SS" if value < 0 else "US", value)
    volume = read_volume(find_series(save(tmp_path, slices)).series[0])
    expected = np.where(stored == -2000, stored[stored != -2000].min(), stored) - 1024.0
    np.testing.assert_array_equal(volume.values, expected)


def test_padding_of_unsigned_pixels_that_is_written_with_a_sign(tmp_path):
    stored = make_stored(SHAPE).astype(np.uint16)
    stored[:, 0, :] = 65535
    slices = make_slices(stored.view(np.int16), sop=MR, RescaleIntercept=0, PixelRepresentation=0)
    for one in slices:
        one.add_new("PixelPaddingValue", "SS", -1)
    volume = read_volume(find_series(save(tmp_path, slices)).series[0])
    assert volume.values.max() < 2000
