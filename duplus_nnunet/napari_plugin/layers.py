"""Takes images from layers, with what is known of their place in the patient, and reads image files for layers.

A layer knows how its voxels lie in the viewer's world, whose axes have no anatomical meaning. Where a layer was read
from a file, the file says what they mean; otherwise the user does, by one of `ORIENTATIONS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.files import open_new_file
from duplus_nnunet.napari_plugin.turning import Matrix, Volume
from duplus_nnunet.outputs.measures import count_voxels

# From coordinates of the viewer's world to right, anterior, superior.
_ORIENTATIONS: Mapping[str, NDArray[np.int64]] = {
    "z, y, x: up, back, left (DICOM, SimpleITK)": np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]]),
    "z, y, x: up, front, right": np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    "x, y, z: right, front, up (nibabel)": np.eye(3, dtype=np.int64),
    "x, y, z: left, back, up": np.diag([-1, -1, 1]),
}
ORIENTATIONS = tuple(_ORIENTATIONS)
# Key of a layer's metadata under which `read_file` leaves what it knows.
METADATA = "duplus"
_ALIGNED = 1e-4  # parts of an axis below this share of the largest one come from rounding
# Units of a layer's axes, in mm; without any, napari's unit is the pixel, whose numbers are taken for mm.
_MILLIMETRES = {
    "pixel": 1.0,
    "millimeter": 1.0,
    "micrometer": 1e-3,
    "nanometer": 1e-6,
    "centimeter": 10.0,
    "meter": 1e3,
}


@dataclass(frozen=True)
class LayerImage:
    """An image as a layer has it.

    Attributes:
        name: Of the layer.
        values: In the axes of the layer, (I, J, K).
        to_world: (4, 4) from indices of `values` to the viewer's world, in mm.
        file: The file that it was read from; None: there is none, or it is not one file.
        to_ras: (4, 4) from indices to right, anterior, superior, in mm, where the layer knows it itself.
    """

    name: str
    values: Volume
    to_world: Matrix
    file: Path | None = None
    to_ras: Matrix | None = None

    @property
    def has_place(self) -> bool:
        """Whether orientation and voxel size are known without being asked for."""
        return self.file is not None or self.to_ras is not None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel along the layer's axes, in mm."""
        i, j, k = (float(width) for width in np.linalg.norm(self.to_world[:3, :3], axis=0))
        return i, j, k

    @property
    def has_spacing(self) -> bool:
        """Whether the voxel size is known: a transform of ones is what a layer has that was given none."""
        return self.has_place or not np.allclose(self.to_world[:3, :3], np.eye(3))


@dataclass(frozen=True)
class Place:
    """What the user says of layers that do not know their place.

    Attributes:
        orientation: One of ORIENTATIONS; empty: nothing was said.
        spacing: Size of a voxel along the layer's axes, in mm, for layers without scale; None: nothing was said.
    """

    orientation: str = ""
    spacing: tuple[float, float, float] | None = None

    def find_ras(self, image: LayerImage) -> Matrix:
        """Compute (4, 4) from the indices of an image to right, anterior, superior, in mm.

        Raises:
            DataError: Orientation or voxel size is not known.
        """
        if image.to_ras is not None:
            return image.to_ras
        if not self.orientation:
            raise DataError(
                f"It is not known what the axes of the layer {image.name!r} mean, since it was not read from a file. "
                "Choose it under `Axes`, or open the file with the button of this window."
            )
        if self.orientation not in _ORIENTATIONS:
            raise DataError(describe_unknown("orientation", self.orientation, ORIENTATIONS))
        to_world = image.to_world
        if not image.has_spacing:
            to_world = np.diag([*self._require_spacing(image), 1.0])
        to_ras = np.eye(4)
        to_ras[:3, :3] = _ORIENTATIONS[self.orientation]
        return to_ras @ to_world

    def _require_spacing(self, image: LayerImage) -> tuple[float, float, float]:
        if self.spacing is None:
            raise DataError(
                f"The voxel size of the layer {image.name!r} is not known: its scale is 1, 1, 1. Type it under `Voxel "
                "size`, in mm, or give the layer its scale."
            )
        if not all(np.isfinite(width) and width > 0 for width in self.spacing):
            raise DataError(f"The voxel size is {self.spacing}; expected three numbers above 0, in mm.")
        return self.spacing


def read_layer(layer: Any) -> LayerImage:
    """Take the image of a layer of napari.

    Raises:
        DataError: It is not an image of three axes with one value a voxel.
    """
    if getattr(layer, "rgb", False):
        raise DataError(f"The layer {layer.name!r} is a colour picture; expected one value a voxel.")
    if layer.ndim != 3:
        raise DataError(f"The layer {layer.name!r} has {layer.ndim} axes; expected 3. Choose or split off a volume.")
    values = np.asarray(layer.data[0] if getattr(layer, "multiscale", False) else layer.data)
    if min(values.shape) < 1 or values.dtype.kind not in "biuf":
        raise DataError(f"The layer {layer.name!r} holds {values.dtype} of shape {values.shape}; expected numbers.")
    to_ras = dict(layer.metadata).get(METADATA, {}).get("to_ras")
    known = None if to_ras is None else np.asarray(to_ras, float)
    return LayerImage(layer.name, values, _to_millimetres(find_affine(layer), layer), find_file(layer), known)


def find_file(layer: Any) -> Path | None:
    """Return the image file that a layer of napari was read from; None if there is none."""
    path = dict(layer.metadata).get(METADATA, {}).get("file") or getattr(layer.source, "path", None)
    return Path(path) if path and Path(path).is_file() else None


