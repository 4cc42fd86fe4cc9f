"""Reads the probabilities that nnU-Net's own `--save_probabilities` writes: CASE.npz beside the label map.

The array has the axes of nnU-Net's reader, (C, z, y, x). Trained on labels, its channels are the softmax of all labels
in ascending order, the background first; trained on regions, the sigmoid of each region in the order of dataset.json.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.survival.records.feature_table import READ_ERRORS, read_arrays

ENDING = ".npz"
_KEY = "probabilities"
_IGNORE = "ignore"
# Rounding of a softmax, above which a sum of probabilities is not one.
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class HostLayout:
    """Which channels of an array of probabilities belong to which label values.

    Attributes:
        channels: Label values of each channel: one of them, or those of a region.
        are_regions: Whether channels are regions, which may overlap.
    """

    channels: tuple[frozenset[int], ...]
    are_regions: bool

    def find(self, values: Collection[int]) -> tuple[int, ...]:
        """Return the channels whose sum is the probability of some label values; empty: there are none."""
        wanted = frozenset(values)
        if self.are_regions:
            return tuple(index for index, region in enumerate(self.channels) if region == wanted)[:1]
        found = tuple(index for index, label in enumerate(self.channels) if label <= wanted)
        return found if len(found) == len(wanted) else ()


@dataclass(frozen=True)
class HostProbabilities:
    """The probabilities of one case.

    Attributes:
        array: (C, z, y, x).
        layout: Its channels.
    """

    array: NDArray[Any]
    layout: HostLayout

    def read(self, values: Collection[int]) -> NDArray[np.float16] | None:
        """Return the probability of some label values, (z, y, x); None if no channel has them."""
        channels = self.layout.find(values)
        if not channels:
            return None
        total = self.array[list(channels)].sum(axis=0, dtype=np.float32)
        probabilities: NDArray[np.float16] = np.clip(total, 0.0, 1.0).astype(np.float16)
        return probabilities


def read_host_layout(folder: Path) -> HostLayout | None:
    """Read the channels from the dataset.json that nnU-Net puts into a folder of predictions.

    Returns:
        The layout; None without that file, or if the predictions are of this package, whose files CASE.npz have other
        channels.
    """
    file = folder / "dataset.json"
    content: Mapping[str, Any] = read_dataset_json(file) if file.is_file() else {}
    if "labels" not in content or PLANS_KEY in content:
        return None
    labels = {name: value for name, value in content["labels"].items() if name != _IGNORE}
    regions = [frozenset(map(int, value)) if isinstance(value, list) else frozenset([int(value)])
               for value in labels.values()]  # fmt: skip
    if any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
        return HostLayout(tuple(region for region in regions if region != {0}), True)
    return HostLayout(
        tuple(frozenset([value]) for value in sorted({label for each in regions for label in each})), False
    )


def read_host_probabilities(
    file: Path, layout: HostLayout, reference: Path, shape: tuple[int, ...]
) -> HostProbabilities:
    """Read the probabilities of a case.

    Args:
        file: CASE.npz.
        layout: Its channels.
        reference: Reference label map, for messages.
        shape: Its voxels along (z, y, x).

    Raises:
        DataError: The file is damaged, does not hold probabilities, or has other channels or another grid.
    """
    try:
        array = read_arrays(file, (_KEY,))[_KEY]
    except READ_ERRORS as error:
        raise DataError(
            f"{file} cannot be read ({error}). Expected the array {_KEY!r} of nnU-Net's --save_probabilities; predict "
            "again."
        ) from error
    if array.ndim != 4 or len(array) != len(layout.channels):
        raise DataError(
            f"{file} has the shape {array.shape}; expected (C, z, y, x) with the {len(layout.channels)} channels of "
            f"the dataset.json beside it. Put the dataset.json of the model there."
        )
    if array.shape[1:] != tuple(shape):
        raise DataError(
            f"{file} and the reference {reference} lie on different grids: shape {array.shape[1:]} and {tuple(shape)}. "
            "Predict the image that belongs to the reference."
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1 + _TOLERANCE):
        raise DataError(f"{file} holds values from {low:g} to {high:g}; expected probabilities. Predict again.")
    return HostProbabilities(array, layout)
