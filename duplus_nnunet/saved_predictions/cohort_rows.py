"""Measures every target of one label map: volume, components, position, and intensities of the image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.grids import find_difference
from duplus_nnunet.data.image_headers import inspect_image
from duplus_nnunet.data.label_maps import read_image, read_label_map
from duplus_nnunet.data.plausibility import find_implausible, find_unit
from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs.answer import Geometry
from duplus_nnunet.outputs.measures import (
    compute_centroid,
    count_voxels,
    measure_components,
    measure_intensities,
    to_plain,
)
from duplus_nnunet.outputs.world import Affine, find_affine
from duplus_nnunet.prompt_registry.drafting import UNKNOWN_MODALITY, guess_modality
from duplus_nnunet.reporting.predicted_values import Region
from duplus_nnunet.saved_predictions.folder import LabelFolder, SavedCase

Box = tuple[slice, slice, slice]

_MM3_IN_ML = 1000


@dataclass(frozen=True)
class TargetRow:
    """Measures of one target in one image; None where undefined, as for most values of an absent target.

    Attributes:
        present: Whether the label map contains the target.
        voxels: Number of voxels, 0 if absent.
        volume_ml: Volume in ml, 0 if absent.
        components: Number of connected components (26-connectivity), 0 if absent.
        largest_ml: Volume of the largest of them in ml.
        touches_border: Whether the target touches the edge of the image and may be cut off.
        centroid_right_mm: Position of the centroid to the patient's right in mm (NIfTI's x); None if the file does
            not say how the image lies in the patient.
        extent_right_mm: Size from left to right in mm, of the box of voxels around the target.
        intensities: By name of the channel: `intensity_mean`, `intensity_std` (population), `intensity_median`,
            `intensity_p05` and `intensity_p95`, in the unit of the channel.
    """

    present: bool
    voxels: int = 0
    volume_ml: float = 0.0
    components: int = 0
    largest_ml: float | None = None
    touches_border: bool | None = None
    centroid_right_mm: float | None = None
    extent_right_mm: float | None = None
    intensities: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseRow:
    """Measures of one image.

    Attributes:
        case: The image.
        spacing: Voxel size in mm along (z, y, x).
        shape: Voxels along the same axes.
        units: Unit of the intensities by name of the channel: HU, SUV, or empty for arbitrary units.
        targets: Measures of the targets that were asked for.
        doubts: What is doubtful about the intensities, a sentence each.
    """

    case: SavedCase
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    units: Mapping[str, str]
    targets: Mapping[str, TargetRow]
    doubts: tuple[str, ...] = ()


def measure_case(case: SavedCase, folder: LabelFolder) -> CaseRow:
    """Measure the targets of one image.

    Args:
        case: The image.
        folder: What its label map holds.

    Raises:
        DataError: A file cannot be read, the label map holds undeclared values, or image and label map lie on different
            grids.
    """
    header = inspect_image(case.file, folder.reader.__name__)
    label_map, properties = read_label_map(case.file, folder.reader, folder.known)
    labels = label_map.labels[0].astype(np.int32, copy=False)
    z, y, x = (float(width) for width in properties["spacing"])
    geometry = Geometry(labels.shape, (z, y, x), properties)
    affine = find_affine(geometry) if header.oriented else None
    boxes = _find_boxes(labels, {name: folder.regions[name] for name in case.targets})
    intensities, units, doubts = _measure_images(case, folder, labels, geometry, boxes)
    targets = {}
    for name, box in boxes.items():
        if box is None:
            targets[name] = TargetRow(present=False)
        else:
            mask = np.isin(labels[box], folder.regions[name])
            targets[name] = _measure_target(mask, box, geometry, affine, intensities.get(name, {}))
    return CaseRow(case, (z, y, x), labels.shape, units, targets, tuple(doubts))


def _find_boxes(labels: NDArray[np.int32], regions: Mapping[str, Region]) -> dict[str, Box | None]:
    """Find the smallest box around all voxels of each target; None if there are none."""
    from scipy.ndimage import find_objects

    found = find_objects(labels)  # of all values in one pass
    boxes: dict[str, Box | None] = {}
    for name, region in regions.items():
        parts = [found[value - 1] for value in region if 0 < value <= len(found) and found[value - 1] is not None]
        boxes[name] = _join_boxes(parts) if parts else None
    return boxes


def _join_boxes(boxes: Sequence[Box]) -> Box:
    z, y, x = (slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3))
    return z, y, x


def _measure_target(
    mask: NDArray[np.bool_],
    box: Box,
    geometry: Geometry,
    affine: Affine | None,
    intensities: Mapping[str, Mapping[str, float | None]],
) -> TargetRow:
    voxels = int(mask.sum())
    volume = voxels * math.prod(geometry.spacing) / _MM3_IN_ML
    components = measure_components(mask, voxels)
    right = extent = None
    if affine is not None:
        centroid = [place + side.start for place, side in zip(compute_centroid(count_voxels(mask)), box, strict=True)]
        right = float((affine @ [*centroid, 1.0])[0])
        extent = float(np.abs(affine[0, :3]) @ mask.shape)
    return TargetRow(
        present=True,
        voxels=voxels,
        volume_ml=volume,
        components=int(components["components"]),
        largest_ml=volume * float(components["largest_share"]),
        touches_border=any(
            side.start == 0 or side.stop == size for side, size in zip(box, geometry.shape, strict=True)
        ),
        centroid_right_mm=right,
        extent_right_mm=extent,
        intensities=intensities,
    )


def _measure_images(
    case: SavedCase,
    folder: LabelFolder,
    labels: NDArray[np.int32],
    geometry: Geometry,
    boxes: Mapping[str, Box | None],
) -> tuple[dict[str, dict[str, dict[str, float | None]]], dict[str, str], list[str]]:
    """Measure intensities, one channel after the other; by target and channel, with units and doubts."""
    measured: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name in boxes}
    units: dict[str, str] = {}
    doubts = []
    for number, file in enumerate(case.images):
        channel = folder.channels[number] if number < len(folder.channels) else str(number)
        image = _read_channel(file, folder.reader, case, geometry)
        modality = find_modality(case, channel, len(case.images))
        units[channel] = find_unit(modality) or ""
        doubt = find_implausible(image, {"name": case.context, "modality": modality}, {})
        doubts += [f"{file.name}: {doubt}"] if doubt else []
        if not np.isfinite(image).all():
            doubts.append(f"{file.name}: {int((~np.isfinite(image)).sum())} voxels are not finite numbers.")
        for name, box in boxes.items():
            if box is not None:
                values = image[box][np.isin(labels[box], folder.regions[name])]
                found = measure_intensities(values)
                measured[name][channel] = {key: to_plain(value) for key, value in found.items()}
    return measured, units, doubts


def find_modality(case: SavedCase, channel: str, channels: int) -> str:
    """Return the modality of a channel, spelled out: by its name, else by the context prompt; empty if unknown.

    Args:
        case: The image.
        channel: Name of the channel.
        channels: Number of channels; the context prompt speaks of all of them.
    """
    if channels == 1 and case.context_prompt:
        return case.context_prompt
    guessed = guess_modality([channel])
    return "" if guessed == UNKNOWN_MODALITY else guessed


def _read_channel(file: Path, reader: type, case: SavedCase, geometry: Geometry) -> NDArray[np.float32]:
    array, properties = read_image(file, reader)
    difference = find_difference(properties, array.shape[1:], geometry.properties, geometry.shape)
    if difference:
        raise DataError(
            f"Case {case.name!r}: the image {file} and the label map {case.file} lie on different grids: {difference}. "
            "Give the images that the label maps were made from, or resample one of them."
        )
    channel: NDArray[np.float32] = array[0]
    return channel
