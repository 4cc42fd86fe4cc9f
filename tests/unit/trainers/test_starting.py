"""A training that starts from other weights names what should be known about them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from duplus_nnunet.adaptation.trained_weights import identify
from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.plans_form import PlannedStart
from duplus_nnunet.trainers.adaptation import DuPLUSLoRATrainer
from duplus_nnunet.trainers.starting import check_start, describe_start, log_missing_start
from duplus_nnunet.trainers.training_cases import UNKNOWN

from ..partial_plans import make_plans

OWN = {"spacing": [3.0, 1.5, 1.5], "normalization_schemes": ["CTNormalization"]}


def plan(**mr: Any) -> dict[str, Any]:
    plans = make_plans()
    plans["configurations"] = {"3d_fullres": OWN, "3d_lowres": {**OWN, "spacing": [6.0, 3.0, 3.0]}}
    plans["duplus"]["reference_spacing"] = OWN["spacing"]
    plans["duplus"]["contexts"]["mr"] |= mr
    return plans


def describe(theirs: dict[str, Any], plans: dict[str, Any], configuration: str = "3d_fullres") -> list[str]:
    stock = {"configurations": {"3d_fullres": theirs}}
    checkpoint = {"init_args": {"plans": stock, "configuration": "3d_fullres"}}
    return describe_start(checkpoint, plans, configuration, None)


def test_equal_preprocessing_is_not_mentioned() -> None:
    assert describe({**OWN, "spacing": [3.0, 1.5, 1.52]}, plan()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spacing": [3.0, 1.0, 1.5]}, "3 x 1 x 1.5 mm"),
        ({"normalization_schemes": ["ZScoreNormalization"]}, "ZScoreNormalization"),
    ],
)
def test_the_context_that_is_preprocessed_in_another_way_is_named(changes: dict[str, Any], words: str) -> None:
    (note,) = describe(OWN, plan(**changes))
    assert "context mr" in note
    assert words in note


def test_another_configuration_has_another_spacing() -> None:
    assert len(describe(OWN, plan(), "3d_lowres")) == 2


def test_a_configuration_that_inherits_is_compared() -> None:
    stock = {"configurations": {"3d_fullres": OWN, "high": {"inherits_from": "3d_fullres", "spacing": [1.0, 1.0, 1.0]}}}
    notes = describe_start({"init_args": {"plans": stock, "configuration": "high"}}, plan(), "3d_fullres", None)
    assert ["1 x 1 x 1 mm" in note for note in notes] == [True, True]


def test_plans_that_cannot_be_compared_are_mentioned() -> None:
    assert len(describe({}, plan())) == 1


@pytest.mark.parametrize("checkpoint", [{}, {"init_args": {"plans": {"duplus": {}, "configurations": {}}}}])
def test_weights_of_a_duplus_model_are_not_compared(checkpoint: dict[str, Any]) -> None:
    assert describe_start(checkpoint, plan(), "3d_fullres", None) == []


def test_unknown_training_cases_are_mentioned() -> None:
    assert "held-out" in describe_start({}, plan(), "3d_fullres", UNKNOWN)[0]


def test_axes_along_which_the_images_of_weights_were_mirrored_are_named() -> None:
    (note,) = describe_start({"inference_allowed_mirroring_axes": (0, 2)}, plan(), "3d_fullres", None)
    assert [word for word in note if word.isdigit()] == ["0", "2"]
    assert describe_start({"inference_allowed_mirroring_axes": None}, plan(), "3d_fullres", None) == []


def test_an_adapter_is_refused_beside_a_stock_model() -> None:
    plans = plan()
    plans["duplus"]["start"] = {"model": "Dataset291/model"}
    with pytest.raises(PlansError, match=r"Dataset291/model.*DuPLUSTrainer"):
        DuPLUSLoRATrainer.choose_plans(plans)


def start_from(start: PlannedStart | None, checkpoint: dict[str, Any]) -> list[str]:
    """Check a checkpoint that a training starts from; return what the log says of it."""
    said: list[str] = []
    bank, plans = SimpleNamespace(form=SimpleNamespace(start=start)), SimpleNamespace(plans={"plans_name": "Mine"})
    check_start(SimpleNamespace(bank=bank, plans_manager=plans, print_to_log_file=said.append), checkpoint, "x.pth")
    return said


def test_another_fold_of_the_planned_model_is_mentioned() -> None:
    first, second = (
        {"network_weights": {"a": torch.full((1,), float(fold))}, "init_args": {"plans": {"configurations": {}}}}
        for fold in (0, 1)
    )
    start = PlannedStart(model="Dataset291/model", **identify(first))
    assert start_from(start, first) == start_from(None, second) == []
    assert ["x.pth" in text for text in start_from(start, second)] == [True]


@pytest.mark.parametrize("weight", [float("nan"), 1.0])
def test_weights_of_another_model_or_not_finite_are_refused_before_they_are_loaded(weight: float) -> None:
    start = PlannedStart(model="Dataset291/model", weights="ab")
    with pytest.raises(ModelError, match=r"x\.pth"):
        start_from(start, {"network_weights": {"a": torch.tensor([weight])}})


@pytest.mark.parametrize(
    ("start", "cases", "epoch", "warned"),
    [
        ("Dataset291/model", None, 0, 1),
        ("Dataset291/model", UNKNOWN, 0, 0),
        ("Dataset291/model", None, 3, 0),
        (None, None, 0, 0),
    ],
)
def test_a_start_that_was_forgotten_is_a_warning(start: str | None, cases: Any, epoch: int, warned: int) -> None:
    said: list[str] = []
    model = None if start is None else PlannedStart(model=start)
    bank = SimpleNamespace(form=SimpleNamespace(start=model))
    log_missing_start(SimpleNamespace(bank=bank, base_cases=cases, current_epoch=epoch, print_to_log_file=said.append))
    assert ["Dataset291/model" in text and "-pretrained_weights" in text for text in said] == [True] * warned
