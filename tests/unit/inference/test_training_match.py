"""A model folder whose plans or labels are not those of its checkpoint."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from duplus_nnunet.api import DuPLUSPredictor
from duplus_nnunet.inference.training_match import describe_changes, share_mirroring

from ..mutations import change

MODEL = Path(__file__).parents[2] / "compatibility" / "files" / "models" / "segmentation"
PLANS: dict[str, Any] = {
    "plans_name": "DuPLUSPlans",
    "transpose_forward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 40.5}},
    "configurations": {"3d_fullres": {"spacing": [1.0, 1.0, 1.0], "batch_size": 2}, "3d_lowres": {"spacing": [2.0]}},
    "duplus": {
        "targets": {"liver": {"label": "liver"}},
        "settings": {"network": {"film": True}, "epochs": 1000},
        "registry": "a.yaml",
    },
}
DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}


def make_checkpoint() -> dict[str, Any]:
    # As a trainer holds them: with tuples and whole numbers as keys.
    trained = copy.deepcopy(PLANS)
    trained["transpose_forward"] = (0, 1, 2)
    trained["foreground_intensity_properties_per_channel"] = {0: {"mean": 40.5}}
    arguments = {"plans": trained, "configuration": "3d_fullres", "fold": 0, "dataset_json": copy.deepcopy(DATASET)}
    return {"init_args": arguments, "network_weights": {}}


def test_folder_as_it_was_trained() -> None:
    assert describe_changes(PLANS, DATASET, make_checkpoint()) == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("transpose_forward", [2, 1, 0]),
        ("foreground_intensity_properties_per_channel/0/mean", 40.6),
        ("configurations/3d_fullres/spacing", [1.0, 1.0, 2.0]),
        ("configurations/3d_fullres/resampling_fn_data", "x"),
        ("duplus/targets/liver/label", "spleen"),
        ("duplus/settings/network/film", False),
        ("duplus/left_right_axis", 2),
    ],
)
def test_change_of_what_a_prediction_uses_is_named(path: str, value: Any) -> None:
    assert path.replace("/", ".") in describe_changes(change(PLANS, path, value), DATASET, make_checkpoint())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plans_name", "Mine"),
        ("configurations/3d_fullres/batch_size", 8),
        ("configurations/3d_lowres/spacing", [3.0]),
        ("duplus/registry", "b.yaml"),
        ("duplus/settings/epochs", 10),
    ],
)
def test_change_without_influence_is_not(path: str, value: Any) -> None:
    assert describe_changes(change(PLANS, path, value), DATASET, make_checkpoint()) == ""


def test_labels_count_and_the_file_ending_does_not() -> None:
    exchanged = {**DATASET, "labels": {"background": 0, "liver": 2}}
    assert "dataset.json: labels" in describe_changes(PLANS, exchanged, make_checkpoint())
    assert describe_changes(PLANS, {**DATASET, "file_ending": ".nrrd"}, make_checkpoint()) == ""


def test_checkpoint_without_plans_is_not_compared() -> None:
    assert describe_changes(PLANS, DATASET, {"network_weights": {}}) == ""


@pytest.mark.parametrize(
    ("axes", "common", "differ"),
    [
        ({"fold_0": (0, 1, 2)}, (0, 1, 2), False),
        ({"fold_0": (0, 2), "fold_1": (2, 0)}, (0, 2), False),
        ({"fold_0": (0, 1, 2), "fold_1": ()}, (), True),
        ({"fold_1": (), "fold_0": (0, 1, 2)}, (), True),
        ({"fold_0": (0, 1, 2), "fold_1": (2,)}, (2,), True),
    ],
)
def test_folds_are_mirrored_as_all_were_trained(
    axes: dict[str, tuple[int, ...]], common: tuple[int, ...], differ: bool
) -> None:
    found, note = share_mirroring(axes)
    assert found == common
    assert bool(note) == differ


@pytest.mark.parametrize("folds", [("0", "1"), ("1", "0")])
def test_a_model_of_two_folds_predicts_with_the_mirror_images_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folds: tuple[str, str]
) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    shutil.copytree(MODEL / "fold_0", tmp_path / "model" / "fold_1")
    file = tmp_path / "model" / "fold_1" / "checkpoint_final.pth"
    content = torch.load(file, map_location="cpu", weights_only=True)
    own = content["inference_allowed_mirroring_axes"]
    torch.save({**content, "inference_allowed_mirroring_axes": own[:1]}, file)
    predictor = DuPLUSPredictor.from_folder(tmp_path / "model", folds=folds, device="cpu")
    assert predictor._model.predictor.allowed_mirroring_axes == tuple(own[:1])
    assert "different axes" in capsys.readouterr().err


def test_loaded_model_with_changed_plans_warns_in_log_and_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    file = tmp_path / "model" / "plans.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    plans["foreground_intensity_properties_per_channel"]["0"]["mean"] += 5
    file.write_text(json.dumps(plans), encoding="utf-8")
    predictor = DuPLUSPredictor.from_folder(tmp_path / "model", folds=(0,), device="cpu")
    assert "foreground_intensity_properties_per_channel.0.mean" in capsys.readouterr().err
    (note,) = predictor._model.record.notes
    assert "foreground_intensity_properties_per_channel.0.mean" in note
