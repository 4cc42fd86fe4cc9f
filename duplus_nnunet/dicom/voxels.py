"""Reads the voxels of a DICOM series whose slices form a regular grid."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.dicom.extra import require
from duplus_nnunet.dicom.source_slices import SourceSlices
from duplus_nnunet.errors import DataError

# Slices may lie beside an even grid by this share of their distance.
_UNEVEN = 0.05
# Sideways shift of the last slice that does not matter, as a part of a voxel; as where series are predicted.
_SIDEWAYS = 0.1


def read_voxels(source: SourceSlices) -> NDArray[Any]:
    """Read a series in the units of its modality (HU in CT).

    Returns:
        Shape (slices, rows, columns); int16 where no value is lost, else float32.

    Raises:
        DataError: A slice is missing, slices are not evenly spaced or are shifted by a gantry tilt, pixels cannot be
            decoded, or a PET series is not in units of SUV.
    """
    _check_grid(source)
    _check_units(source.headers[0])
    _check_kind(source.headers[0])
    planes = [_read_file(header) for header in source.headers]
    volume = np.concatenate(planes)
    if source.slices[0].frame is not None:
        if len(source.headers) > 1:
            raise DataError("The series has several multi-frame files. Name one of them.")
        volume = volume[[(one.frame or 1) - 1 for one in source.slices]]
    whole = np.rint(volume)
    limits = np.iinfo(np.int16)
    if (whole == volume).all() and limits.min <= volume.min() and volume.max() <= limits.max:
        return whole.astype(np.int16)
    return volume.astype(np.float32)


def _check_grid(source: SourceSlices) -> None:
    places = np.array([one.position for one in source.slices])
    if len(places) < 2:
        raise DataError("The series has one slice; expected a volume.")
    even = np.linspace(places[0], places[-1], len(places))
    step = np.linalg.norm(even[1] - even[0])
    worst = int(np.argmax(np.linalg.norm(places - even, axis=1)))
    if np.linalg.norm(places[worst] - even[worst]) > _UNEVEN * step:
        raise DataError(
            f"The {len(places)} slices are {np.diff(source.heights).min():.2f} to {np.diff(source.heights).max():.2f} "
            "mm apart. A slice is missing, or there are two volumes; export the whole series again."
        )
    aside = (places[-1] - places[0]) - source.normal * (source.heights[-1] - source.heights[0])
    if np.linalg.norm(aside) > _SIDEWAYS * min(source.spacing):
        raise DataError("The slices are shifted against one another (gantry tilt). Resample the series first.")


def _check_units(header: Any) -> None:
    units = str(header.get("Units", ""))
    if str(header.get("Modality", "")) == "PT" and units != "GML":
        raise DataError(
            f"The PET series is in the units {units!r}, not in SUV. Convert it to SUV first; intensities of patients "
            "cannot be compared otherwise."
        )


def _check_kind(header: Any) -> None:
    """Refuse what is refused where series are predicted, so that a model is not trained on it either."""
    kinds = {str(value).upper() for value in header.get("ImageType") or ()}
    if "LOCALIZER" in kinds:
        raise DataError("The series is a localiser.")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DataError("The images are in colour: pictures without values of a scanner.")
    if header.get("ModalityLUTSequence"):
        raise DataError("The values are given by a look-up table (0028,3000), which is not read.")


def _read_file(header: Any) -> NDArray[np.float64]:
    """Read the pixels of a file, shape (frames, rows, columns), with its rescale slope and intercept."""
    content = require("pydicom").dcmread(header.filename)
    try:
        pixels = np.asarray(content.pixel_array, np.float64)
    except Exception as error:  # what a decoder raises depends on the codec
        raise DataError(
            f"The pixels of a slice cannot be decoded ({type(error).__name__}: {error}). Install the codecs by "
            "pip install 'duplus-nnunet[dicom]', or export the series uncompressed."
        ) from error
    frames = pixels.reshape(-1, int(content.Rows), int(content.Columns))
    slopes, intercepts = zip(*(_find_rescale(content, number) for number in range(len(frames))), strict=True)
    scaled: NDArray[np.float64] = frames * np.reshape(slopes, (-1, 1, 1)) + np.reshape(intercepts, (-1, 1, 1))
    return scaled


def _find_rescale(content: Any, number: int) -> tuple[float, float]:
    """Return rescale slope and intercept of a frame."""
    places = [content]
    if "PerFrameFunctionalGroupsSequence" in content:
        places += [content.PerFrameFunctionalGroupsSequence[number], *content.get("SharedFunctionalGroupsSequence", [])]
    for place in places:
        item = place.get("PixelValueTransformationSequence", [place])[0]
        if "RescaleSlope" in item:
            return float(item.RescaleSlope), float(item.get("RescaleIntercept", 0))
    if str(content.get("Modality", "")) == "CT":
        raise DataError("A slice has no RescaleSlope (0028,1053), so that its HU are not known.")
    return 1.0, 0.0
