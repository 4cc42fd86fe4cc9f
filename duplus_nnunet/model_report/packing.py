"""Packs images and masks of a viewer so that a page can hold them: 8-bit slices in one picture, masks as run lengths.

A page is opened on a phone as well, so that images are reduced to a number of pixels and slices.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from duplus_nnunet.model_report.blocks import Mask, ViewedCase, Viewer
from duplus_nnunet.reporting.colours import choose_dashes, colour

Volume = NDArray[np.bool_]
Areas = NDArray[np.int64]

_MARGIN = 2  # slices above and below all targets
# Share of a mask's largest area beyond which a larger area no longer counts when a slice is chosen.
_WELL_SHOWN = 0.6
_QUALITY = 85
_GROUP_BITS = 7


@dataclass(frozen=True)
class Resolution:
    """How finely images are shown.

    Attributes:
        pixels: Largest number of rows and columns of a slice.
        slices: Largest number of slices of a case.
    """

    pixels: int
    slices: int


FINEST = Resolution(256, 40)
RESOLUTIONS = (FINEST, Resolution(192, 32), Resolution(128, 24), Resolution(96, 16), Resolution(64, 8))


@dataclass(frozen=True)
class TargetStyle:
    """How a target is drawn in all images of a viewer.

    Attributes:
        name: Name of the target.
        colour: Colour as `#rrggbb`.
        dashes: Lengths of dashes and gaps in line widths; empty: a solid line.
    """

    name: str
    colour: str
    dashes: tuple[float, ...]


def list_styles(viewer: Viewer) -> list[TargetStyle]:
    """List the targets of a viewer, in the order of their first appearance, with their colours and line styles."""
    names = list(dict.fromkeys(mask.target for case in viewer.cases for mask in case.masks))
    dashes = choose_dashes(range(1, len(names) + 1))
    return [TargetStyle(name, colour(value), dashes[value]) for value, name in enumerate(names, start=1)]


def pack_viewer(viewer: Viewer, resolution: Resolution = FINEST) -> dict[str, Any]:
    """Pack a viewer into what its script reads, as plain data.

    Args:
        viewer: The viewer.
        resolution: How finely its images are shown.
    """
    styles = list_styles(viewer)
    rows = {style.name: row for row, style in enumerate(styles)}
    return {
        "targets": [{"name": style.name, "colour": style.colour, "dashes": list(style.dashes)} for style in styles],
        "cases": [_pack_case(case, rows, resolution) for case in viewer.cases],
    }


def choose_levels(areas: Sequence[Areas], depth: int, most: int) -> list[int]:
    """Choose the slices that are shown, in ascending order.

    They are spread evenly over the slices that hold a mask, and some beside them. A mask that none of them shows has
    its largest slice among them, in place of the nearest one that no other mask needs.

    Args:
        areas: Number of voxels of each mask in each slice, (D).
        depth: Number of slices of the image, D.
        most: Largest number of slices.
    """
    areas = [area for area in areas if area.any()]
    filled = np.flatnonzero(np.sum(areas, axis=0)) if areas else np.array([0, depth - 1])
    first, last = max(0, int(filled[0]) - _MARGIN), min(depth - 1, int(filled[-1]) + _MARGIN)
    levels = sorted({round(level) for level in np.linspace(first, last, min(most, last - first + 1))})
    needed: set[int] = set()
    for area in sorted(areas, key=np.count_nonzero):
        if not area[levels].any():
            free = [level for level in levels if level not in needed]
            if free:
                best = int(area.argmax())
                levels[levels.index(min(free, key=lambda level: abs(level - best)))] = best
        needed.add(max(levels, key=lambda level: int(area[level])))
    return sorted(set(levels))


def choose_start(areas: Sequence[Areas], count: int) -> int:
    """Choose the slice that shows most masks well, of a number of slices; the middle one if there is no mask."""
    shares = [area / area.max() for area in areas if area.any()]
    if not shares:
        return count // 2
    return int(np.minimum(shares, _WELL_SHOWN).sum(axis=0).argmax())


def measure_areas(mask: Volume) -> Areas:
    """Count the voxels of a mask in each slice, (D)."""
    areas: Areas = np.count_nonzero(mask, axis=(1, 2))
    return areas


def list_masks(case: ViewedCase) -> list[Volume]:
    """List the predicted and annotated masks of a case."""
    return [volume for mask in case.masks for volume in (mask.prediction, mask.truth) if volume is not None]


def to_grey(case: ViewedCase, level: int) -> NDArray[np.uint8]:
    """Return a slice as grey values from 0 to 255, (H, W); what is not finite is black."""
    dark, bright = case.window
    shares = (case.image[level].astype(np.float32) - dark) / max(bright - dark, 1e-6)
    clipped = np.clip(np.nan_to_num(shares, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    grey: NDArray[np.uint8] = (clipped * 255).round().astype(np.uint8)
    return grey


def encode_runs(mask: Volume) -> str:
    """Write a mask as the lengths of alternating runs of False and True, in base64; the first run may be empty.

    Each length is written in groups of seven bits, the lowest first; the highest bit of a byte says that one more
    follows.
    """
    flat = np.concatenate([[False], mask.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], edges])).astype(np.uint64)
    groups = 1 + (np.log2(np.maximum(lengths, 1)) // _GROUP_BITS).astype(int)
    steps = np.arange(int(groups.max(initial=1)), dtype=np.uint64)
    parts = ((lengths[:, None] >> (steps * np.uint64(_GROUP_BITS))) & np.uint64(127)).astype(np.uint8)
    parts[steps.astype(int) < groups[:, None] - 1] |= 128
    kept = parts[steps.astype(int) < groups[:, None]]
    return base64.b64encode(kept.tobytes()).decode("ascii")


def fit_shape(shape: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Return the shape of a slice in the same proportions with a largest number of rows and columns."""
    share = min(1.0, pixels / max(shape))
    return max(1, round(shape[0] * share)), max(1, round(shape[1] * share))


