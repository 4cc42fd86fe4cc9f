"""Checks that an image was made from a DICOM series: by what its name, its side file and its place in space say."""

import json
import re
from pathlib import Path

import numpy as np

from duplus_nnunet.dicom.source_slices import Affine, SourceSlices, lies_within
from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs.naming import show_name

# Names of cases that `duplus dicom to-nifti` makes end in a hash of the series.
_HASHED = re.compile(r"^series_([0-9a-f]{8})(_\d+)?$")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ADVICE = "Name the folder of the series that the image was made from."


def require_same_series(case: str, image: str, source: SourceSlices) -> None:
    """Refuse a series that an image was not made from.

    Args:
        case: Name of the case.
        image: File of the image's first channel.
        source: The series.

    Raises:
        DataError: The name of the case is of another series, the side file of the image (dcm2niix writes one) names
            another series, or the image does not lie within the series.
    """
    hashed = _HASHED.match(case)
    if hashed and hashed[1] != source.hash:
        raise DataError(
            f"The case {show_name(case)} was made of the series {hashed[1]}, and the series in its folder is "
            f"{source.hash}. {_ADVICE}"
        )
    named = _read_side_file(Path(image))
    if named and named != source.series:
        raise DataError(
            f"The file beside the image of {show_name(case)} names another SeriesInstanceUID than the series in the "
            f"folder of the case. {_ADVICE}"
        )
    grid = _read_grid(image)
    if grid is not None and not lies_within(*grid, source):
        raise DataError(
            f"The image of {show_name(case)} does not lie within its series: an edge is more than two voxels outside. "
            f"It is probably of another series or patient. {_ADVICE}"
        )


def _read_side_file(image: Path) -> str:
    """Read the series UID of the JSON file beside an image; empty if there is none."""
    stem = image.name.removesuffix(".gz")
    stem = stem.removesuffix(Path(stem).suffix)
    for name in dict.fromkeys((stem, re.sub(r"_\d{4}$", "", stem))):
        file = image.with_name(f"{name}.json")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("SeriesInstanceUID"):
            return str(content["SeriesInstanceUID"])
    return ""


def _read_grid(image: str) -> tuple[tuple[int, ...], Affine] | None:
    """Read shape (z, y, x) and affine (RAS) of an image; None if it is not a volume, which reading it refuses."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(image)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    if reader.GetDimension() != 3:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * np.array(reader.GetSpacing())
    affine[:3, 3] = reader.GetOrigin()
    return tuple(reversed(reader.GetSize())), (_LPS_TO_RAS @ affine)[:, [2, 1, 0, 3]]
