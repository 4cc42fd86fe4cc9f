"""Reads label maps by one rule: whole values are kept, nearly whole ones are rounded, everything else is refused.

The images that they belong to are read in the same way.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.grids import last_line
from duplus_nnunet.data.image_headers import inspect_image
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.dataset_labels import LARGEST_VALUE

# Largest distance from a whole number that is rounded: more than any scaling of a header leaves, less than an
# interpolation makes.
TOLERANCE = 1e-3
_BLOCK = 1 << 20
_SHOWN = 5


@dataclass(frozen=True)
class LabelMap:
    """A checked label map.

    Attributes:
        labels: Whole values in the shape and type of the array that was read; that array itself if all were whole.
        counts: Number of voxels of each value.
        rounded: Number of voxels whose value was rounded.
    """

    labels: NDArray[Any]
    counts: Mapping[int, int]
    rounded: int

    @property
    def values(self) -> frozenset[int]:
        """The values that occur, background included."""
        return frozenset(self.counts)


def read_label_map(
    file: str | Path, reader: type, known: Collection[int] | None = None
) -> tuple[LabelMap, dict[str, Any]]:
    """Read a label map with one of nnU-Net's readers.

    Args:
        file: The label map.
        reader: nnU-Net's reader class.
        known: The declared values; None: any whole value is accepted.

    Returns:
        The label map, (1, D, H, W), and the reader's properties of it.

    Raises:
        DataError: The file cannot be read, is cut off, or holds a value that is not whole, negative, too large or not
            declared.
    """
    inspect_image(Path(file), reader.__name__)
    require_finite(Path(file))
    try:
        array, properties = reader().read_seg(str(file))
    except Exception as error:  # readers raise different exceptions for damaged files
        raise DataError(
            f"The label map {file} cannot be read by {reader.__name__} ({last_line(error)}). Write it again."
        ) from error
    return check_labels(array, str(file), known), properties


def read_image(file: Path, reader: type) -> tuple[NDArray[Any], dict[str, Any]]:
    """Read an image with one of nnU-Net's readers.

    Returns:
        The image, (C, D, H, W), and the reader's properties of it.

    Raises:
        DataError: The file cannot be read.
    """
    inspect_image(file, reader.__name__)
    try:
        array, properties = reader().read_images([str(file)])
    except Exception as error:  # as above
        raise DataError(
            f"The image {file} cannot be read by {reader.__name__} ({last_line(error)}). Write it again."
        ) from error
    return array, properties


def require_finite(file: Path) -> None:
    """Check that a NIfTI file holds no NaN and no infinity, which SimpleITK reads as 0.

    Only files that store numbers with a point are read.

    Raises:
        DataError: It holds such a value.
    """
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        return
    import nibabel

    image: Any = nibabel.load(file)
    if image.get_data_dtype().kind != "f":
        return
    stored = np.asanyarray(image.dataobj.get_unscaled())
    wrong = stored[~np.isfinite(stored)]
    if wrong.size:
        values, counts = np.unique(wrong, return_counts=True)
        odd = {float(value): int(count) for value, count in zip(values, counts, strict=True)}
        raise DataError(f"{file} {_describe_odd(odd)} Correct the label map.")


def check_labels(array: NDArray[Any], name: str, known: Collection[int] | None = None) -> LabelMap:
    """Check the values of a label map, and round those that are nearly whole.

    Args:
        array: A label map of any shape and type.
        name: Its file, for messages.
        known: The declared values; None: any whole value is accepted.

    Raises:
        DataError: It holds a value that is not whole, negative, too large or not declared.
    """
    counts = np.zeros(LARGEST_VALUE + 1, dtype=np.int64)
    odd: dict[float, int] = {}
    rounded = 0
    for block in _cut(array):
        whole, changed = _find_whole(block, odd)
        rounded += changed
        found = np.bincount(whole)
        counts[: len(found)] += found
    occurring = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    problems = [_describe_odd(odd)] if odd else []
    unknown = {value: count for value, count in occurring.items() if known is not None and value not in known}
    if unknown:
        problems.append(_describe_unknown(unknown, known or ()))
    if problems:
        raise DataError(f"{name} {'; it '.join(problems)} Correct the label map, or the labels of dataset.json.")
    return LabelMap(np.rint(array) if rounded else array, occurring, rounded)


def describe_rounding(rounded: Mapping[str, int]) -> str:
    """Return a sentence on label maps that were rounded, "" if there is none.

    Args:
        rounded: Number of rounded voxels by file or case.
    """
    names = [name for name, count in rounded.items() if count]
    if not names:
        return ""
    return (
        f"{len(names)} label map(s) hold values that are not whole and were rounded, all within {TOLERANCE:g} of a "
        f"whole number; the first is {names[0]} with {rounded[names[0]]} such voxels."
    )


def _cut(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut an array into blocks that stay in the processor's cache, which makes counting several times faster."""
    flat = array.ravel(order="K")
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def _find_whole(block: NDArray[Any], odd: dict[float, int]) -> tuple[NDArray[np.int32], int]:
    """Return a block's usable values as integers, and how many of them were rounded; count the others in `odd`."""
    with np.errstate(invalid="ignore"):
        whole = block.astype(np.int32)
        if np.array_equal(whole, block) and whole.min() >= 0 and whole.max() <= LARGEST_VALUE:
            return whole, 0
        nearest = np.rint(block)
        usable = (np.abs(block - nearest) <= TOLERANCE) & (nearest >= 0) & (nearest <= LARGEST_VALUE)
    for value, count in zip(*np.unique(block[~usable], return_counts=True), strict=True):
        odd[float(value)] = odd.get(float(value), 0) + int(count)
    changed = usable & (block != nearest)
    return nearest[usable].astype(np.int32), int(changed.sum())


def _describe_odd(odd: Mapping[float, int]) -> str:
    largest = sorted(odd.items(), key=lambda pair: -pair[1])
    listed = ", ".join(f"{count} voxel(s) of {value:g}" for value, count in largest[:_SHOWN])
    more = f" and {len(odd) - _SHOWN} other values" if len(odd) > _SHOWN else ""
    return f"holds what cannot be a label: {listed}{more}; expected whole numbers from 0 to {LARGEST_VALUE}."


def _describe_unknown(unknown: Mapping[int, int], known: Collection[int]) -> str:
    listed = ", ".join(f"{value}" for value in list(unknown)[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    expected = sorted(known)
    shown = ", ".join(map(str, expected if len(expected) <= 20 else [*expected[:10], "...", expected[-1]]))
    return (
        f"contains the value{'s' if len(unknown) > 1 else ''} {listed}{more}, which no label has, in "
        f"{sum(unknown.values())} voxel(s); expected {shown}."
    )
