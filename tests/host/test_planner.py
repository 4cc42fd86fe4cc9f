"""Our planners size the network as nnU-Net's do, with what the prompts add; no image is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import PlansError
from duplus_nnunet.networks import Prompts, condition
from duplus_nnunet.planners import planner as planners
from duplus_nnunet.planners.orientation import TrainingOrientation
from duplus_nnunet.planners.survey import CaseSurvey
from duplus_nnunet.settings import NetworkSettings

ARCHITECTURE = {
    "n_stages": 3, "features_per_stage": [4, 8, 8], "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [3] * 3,
    "strides": [1, 2, 2], "n_conv_per_stage": [1] * 3, "n_conv_per_stage_decoder": [1] * 2, "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"affine": True},
    "nonlin": "torch.nn.LeakyReLU",
}  # fmt: skip
NETWORK = (
    "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    ARCHITECTURE,
    ("conv_op", "norm_op", "nonlin"),
)
ORGANS = ("liver", "spleen", "stomach", "aorta", "pancreas", "esophagus", "duodenum", "bladder")


def estimate(targets: int, patch: tuple[int, ...]) -> int:
    planner = object.__new__(planners.DuPLUSPlanner)
    planner._section = {"targets": [{}] * targets}
    return int(planner.static_estimate_VRAM_usage(patch, 1, 99, *NETWORK))


@pytest.mark.parametrize("targets", [1, 15, 60])
def test_the_estimate_is_that_of_the_conditioned_network(targets: int) -> None:
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    network = condition(get_network_from_plans(*NETWORK, 1, 1, deep_supervision=False), (6, 12))
    network.bind(Prompts(torch.zeros(1, 6), torch.zeros(targets, 12)))
    assert estimate(targets, (16, 16, 8)) == network.compute_conv_feature_map_size((16, 16, 8))


def test_each_target_more_adds_its_logits_to_the_estimate() -> None:
    assert estimate(60, (16, 16, 8)) - estimate(1, (16, 16, 8)) == 59 * 16 * 16 * 8


def test_the_projection_is_in_the_estimate() -> None:
    features = NetworkSettings().head_features
    stock = planners.ExperimentPlanner.static_estimate_VRAM_usage((16, 16, 8), 1, 1, *NETWORK)
    assert estimate(1, (16, 16, 8)) == stock + features * 16 * 16 * 8


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Plan a dataset that has a fingerprint but no images."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name / "Dataset007_Test").mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{organ: value for value, organ in enumerate(ORGANS, 1)}},
        "numTraining": 100,
        "file_ending": ".nii.gz",
        "dataset": {"c0": {"images": ["c0_0000.nii.gz"], "label": "c0.nii.gz"}},
    }
    fingerprint = {
        "spacings": [[2.0, 1.0, 1.0]],
        "shapes_after_crop": [[64, 64, 64]],
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    (tmp_path / "raw" / "Dataset007_Test" / "dataset.json").write_text(json.dumps(described))
    (tmp_path / "preprocessed" / "Dataset007_Test" / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    reader = type("SimpleITKIO", (), {})
    monkeypatch.setattr(planners.ExperimentPlanner, "determine_reader_writer", lambda self: reader)
    monkeypatch.setattr(
        planners, "read_training_orientation", lambda dataset, name, base: TrainingOrientation("LPS", 2)
    )
    image = {"min": -1000.0, "p1": -1000.0, "p50": 0.0, "p99": 300.0, "max": 1000.0}
    labels = tuple(range(len(ORGANS) + 1))
    case = CaseSurvey((2.0, 1.0, 1.0), (64, 64, 64), 1.0, (np.ones(9, dtype=np.float32),), labels, (image,))
    monkeypatch.setattr(planners, "survey_dataset", lambda dataset, reader, known: dict.fromkeys(dataset, case))

    def run(kind: str, **options: Any) -> dict[str, Any]:
        planner = getattr(planners, kind)("Dataset007_Test", **options)
        planner.plan_experiment()
        written = tmp_path / "preprocessed" / "Dataset007_Test" / f"{planner.plans_identifier}.json"
        plans: dict[str, Any] = json.loads(written.read_text())
        return plans

    return run


def test_a_smaller_memory_target_gives_a_smaller_patch(plan: Callable[..., dict[str, Any]]) -> None:
    names = ("large", "small")
    patches = [
        plan("DuPLUSPlanner", gpu_memory_target_in_gb=target, plans_name=name)["configurations"]["3d_fullres"]
        for name, target in zip(names, (1.0, 0.25), strict=True)
    ]
    large, small = (np.prod(patch["patch_size"]) for patch in patches)
    assert small < large


def test_target_spacing_and_plans_name_are_honoured(plan: Callable[..., dict[str, Any]]) -> None:
    plans = plan("DuPLUSPlanner", plans_name="Mine", overwrite_target_spacing=[4.0, 2.0, 2.0])
    assert plans["plans_name"] == "Mine"
    assert plans["configurations"]["3d_fullres"]["spacing"] == [4.0, 2.0, 2.0]
    assert plans["configurations"]["3d_fullres"]["data_identifier"] == "Mine_3d_fullres"


@pytest.mark.filterwarnings("error::UserWarning")  # nnU-Net warns where a preset's memory target is not its own
@pytest.mark.parametrize("letter", ["M", "L", "XL"])
def test_residual_encoder_presets_plan_with_their_own_memory_target(
    plan: Callable[..., dict[str, Any]], letter: str
) -> None:
    plans = plan(f"DuPLUSPlannerResEnc{letter}")
    assert plans["plans_name"] == f"DuPLUSResEncUNet{letter}Plans"
    assert set(plans["configurations"]) <= {"3d_fullres", "3d_lowres"}
    assert plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"].endswith("ResidualEncoderUNet")


def test_planning_again_replaces_our_plans_but_no_others(plan: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    plan("DuPLUSPlanner")
    plan("DuPLUSPlanner")
    stock = tmp_path / "preprocessed" / "Dataset007_Test" / "nnUNetPlans.json"
    stock.write_text('{"experiment_planner_used": "ExperimentPlanner", "configurations": {"2d": {}}}')
    with pytest.raises(PlansError, match=r"nnUNetPlans\.json.*'ExperimentPlanner'"):
        plan("DuPLUSPlanner", plans_name="nnUNetPlans")
    assert "duplus" not in stock.read_text()


def test_splits_other_than_those_trained_on_are_refused(plan: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for folder, case in (("raw", "c1"), ("preprocessed", "c0")):
        folds = [{"train": ["c9"], "val": [case]}]
        (tmp_path / folder / "Dataset007_Test" / "splits_final.json").write_text(json.dumps(folds))
    with pytest.raises(PlansError, match=r"Fold 0 .*splits_final\.json"):
        plan("DuPLUSPlanner")


def test_plans_hold_what_each_context_is_preprocessed_by(plan: Callable[..., dict[str, Any]]) -> None:
    plans = plan("DuPLUSPlanner", overwrite_target_spacing=[4.0, 2.0, 2.0])
    (context,) = plans["duplus"]["contexts"].values()
    assert context["spacing"] == plans["duplus"]["reference_spacing"] == [4.0, 2.0, 2.0]
    assert context["normalization_schemes"] == ["CTNormalization"]
    assert plans["configurations"]["3d_fullres"]["preprocessor_name"] == "DuPLUSPreprocessor"
    assert plans["duplus"]["sources"]["Test"]["cases"] == 1


def test_labels_that_nnunet_refuses_are_refused_before_planning(tmp_path: Path) -> None:
    from duplus_nnunet.errors import DataError

    with pytest.raises(DataError, match=r"dataset\.json.*(?i:background)"):
        planners.read_entry("Dataset007_Test", {"labels": {"liver": 1}, "channel_names": {"0": "CT"}}, tmp_path)
