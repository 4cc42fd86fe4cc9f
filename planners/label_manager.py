"""Treats labels as independent targets, in nnU-Net's region mode."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from duplus_nnunet.errors import DataError, PlansError
from duplus_nnunet.prompt_registry.dataset_labels import check_label_values

Maps = np.ndarray[Any, Any] | torch.Tensor


def list_targets(labels: dict[str, Any]) -> dict[str, Any]:
    """Return the labels that are targets: neither background nor nnU-Net's ignore label."""

    def is_background(value: Any) -> bool:
        return all(int(v) == 0 for v in value) if isinstance(value, (list, tuple)) else int(value) == 0

    return {name: value for name, value in labels.items() if name != "ignore" and not is_background(value)}


def check_labels(dataset_json: Mapping[str, Any], planned: list[str], plans_name: object) -> None:
    """Compare a dataset.json with the labels that its plans were made for.

    Raises:
        PlansError: Labels or their order differ.
    """
    declared = list(list_targets(dataset_json["labels"]))
    if declared != planned:
        raise PlansError(
            f"dataset.json has the targets {declared}, the plans {plans_name!r} have {planned}. One of them was "
            "changed after planning: undo that, or plan, preprocess and train again."
        )


def select_labels(
    dataset_json: Mapping[str, Any], labels: Sequence[str], new: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return a copy of dataset.json with the selected labels only; their values do not change.

    Args:
        dataset_json: Content of dataset.json.
        labels: Labels to keep, in its order.
        new: Label values of targets to add, each under its text; if regions overlap, they are written last.
    """
    added = dict(new or {})
    chosen = deepcopy(dict(dataset_json))
    targets = list(list_targets(dataset_json["labels"]))
    chosen["labels"] = {"background": 0, **{label: dataset_json["labels"][label] for label in labels}, **added}
    order = dataset_json.get("regions_class_order")
    if order is not None:
        chosen["regions_class_order"] = [*(order[targets.index(label)] for label in labels), *added.values()]
    return chosen


class DuPLUSLabelManager(LabelManager):
    """nnU-Net's label manager, always in region mode: one sigmoid for each target.

    If dataset.json declares regions, overlaps are resolved by its regions_class_order, as in nnU-Net. Otherwise targets
    exclude one another, and a voxel belongs to the most probable one if its probability is above 0.5.

    Raises:
        DataError: A label value cannot be used, two labels have the same values, or regions_class_order is missing or
            wrong; see `check_label_values`.
    """

    def __init__(
        self,
        label_dict: dict[str, Any],
        regions_class_order: list[int] | None,
        force_use_labels: bool = False,
        inference_nonlin: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        check_label_values(label_dict, regions_class_order, "dataset.json")
        self.exclusive = regions_class_order is None
        if regions_class_order is None:
            regions_class_order = [int(np.ravel(value)[0]) for value in list_targets(label_dict).values()]
        super().__init__(label_dict, regions_class_order, force_use_labels, inference_nonlin)

    def _get_regions(self) -> list[int | tuple[int, ...]] | None:
        """Differs from nnU-Net: region mode does not require a label with several values."""
        self._has_regions = not self._force_use_labels
        regions: list[int | tuple[int, ...]] | None = super()._get_regions()
        return regions

    @property
    def foreground_labels(self) -> list[int]:
        """Differs from nnU-Net: if a value is above 254, all values up to the largest are listed.

        nnU-Net stores a label map in 8 bits if there are fewer than 255 foreground labels, which would turn the value
        300 of a single label into 44. In region mode, it uses nothing but the number of labels.
        """
        labels: list[int] = super().foreground_labels
        largest = max(labels, default=0)
        return labels if largest < 255 else list(range(1, largest + 1))

    def convert_probabilities_to_segmentation(self, predicted_probabilities: Maps) -> Maps:
        """Differs from nnU-Net: of exclusive targets, the most probable is chosen. Shape (K, D, H, W)."""
        if not self.exclusive:
            resolved: Maps = super().convert_probabilities_to_segmentation(predicted_probabilities)
            return resolved
        return self._choose_most_probable(predicted_probabilities, 0.5)

    def convert_logits_to_segmentation(self, predicted_logits: Maps) -> Maps:
        """Differs from nnU-Net: exclusive targets need no sigmoid, which is monotonic. Shape (K, D, H, W)."""
        if not self.exclusive:
            resolved: Maps = super().convert_logits_to_segmentation(predicted_logits)
            return resolved
        return self._choose_most_probable(predicted_logits, 0.0)

    def _choose_most_probable(self, maps: Maps, threshold: float) -> Maps:
        """Assign the most probable target to each voxel where it is above the threshold; background elsewhere."""
        tensor = torch.as_tensor(maps)
        if tensor.shape[0] != self.num_segmentation_heads:
            raise DataError(
                f"The prediction has {tensor.shape[0]} channels; the labels {list(self.label_dict)} are "
                f"{self.num_segmentation_heads} targets."
            )
        best, index = tensor.max(0)
        values = torch.tensor(self.regions_class_order, dtype=torch.int16, device=tensor.device)
        segmentation = torch.where(best > threshold, values[index], 0)
        return segmentation if isinstance(maps, torch.Tensor) else segmentation.numpy().astype(np.uint16)
