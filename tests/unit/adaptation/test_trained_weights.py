"""Weights are started from only where plans and images are those that they were trained with."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from duplus_nnunet.adaptation.planning_base import keep_plans, keep_settings, list_mirroring, take_mirroring
from duplus_nnunet.adaptation.trained_weights import identify, require_trained_by
from duplus_nnunet.checkpoint_files import require_finite_weights
from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.plans_form import PlannedStart
from duplus_nnunet.settings import Settings, parse_settings
from duplus_nnunet.trainers.starting import match_start

from ..mutations import change
from ..partial_plans import make_plans as make_our_plans
from ..planners.stock_models import make_configuration, make_plans

FULL = "3d_fullres"
WHERE = ("fold_0/checkpoint_final.pth", "model/plans.json")


def make_checkpoint(seed: int = 0, trainer: str = "nnUNetTrainer", **plans: Any) -> dict[str, Any]:
    weights = {"encoder.a": torch.full((2,), float(seed))}
    settings = {"plans": make_plans(make_configuration(), **plans), "configuration": FULL}
    return {"network_weights": weights, "trainer_name": trainer, "init_args": settings}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image_reader_writer", "NibabelIOWithReorient"),
        ("transpose_forward", [0, 1, 2]),
        ("configurations/3d_fullres/spacing", [3.0, 1.5, 1.5]),
        ("configurations/3d_fullres/normalization_schemes", ["ZScoreNormalization"]),
        ("configurations/3d_fullres/architecture/arch_kwargs/nonlin", "torch.nn.ReLU"),
        ("foreground_intensity_properties_per_channel/0/mean", 51.0),
    ],
)
def test_weights_that_other_plans_trained_are_refused(path: str, value: Any) -> None:
    plans = make_plans(make_configuration())
    with pytest.raises(ModelError, match=path.rpartition("/")[2]) as refused:
        require_trained_by(change(plans, path, value), plans, [FULL], WHERE)
    assert all(part in str(refused.value) for part in WHERE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dataset_name", "Dataset001_A"),
        ("continue_training", True),
        ("configurations/2d/spacing", [9.0, 9.0]),
        ("configurations/3d_fullres/batch_size", 9),
        ("foreground_intensity_properties_per_channel/0/max", 51.0),
        ("transpose_forward", (1, 0, 2)),
    ],
)
def test_what_weights_do_not_depend_on_may_differ(path: str, value: Any) -> None:
    plans = make_plans(make_configuration())
    require_trained_by(change(plans, path, value), plans, [FULL], WHERE)
    require_trained_by(plans, None, [FULL], WHERE)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("duplus/contexts/mr/spacing", [3.0, 1.0, 1.0], "contexts.mr.spacing"),
        ("duplus/centres/name/scale", 0.125, "centres.name.scale"),
    ],
)
def test_contexts_and_centres_of_our_plans_are_compared(path: str, value: Any, named: str) -> None:
    plans = {**make_our_plans(), "configurations": {FULL: make_configuration()}}
    require_trained_by(plans, copy.deepcopy(plans), [FULL], WHERE)
    with pytest.raises(ModelError, match=named):
        require_trained_by(change(plans, path, value), plans, [FULL], WHERE)


def test_a_context_may_be_added_to_our_plans() -> None:
    plans = {**make_our_plans(), "configurations": {FULL: make_configuration()}}
    context = plans["duplus"]["contexts"]["mr"]
    require_trained_by(change(plans, "duplus/contexts/pet", {**context, "spacing": [9.0] * 3}), plans, [FULL], WHERE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    weights = {"a": torch.zeros(2), "b": torch.tensor([0.0, value]), "steps": torch.tensor(3)}
    with pytest.raises(ModelError, match=r"x\.pth.*'b'"):
        require_finite_weights(weights, "x.pth")
    require_finite_weights({**weights, "b": torch.zeros(1)}, "x.pth")


def test_folds_of_a_model_have_the_same_plans_and_other_weights() -> None:
    first, second = identify(make_checkpoint()), identify(make_checkpoint(1, continue_training=True))
    assert first["plans"] == second["plans"]
    assert len({first["weights"], second["weights"], first["plans"]}) == 3
    assert identify(make_checkpoint(transpose_forward=(1, 0, 2))) == first
    assert identify({"network_weights": {}}) == {"weights": "", "plans": ""}


START = {"model": "Dataset291_Stock/model", "configuration": FULL, "trainer": "nnUNetTrainer"}


@pytest.mark.parametrize(
    ("checkpoint", "notes"),
    [(make_checkpoint(), 0), (make_checkpoint(1), 1), ({"network_weights": make_checkpoint()["network_weights"]}, 0)],
)
def test_the_planned_weights_and_other_folds_of_their_model_are_accepted(
    checkpoint: dict[str, Any], notes: int
) -> None:
    start = PlannedStart(**START, **identify(make_checkpoint()))
    assert len(match_start(start, checkpoint, "x.pth", "Mine")) == notes


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({}, True),
        ({"weights": "of another fold"}, True),
        ({"weights": "", "plans": ""}, True),
        ({"weights": "others", "plans": "others"}, False),
        ({"model": "another"}, False),
    ],
)
def test_a_model_that_was_itself_trained_from_the_planned_model_is_accepted(
    changes: dict[str, str], accepted: bool
) -> None:
    start = PlannedStart(**START, **identify(make_checkpoint()))
    plans = {**make_our_plans(), "configurations": {}}
    plans["duplus"]["start"] = {**start.model_dump(), **changes}
    child = {"init_args": {"plans": plans, "configuration": FULL}, "trainer_name": "DuPLUSTrainer"}
    if accepted:
        assert match_start(start, child, "x.pth", "Mine") == []
    else:
        with pytest.raises(ModelError, match="DuPLUSTrainer"):
            match_start(start, child, "x.pth", "Mine")


@pytest.mark.parametrize(
    "checkpoint",
    [
        make_checkpoint(1, dataset_name="Dataset292_Other"),
        make_checkpoint(1, trainer="OtherTrainer"),
        {"network_weights": {"encoder.a": torch.ones(2)}},
    ],
)
def test_weights_of_another_model_are_refused(checkpoint: dict[str, Any]) -> None:
    start = PlannedStart(**START, **identify(make_checkpoint()))
    with pytest.raises(ModelError, match=r"x\.pth.*'Mine'.*Dataset291_Stock/model.*--from-model"):
        match_start(start, checkpoint, "x.pth", "Mine")


def test_plans_of_earlier_versions_name_trainer_and_configuration_alone() -> None:
    start = PlannedStart(**START)
    assert match_start(start, make_checkpoint(1), "x.pth", "Mine") == []
    assert match_start(PlannedStart(model="M"), make_checkpoint(1), "x.pth", "Mine") == []
    with pytest.raises(ModelError, match="OtherTrainer"):
        match_start(start, make_checkpoint(trainer="OtherTrainer"), "x.pth", "Mine")


class OurBase:
    """What is compared of a model that plans are made for."""

    name = "our/model"

    def __init__(self, weights: str) -> None:
        self.weights = weights


@pytest.mark.parametrize("key", ["start", "base"])
@pytest.mark.parametrize(("before", "now", "kept"), [("a", "a", True), ("a", "b", False), ("", "b", True)])
def test_plans_made_for_other_weights_of_the_same_name_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, before: str, now: str, kept: bool
) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    plans = {"duplus": {key: {"model": "our/model", "weights": before}}}
    (tmp_path / "Dataset001_A").mkdir()
    (tmp_path / "Dataset001_A" / "Mine.json").write_text(json.dumps(plans))
    if kept:
        assert keep_plans("Dataset001_A", "Mine", OurBase(now)) == plans  # type: ignore[arg-type]
    else:
        with pytest.raises(PlansError, match="other weights of our/model"):
            keep_plans("Dataset001_A", "Mine", OurBase(now))  # type: ignore[arg-type]


def test_settings_that_were_edited_are_kept_and_named() -> None:
    before = {"duplus": {"settings": {"epochs": 7, "network": {"film": False}}, "settings_version": 3}}
    plans: dict[str, Any] = {"duplus": {"settings": Settings().to_dict()}}
    (note,) = keep_settings(plans, before, ("network",))
    assert note.endswith("kept: epochs 7")
    assert parse_settings(plans["duplus"]["settings"]) == Settings(epochs=7)
    assert keep_settings(plans, {}) == keep_settings(plans, {"duplus": {}}) == []


@pytest.mark.parametrize(("kept", "other"), [((True, False), True), ((True, True), False), ((False, False), True)])
def test_mirror_images_of_plans_that_are_overwritten_are_kept_and_compared(
    kept: tuple[bool, bool], other: bool
) -> None:
    names = ("mirror_left_right", "mirror_other_axes")
    plans: dict[str, Any] = {
        "duplus": {"settings": Settings().to_dict(), "settings_version": 3, "left_right_axis": 2, "targets": []},
        "configurations": {FULL: {"patch_size": [8, 8, 8]}},
    }
    old = {**Settings().to_dict(), **dict(zip(names, kept, strict=True))}
    take_mirroring(plans, (0, 1, 2))
    keep_settings(plans, {"duplus": {"settings": old, "settings_version": 3}})
    assert tuple(plans["duplus"]["settings"][name] for name in names) == kept
    (note,) = list_mirroring(plans, (0, 1, 2))
    assert ("settings.mirror_left_right" in note) == other


def test_plans_for_no_model_say_nothing_of_mirror_images() -> None:
    plans: dict[str, Any] = {"duplus": {"settings": Settings().to_dict()}}
    assert keep_settings(plans, {"duplus": {"settings": Settings().to_dict(), "settings_version": 3}}) == []


def test_images_stay_mirrored_where_plans_of_an_earlier_version_are_planned_again() -> None:
    plans: dict[str, Any] = {"duplus": {"settings": Settings().to_dict()}}
    for settings, kept in (({"settings": {"epochs": 7}}, "epochs 7, "), ({}, "")):
        plans["duplus"]["settings"] = Settings().to_dict()
        (note,) = keep_settings(plans, {"duplus": {**settings, "settings_version": 2}})
        assert note.endswith(f"kept: {kept}mirror_left_right True, mirror_other_axes True")


def test_sizes_that_were_edited_are_the_models_again_and_named() -> None:
    plans, before = ({"duplus": {}, "configurations": {FULL: {"batch_size": size}}} for size in (2, 8))
    (note,) = keep_settings(plans, before)
    assert all(word in note for word in (FULL, "batch_size", "2", "8"))
    assert plans["configurations"][FULL]["batch_size"] == 2
