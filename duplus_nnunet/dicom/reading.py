"""Reads a series as a volume: values of the scanner (HU, SUV) on a grid in the patient's coordinates.

pydicom decodes the pixels and reads the headers, since what is checked must name the slice, and the rules of PET and of
padding need attributes that other readers hide. GDCM and highdicom read the same series in the tests, and must agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.dicom.headers import load_pydicom
from duplus_nnunet.dicom.series import Series, Slice
from duplus_nnunet.dicom.suv import find_suv_factor
from duplus_nnunet.dicom.tilt import straighten
from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.files import open_new_file

Values = NDArray[np.float32]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """A volume in memory.

    Attributes:
        values: HU of CT, SUV by body weight of PET, no unit of MR; shape (slices, rows, columns).
        affine: From indices (slice, row, column) to mm (RAS), shape (4, 4).
        notes: What was corrected, a sentence each; none names the patient.
    """

    values: Values
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def read_volume(series: Series) -> Volume:
    """Read a series.

    Raises:
        DataError: It cannot be read as a volume, or a value that its unit needs is missing.
        HostError: A package of the extra `dicom` is missing that its compression needs.
    """
    if series.refusals:
        raise DataError(f"The series {series.hash} cannot be read. {' '.join(series.refusals)}")
    try:
        values, notes = _read_values(series)
    except (DataError, HostError) as error:
        raise type(error)(f"The series {series.hash} ({series.modality}) cannot be read. {error}") from error
    affine = _make_affine(series)
    if series.tilt:
        values, affine = straighten(values, affine, series)
    return Volume(values, affine, (*series.notes, *notes))


def compact(values: Values) -> NDArray[Any]:
    """Return values as int16 if that changes none, else as they are."""
    limits = np.iinfo(np.int16)
    if limits.min <= values.min() and values.max() <= limits.max and (np.rint(values) == values).all():
        return values.astype(np.int16)
    return values


def write_image(series: Series, file: Path) -> tuple[str, ...]:
    """Write a series as an image of SimpleITK's formats, such as NIfTI, and return what was corrected.

    Raises:
        DataError: It cannot be read or written.
        HostError: A package of the extra `dicom` is missing.
    """
    import SimpleITK

    volume = read_volume(series)
    image = SimpleITK.GetImageFromArray(volume.values)
    to_lps = (_LPS_TO_RAS @ volume.affine)[:, [2, 1, 0, 3]]
    widths = np.linalg.norm(to_lps[:3, :3], axis=0)
    image.SetSpacing(widths.tolist())
    image.SetDirection((to_lps[:3, :3] / widths).ravel().tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    with open_new_file(file) as new:
        SimpleITK.WriteImage(image, str(new))
    return volume.notes


def _make_affine(series: Series) -> NDArray[np.float64]:
    first = series.slices[0]
    affine = np.eye(4)
    # Slices are perpendicular to their normal; a tilted stack is straightened afterwards.
    affine[:3, 0] = first.normal * series.spacing[0]
    affine[:3, 1] = np.array(first.directions[3:]) * first.spacing[0]
    affine[:3, 2] = np.array(first.directions[:3]) * first.spacing[1]
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine


def _read_values(series: Series) -> tuple[Values, list[str]]:
    """Read the values of all slices, with the rescaling of each, and list what is said of them."""
    notes: list[str] = []
    factor = 1.0
    values = np.empty(series.shape, np.float32)
    padded = np.zeros(series.shape, np.bool_)
    for index, (one, header, stored) in enumerate(_read_planes(series.slices)):
        if index == 0:
            notes += _list_notes(header)
            if series.modality == "PT":
                suv = find_suv_factor(header, series.started)
                factor = suv.factor
                notes.append(suv.note)
        slope, intercept = _find_rescale(one, series.modality)
        values[index] = (stored.astype(np.float64) * slope + intercept) * factor
        padded[index] = _find_padding(header, stored)
    return values, [*notes, *_replace_padding(values, padded)]


def _read_planes(slices: tuple[Slice, ...]) -> Iterator[tuple[Slice, Any, NDArray[Any]]]:
    """Yield each slice with the header of its file and its stored values."""
    pydicom = load_pydicom()
    file, header, pixels = None, None, None
    for one in slices:
        if one.file != file:
            file, header = one.file, pydicom.dcmread(one.file)
            _check_pixels(header, one)
            pixels = _decode(header, one)
        if pixels is None:
            raise DataError(f"The image of instance number {one.number} holds no pixels. Copy the series again.")
        plane = pixels[one.frame] if pixels.ndim == 3 else pixels
        if plane.shape != one.shape:
            raise DataError(
                f"The image of instance number {one.number} has {plane.shape} voxels; expected {one.shape}. "
                "Copy the series again."
            )
        yield one, header, plane


def _check_pixels(header: Any, one: Slice) -> None:
    kind = str(header.get("PhotometricInterpretation") or "")
    if int(header.get("SamplesPerPixel") or 1) != 1 or not kind.startswith("MONOCHROME"):
        raise DataError(f"Its images are in colour ({kind}), a picture without values of a scanner.")
    if header.get("ModalityLUTSequence"):
        raise DataError("Its values are given by a look-up table (0028,3000), which is not read.")
    if not any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DataError(f"The image of instance number {one.number} holds no pixels. Copy the series again.")


def _decode(header: Any, one: Slice) -> NDArray[Any]:
    syntax = header.file_meta.get("TransferSyntaxUID")
    try:
        pixels: NDArray[Any] = header.pixel_array
        return pixels
    except (RuntimeError, NotImplementedError) as error:
        if syntax is not None and syntax.is_compressed and "missing" in str(error).lower():
            raise HostError(
                f"Its images are compressed ({syntax.name}), and the codec is not installed. "
                "Run: pip install 'duplus-nnunet[dicom]'"
            ) from error
        raise _make_damaged(one, syntax, error) from error
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, EOFError) as error:
        raise _make_damaged(one, syntax, error) from error


def _make_damaged(one: Slice, syntax: Any, error: Exception) -> DataError:
    name = "an unknown transfer syntax" if syntax is None else syntax.name
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return DataError(
        f"The image of instance number {one.number} ({name}) is damaged or cut off: {reason}. Copy the series again."
    )


def _find_rescale(one: Slice, modality: str) -> tuple[float, float]:
    if modality in ("CT", "PT") and (one.slope is None or (modality == "CT" and one.intercept is None)):
        raise DataError(
            f"The image of instance number {one.number} has no RescaleSlope (0028,1053) or RescaleIntercept "
            f"(0028,1052), so that its {'HU' if modality == 'CT' else 'activity'} is not known."
        )
    slope = 1.0 if one.slope is None else one.slope
    if slope == 0:
        raise DataError(f"The image of instance number {one.number} has a RescaleSlope (0028,1053) of 0.")
    return slope, one.intercept or 0.0


def _list_notes(header: Any) -> Iterator[str]:
    if str(header.get("LossyImageCompression") or "") == "01":
        yield "Its images were compressed with losses; values are approximate."
    if str(header.get("PhotometricInterpretation")) == "MONOCHROME1":
        yield "It is shown with low values bright (MONOCHROME1); values are read as they are."
    kind = str(header.get("RescaleType") or "HU").upper()
    if str(header.get("Modality")) == "CT" and kind != "HU":
        yield f"RescaleType (0028,1054) is {kind}, not HU."


def _find_padding(header: Any, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the voxels outside of what was imaged, which hold the padding value."""
    if header.get("PixelPaddingValue") in (None, "") or stored.dtype.kind not in "iu":
        return np.zeros(stored.shape, np.bool_)
    names = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    low, *others = (_read_stored(header, name) for name in names if header.get(name) not in (None, ""))
    low, high = sorted((low, *(others or [low])))
    padded: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return padded


def _read_stored(header: Any, name: str) -> int:
    """Read an attribute that is written as a pixel is, whose sign PixelRepresentation decides.

    Its type in the file may say otherwise: GE's padding of -2000 is often stored as the unsigned number 63536.
    """
    try:
        value, stored = int(header.get(name)), int(header.get("BitsStored") or 16)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is {header.get(name)!r}; expected a whole number.") from error
    if not header.get("PixelRepresentation"):
        return value + (1 << 16) if value < 0 else value
    for bits in (16, stored):
        if 1 << (bits - 1) <= value < 1 << bits:
            return value - (1 << bits)
    return value


def _replace_padding(values: Values, padded: NDArray[np.bool_]) -> list[str]:
    """Give padded voxels the lowest value of the others, unless they lie among the values of the others."""
    if not padded.any() or padded.all():
        return []
    lowest, highest = float(values[~padded].min()), float(values[~padded].max())
    count = np.count_nonzero(padded)
    if ((values[padded] > lowest) & (values[padded] < highest)).any():
        return [f"{count} voxels have the padding value, which lies among the other values; they are kept."]
    values[padded] = lowest
    return [f"{count} voxels outside of the imaged field (padding value) get the lowest value, {lowest:g}."]
