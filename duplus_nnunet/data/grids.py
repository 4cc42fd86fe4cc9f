"""Compares the grids of two images by the properties that nnU-Net's readers return."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# In mm and mm/voxel; headers are often rounded to four digits.
_TOLERANCE = 1e-2


def find_difference(
    properties: Mapping[str, Any], shape: Sequence[int], expected: Mapping[str, Any], expected_shape: Sequence[int]
) -> str | None:
    """Compare two grids.

    Args:
        properties: The reader's properties of an image.
        shape: Shape of that image (D, H, W).
        expected: The reader's properties of the expected grid.
        expected_shape: Shape of the expected grid (D, H, W).

    Returns:
        The first property that differs, with both values; None if the grids are equal.
    """
    geometry, expected_geometry = _find_geometry(properties), _find_geometry(expected)
    pairs = {"shape": (shape, expected_shape), "spacing": (properties["spacing"], expected["spacing"])}
    pairs |= {name: (geometry[name], expected_geometry[name]) for name in expected_geometry if name in geometry}
    for name, (first, second) in pairs.items():
        if np.shape(first) != np.shape(second) or not np.allclose(first, second, rtol=1e-3, atol=_TOLERANCE):
            return f"{name} {_format(first)} and {_format(second)}"
    return None


def last_line(error: Exception) -> str:
    """Return the last line of an exception's message, without a full stop."""
    text = str(error).strip()
    return text.splitlines()[-1].strip().rstrip(".") if text else type(error).__name__


def _find_geometry(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return origin and direction, or the affine; the readers of nnU-Net store them under different keys."""
    sitk, nibabel = properties.get("sitk_stuff", {}), properties.get("nibabel_stuff", {})
    geometry = {name: sitk[name] for name in ("origin", "direction") if name in sitk}
    affine = nibabel.get("reoriented_affine", nibabel.get("original_affine"))
    return geometry if affine is None else {**geometry, "affine": affine}


def _format(values: Any) -> str:
    return str(np.round(np.asarray(values, dtype=float), 4).tolist())
