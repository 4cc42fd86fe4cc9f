"""Where images lie: in comes what nnU-Net's readers say of two of them, out comes how their grids differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# mm, and as a share; headers are often rounded to four digits.
_TOLERANCE = 1e-2


def find_difference(
    found: Mapping[str, Any], shape: Sequence[int], expected: Mapping[str, Any], expected_shape: Sequence[int]
) -> str | None:
    """Compare two grids.

    Args:
        found: What the reader said of one image.
        shape: That image's (D, H, W).
        expected: What it said of the other.
        expected_shape: Its (D, H, W).

    Returns:
        The first thing that differs, with both values; None if the grids are the same.
    """
    theirs, ours = _find_geometry(found), _find_geometry(expected)
    pairs = {"shape": (shape, expected_shape), "spacing": (found["spacing"], expected["spacing"])}
    pairs |= {name: (theirs[name], ours[name]) for name in ours if name in theirs}
    for name, (here, there) in pairs.items():
        if np.shape(here) != np.shape(there) or not np.allclose(here, there, rtol=1e-3, atol=_TOLERANCE):
            return f"{name} {_say(here)} and {_say(there)}"
    return None


def last_line(error: Exception) -> str:
    """Give what an exception of a reader's says, in one line without a full stop."""
    text = str(error).strip()
    return text.splitlines()[-1].strip().rstrip(".") if text else type(error).__name__


def _find_geometry(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Take out of a reader's properties where an image lies; each reader of nnU-Net says it in its own way."""
    sitk, nibabel = properties.get("sitk_stuff", {}), properties.get("nibabel_stuff", {})
    found = {name: sitk[name] for name in ("origin", "direction") if name in sitk}
    affine = nibabel.get("reoriented_affine", nibabel.get("original_affine"))
    return found if affine is None else {**found, "affine": affine}


def _say(values: Any) -> str:
    return str(np.round(np.asarray(values, dtype=float), 4).tolist())