def find_affine(layer: Any) -> Matrix:
    """Compute (4, 4) from a layer's indices to the viewer's world, in the layer's units."""
    corner = np.asarray(layer.data_to_world((0, 0, 0)), float)
    steps = [np.asarray(layer.data_to_world(tuple(step)), float) - corner for step in np.eye(3)]
    affine = np.eye(4)
    affine[:3] = np.column_stack([*steps, corner])
    return affine


def find_slice(mask: Volume, affine: Matrix, axis: int, now: float) -> float | None:
    """Find where along an axis of the world a mask is largest.

    Args:
        mask: In the axes of a layer.
        affine: (4, 4) from the layer's indices to the world.
        axis: Axis of the world across which slices are shown.
        now: Where the slice that is shown lies.

    Returns:
        None if the mask is empty, or if it is seen already.
    """
    row = affine[axis, :3]
    along, step = int(np.abs(row).argmax()), float(np.abs(row).max())
    if np.count_nonzero(np.abs(row) > _ALIGNED * step) == 1:  # voxels of a slice of the array have one height
        sizes = count_voxels(mask > 0)[along]
        heights = np.flatnonzero(sizes) * row[along] + affine[axis, 3]
        sizes = sizes[sizes > 0]
    else:
        every = np.argwhere(mask) @ row + affine[axis, 3]
        slices, sizes = np.unique(np.round((every - every[:1]) / step), return_counts=True)
        heights = every[:1] + slices * step
    if not heights.size or np.abs(heights - now).min() <= step / 2:
        return None
    return float(heights[sizes.argmax()])


def _to_millimetres(affine: Matrix, layer: Any) -> Matrix:
    """Convert lengths of a layer's affine.

    Raises:
        DataError: The layer has a unit that is no length.
    """
    scaled = affine.copy()
    for axis, unit in enumerate(getattr(layer, "units", None) or ()):
        if str(unit) not in _MILLIMETRES:
            raise DataError(
                f"Axis {axis} of the layer {layer.name!r} has the unit {str(unit)!r}; expected a length: "
                f"{', '.join(_MILLIMETRES)}."
            )
        scaled[axis] *= _MILLIMETRES[str(unit)]
    return scaled


def read_file(file: Path) -> tuple[Volume, dict[str, Any]]:
    """Read an image file for a layer.

    Returns:
        Values (z, y, x), and the keywords of a layer: name, affine and metadata. The layer lies along the axes that are
        nearest to the image's own: z up, y to the back, x to the left.

    Raises:
        DataError: The file cannot be read, or is not an image of three axes with one value a voxel.
    """
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(file))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{file} cannot be read as an image: {reason}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(
            f"{file} has {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} value(s) a voxel; "
            "expected 3 axes and one value."
        )
    to_ras = np.eye(4)
    to_ras[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    to_ras[:3, 3] = image.GetOrigin()
    to_ras = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_ras)[:, [2, 1, 0, 3]]
    own = {"file": str(file.absolute()), "to_ras": to_ras.tolist()}
    keywords = {"name": name_image(file), "affine": to_display_affine(to_ras), "metadata": {METADATA: own}}
    return SimpleITK.GetArrayFromImage(image), keywords


def to_display_affine(to_ras: Matrix) -> Matrix:
    """Return (4, 4) from indices to z up, y to the back, x to the left, turned to the nearest axes.

    napari shows slices along the axes of its world alone, so that an oblique image is shown upright.
    """
    from nibabel.orientations import io_orientation

    axes, signs = io_orientation(to_ras).T
    widths = np.linalg.norm(to_ras[:3, :3], axis=0)
    upright = np.eye(4)
    upright[:3, :3] = 0
    for column, (axis, sign, width) in enumerate(zip(axes.astype(int), signs, widths, strict=True)):
        upright[axis, column] = sign * width
    upright[:3, 3] = to_ras[:3, 3]
    return np.asarray(np.diag([1.0, -1.0, -1.0, 1.0]) @ upright[[2, 1, 0, 3]])


def write_image(image: LayerImage, to_ras: Matrix, file: Path) -> None:
    """Write an image as NIfTI, its axes in the order of the layer.

    Raises:
        DataError: Its transform is sheared or degenerate.
    """
    import nibabel

    widths = np.linalg.norm(to_ras[:3, :3], axis=0)
    directions = to_ras[:3, :3] / np.maximum(widths, np.finfo(float).tiny)
    if not np.allclose(directions.T @ directions, np.eye(3), atol=1e-3):
        raise DataError(f"The transform of the layer {image.name!r} is sheared or degenerate; nothing can be read so.")
    plain = image.values.astype(np.uint8 if image.values.dtype.kind == "b" else _choose_type(image.values.dtype))
    with open_new_file(file) as new:
        nibabel.save(nibabel.Nifti1Image(plain, to_ras), new)


def require_one_grid(images: Sequence[LayerImage]) -> None:
    """Check that the channels of an image lie on one grid.

    Raises:
        DataError: They do not.
    """
    for other in images[1:]:
        if other.values.shape != images[0].values.shape or not np.allclose(other.to_world, images[0].to_world):
            raise DataError(
                f"The layers {images[0].name!r} and {other.name!r} do not lie on one grid: shapes "
                f"{images[0].values.shape} and {other.values.shape}. Resample one onto the other."
            )


def _choose_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Keep small integers; others become floats, which every reader of NIfTI takes."""
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        return dtype
    return np.dtype(np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64)


def name_image(file: Path) -> str:
    """Return the name of an image: that of its first file, without ending and number of the channel."""
    return Path(file.name.removesuffix(".gz")).stem.removesuffix("_0000")
