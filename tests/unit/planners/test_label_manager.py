"""Labels as independent targets."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

from duplus_nnunet.errors import DataError
from duplus_nnunet.planners import DuPLUSLabelManager
from duplus_nnunet.planners.label_manager import select_labels

EXCLUSIVE = {"background": 0, "liver": 1, "spleen": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def test_plain_labels_are_targets_of_their_own() -> None:
    manager = DuPLUSLabelManager(EXCLUSIVE, None)
    assert manager.has_regions
    assert manager.num_segmentation_heads == 2
    assert manager.inference_nonlin is torch.sigmoid


@pytest.mark.parametrize("numpy", [True, False])
def test_exclusive_targets_go_to_the_most_probable(numpy: bool) -> None:
    probabilities = torch.tensor([[0.6, 0.9, 0.1, 0.5], [0.8, 0.2, 0.4, 0.5]]).view(2, 1, 1, 4)
    manager = DuPLUSLabelManager(EXCLUSIVE, None)
    for convert, maps in (
        (manager.convert_probabilities_to_segmentation, probabilities),
        (manager.convert_logits_to_segmentation, torch.logit(probabilities)),
    ):
        found = convert(maps.numpy() if numpy else maps)
        assert np.asarray(found).ravel().tolist() == [2, 1, 0, 0]


def test_declared_regions_are_settled_by_nnunets_class_order() -> None:
    manager = DuPLUSLabelManager(REGIONS, [1, 2])
    probabilities = torch.tensor([[0.9, 0.9], [0.6, 0.2]]).view(2, 1, 1, 2)
    assert manager.convert_probabilities_to_segmentation(probabilities).flatten().tolist() == [2, 1]


def test_regions_without_an_order_are_refused() -> None:
    with pytest.raises(DataError, match="regions_class_order"):
        DuPLUSLabelManager(REGIONS, None)


def test_a_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(DataError, match="3 channels"):
        DuPLUSLabelManager(EXCLUSIVE, None).convert_logits_to_segmentation(torch.zeros(3, 1, 1, 1))


def test_the_ignore_label_is_no_target() -> None:
    manager = DuPLUSLabelManager({**EXCLUSIVE, "ignore": 3}, None)
    assert manager.ignore_label == 3
    assert manager.num_segmentation_heads == 2


def test_selected_labels_keep_their_values() -> None:
    chosen = select_labels({"labels": {**EXCLUSIVE, "ignore": 3}}, ["spleen"])
    assert chosen["labels"] == {"background": 0, "spleen": 2}
    manager = DuPLUSLabelManager(chosen["labels"], None)
    assert manager.convert_logits_to_segmentation(torch.ones(1, 1, 1, 1)).item() == 2


def test_selected_regions_keep_their_place_in_the_class_order() -> None:
    chosen = select_labels({"labels": REGIONS, "regions_class_order": [1, 2]}, ["core"])
    assert chosen["regions_class_order"] == [2]


@pytest.mark.parametrize("value", [1, 254, 255, 300, 32767])
def test_a_large_value_of_a_lone_target_survives_nnunets_export(value: int) -> None:
    manager = DuPLUSLabelManager({"background": 0, "liver": value}, None)
    shape = (2, 2, 2)
    properties = {
        "spacing": (1, 1, 1),
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": [[0, 2]] * 3,
    }
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2])
    configuration = SimpleNamespace(spacing=(1, 1, 1), resampling_fn_probabilities=lambda logits, *_: logits)
    found = convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.ones(1, *shape), plans, configuration, manager, properties
    )
    assert np.unique(found).tolist() == [value]


def test_small_values_are_listed_as_by_nnunet() -> None:
    assert DuPLUSLabelManager(EXCLUSIVE, None).foreground_labels == [1, 2]
