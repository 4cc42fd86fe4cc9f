"""Images as arrays with their affine: read from NIfTI files, DICOM series and PNG masks, and written as NIfTI."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file

Array = NDArray[Any]

# Largest distance between corresponding corners of equal grids, in voxels.
FARTHEST = 0.5
# DICOM's patient coordinates run to the left and to the back; those of an affine to the right and to the front.
_SERIES = "0020|000e"
# Slices farther apart than this share of their median distance are not evenly spaced.
_UNEVEN = 1.2
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """An image.

    Attributes:
        array: Voxels in the order of the file, (x, y, z), or (x, y, z, frame).
        affine: From voxel indices to mm, towards right, front and head (RAS+), 4 x 4.
        file: Where it comes from, for messages.
    """

    array: Array
    affine: NDArray[np.float64]
    file: Path

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance of neighbouring voxels along each axis, in mm."""
        spacing: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    def with_array(self, array: Array) -> "Volume":
        """Return other voxels on the same grid."""
        return replace(self, array=array)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file, or the DICOM series in a folder.

    Raises:
        DataError: It cannot be read.
    """
    if path.is_dir():
        return read_series(path)
    try:
        image: Any = nibabel.load(path)
        return Volume(np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64), path)
    except Exception as error:  # what nibabel raises on a damaged file depends on the damage
        raise DataError(f"{path} cannot be read: {error}. Download it again.") from error


def list_slices(folder: Path) -> list[Path]:
    """List the DICOM files of a folder in the order of their names.

    Raises:
        DataError: There is none.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".dcm", ".ima", ""))
    if not files:
        raise DataError(f"{folder} has no DICOM file. Download it again.")
    return files


def read_series(folder: Path) -> Volume:
    """Read the one DICOM series of a folder; slices are ordered by their position.

    Raises:
        DataError: A slice cannot be read, lacks its position, or the slices are not evenly spaced.
    """
    slices, order, affine = _locate_slices(folder)
    arrays = [_read_pixels(slices[index]) for index in order]
    if len({array.shape for array in arrays}) > 1:
        raise DataError(f"{folder}: slices differ in size. It may hold two series; keep one in a folder.")
    # Rows of a DICOM slice run along the second axis of the array.
    return Volume(np.stack([array.T for array in arrays], axis=-1), affine, folder)


def order_slices(folder: Path) -> list[int]:
    """Return, from the first slice to the last by position, the index of each file in the order of their names."""
    return _locate_slices(folder)[1]


def read_masks(folder: Path, series: Path) -> Array:
    """Read PNG masks, one for each slice of a DICOM series, as an array on its grid (x, y, z).

    Masks and slices correspond in the order of their names; both are put in the order of the slices' positions.

    Raises:
        DataError: There are not as many masks as slices, or a mask has another size.
    """
    from skimage.io import imread

    files = sorted(folder.glob("*.png"))
    order = order_slices(series)
    if len(files) != len(order):
        raise DataError(f"{folder} has {len(files)} masks, {series} has {len(order)} slices. Download them again.")
    masks = [np.asarray(imread(files[index])) for index in order]
    if any(mask.ndim != 2 or mask.shape != masks[0].shape for mask in masks):
        raise DataError(f"{folder}: masks are not grey pictures of one size. Download them again.")
    return np.stack([mask.T for mask in masks], axis=-1)


def find_grid_difference(first: Volume, second: Volume) -> str:
    """Describe how the grids of two images differ; empty if they do not.

    Grids are equal if they have as many voxels, and no corner is farther from its counterpart than half a voxel.
    """
    shapes = first.array.shape[:3], second.array.shape[:3]
    if shapes[0] != shapes[1]:
        return f"{second.file} has {_by(shapes[1])} voxels, {first.file} has {_by(shapes[0])}"
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in shapes[0]], [1], indexing="ij")).reshape(4, -1)
    distance = np.abs((np.linalg.inv(first.affine) @ (second.affine @ corners) - corners)[:3]).max()
    if distance > FARTHEST:
        return f"{second.file} lies up to {distance:.1f} voxels from {first.file}"
    return ""


def write_volume(volume: Volume, file: Path, dtype: Any = None) -> None:
    """Write an image as NIfTI, atomically."""
    array = volume.array if dtype is None else volume.array.astype(dtype)
    image = nibabel.Nifti1Image(_shrink(array), volume.affine)
    image.header.set_xyzt_units("mm")
    with open_new_file(file) as new:
        nibabel.save(image, new)


def _shrink(array: Array) -> Array:
    """Store 64 bits in 32, which is all that readers of NIfTI expect, where no whole number gets lost."""
    if array.dtype == np.float64:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        return array.astype(np.int32)
    return array.astype(np.uint8) if array.dtype == bool else array


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _locate_slices(folder: Path) -> tuple[list[Path], list[int], NDArray[np.float64]]:
    """Return the slices by name, their order by position, and the affine of the image."""
    import SimpleITK

    files, headers, series = list_slices(folder), [], set[str]()
    reader = SimpleITK.ImageFileReader()
    for file in files:
        reader.SetFileName(str(file))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise DataError(f"{file} cannot be read as DICOM. Download it again.") from error
        series.add(reader.GetMetaData(_SERIES) if reader.HasMetaDataKey(_SERIES) else "")
        headers.append((reader.GetOrigin(), reader.GetDirection(), reader.GetSpacing()))
    if len(series) > 1 or any(not np.allclose(header[1], headers[0][1], atol=1e-3) for header in headers):
        raise DataError(
            f"{folder} has slices of {len(series)} series, or of several directions. Keep one series in it."
        )
    direction = np.array(headers[0][1]).reshape(3, 3)
    origins = np.array([header[0] for header in headers])
    heights = origins @ direction[:, 2]
    order = [int(index) for index in np.argsort(heights, kind="stable")]
    steps = np.diff(np.sort(heights))
    if len(files) > 1 and (steps.min() <= 0 or steps.max() > _UNEVEN * np.median(steps)):
        raise DataError(
            f"{folder}: its {len(files)} slices are {steps.min():.2f} to {steps.max():.2f} mm apart. A slice is "
            "missing, or there are two series; keep one whole series in a folder."
        )
    affine = np.eye(4)
    affine[:3, :2] = direction[:, :2] * np.array(headers[0][2][:2])
    affine[:3, 2] = direction[:, 2] * (np.mean(steps) if len(steps) else headers[0][2][2])
    affine[:3, 3] = origins[order[0]]
    return files, order, _LPS_TO_RAS @ affine


def _read_pixels(file: Path) -> Array:
    import SimpleITK

    try:
        return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))).squeeze()
    except RuntimeError as error:
        raise DataError(f"{file} cannot be read: its pixels may be compressed or damaged.") from error