def reduce_mask(mask: Volume, shape: tuple[int, int]) -> Volume:
    """Reduce a mask (S, H, W) to slices of a shape (rows, columns); no slice that holds some of it is left empty."""
    if mask.shape[1:] == shape:
        return mask
    reduced = np.zeros((len(mask), *shape), np.bool_)
    for level in np.flatnonzero(mask.any(axis=(1, 2))):
        shares = resize_values(mask[level], shape)
        reduced[level] = shares >= min(0.5, float(shares.max()))
    return reduced


def encode_picture(grey: NDArray[np.uint8]) -> str:
    """Write grey values (H, W) as a data URL of a WebP picture with small losses."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="WEBP", quality=_QUALITY, method=4)
    return to_data_url(buffer.getvalue(), "image/webp")


def to_data_url(content: bytes, kind: str) -> str:
    """Write bytes as a data URL of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _pack_case(case: ViewedCase, rows: dict[str, int], resolution: Resolution) -> dict[str, Any]:
    areas = [measure_areas(volume) for volume in list_masks(case)]
    depth, height, width = case.image.shape
    levels = choose_levels(areas, depth, resolution.slices)
    shape = fit_shape((height, width), resolution.pixels)
    columns = int(np.ceil(np.sqrt(len(levels))))
    return {
        "height": shape[0],
        "width": shape[1],
        "proportion": height * case.spacing[1] / (width * case.spacing[2]),
        "levels": [case.levels[level] for level in levels] if case.levels else levels,
        "depth": case.depth or depth,
        "start": choose_start([area[levels] for area in areas], len(levels)),
        "columns": columns,
        "picture": encode_picture(_arrange([resize_slice(to_grey(case, level), shape) for level in levels], columns)),
        "masks": [_pack_mask(mask, rows[mask.target], levels, shape) for mask in case.masks],
    }


def _pack_mask(mask: Mask, row: int, levels: list[int], shape: tuple[int, int]) -> dict[str, Any]:
    def pack(volume: Volume | None) -> str | None:
        return None if volume is None else encode_runs(reduce_mask(volume[levels], shape))

    return {"target": row, "prediction": pack(mask.prediction), "truth": pack(mask.truth)}


def resize_slice(grey: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Average grey values over the pixels of a coarser grid."""
    return resize_values(grey, shape).round().astype(np.uint8)


def resize_values(values: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Average the values of a slice over the pixels of a coarser grid."""
    floats: NDArray[np.float32] = values.astype(np.float32)
    if floats.shape == shape:
        return floats
    return np.asarray(Image.fromarray(floats).resize(shape[::-1], Image.Resampling.BOX))


def _arrange(slices: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Arrange slices row by row in one picture."""
    height, width = slices[0].shape
    rows = -(-len(slices) // columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for index, values in enumerate(slices):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = values
    return sheet
