"""What a model folder says is validated before it is used: the message names file and key."""

import json
import math
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.adaptation.files import read_card
from duplus_nnunet.errors import DuplusError, ModelError
from duplus_nnunet.model_form import check_dataset, check_model, read_json

from .mutations import mutate

FILES = Path(__file__).parents[1] / "compatibility" / "files"
PLANS: dict[str, Any] = json.loads((FILES / "models/segmentation/plans.json").read_text())
DATASET: dict[str, Any] = json.loads((FILES / "models/segmentation/dataset.json").read_text())


def find_layers(plans: dict[str, Any]) -> dict[str, Any]:
    return plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]


def test_a_model_of_an_earlier_version_is_accepted() -> None:
    check_model(PLANS, DATASET, "MODEL")


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    r"transpose_backward": lambda p: p.update(transpose_backward=[0, 0, 1]),
    r"transpose_backward: .*inverse": lambda p: p.update(transpose_forward=[1, 2, 0], transpose_backward=[1, 2, 0]),
    r"transpose_forward": lambda p: p.pop("transpose_forward"),
    r"configurations": lambda p: p.update(configurations=[]),
    r"3d_fullres\.patch_size": lambda p: p["configurations"]["3d_fullres"].update(patch_size=0),
    r"3d_fullres\.patch_size\.1": lambda p: p["configurations"]["3d_fullres"].update(patch_size=[8, 0, 8]),
    r"patch_size: .*multiples": lambda p: p["configurations"]["3d_fullres"].update(patch_size=[17, 16, 16]),
    r"3d_fullres\.spacing": lambda p: p["configurations"]["3d_fullres"].pop("spacing"),
    r"spacing\.0": lambda p: p["configurations"]["3d_fullres"].update(spacing=[math.nan, 1.0, 1.0]),
    r"spacing\.2": lambda p: p["configurations"]["3d_fullres"].update(spacing=[1.0, 1.0, -1.0]),
    r"label_manager": lambda p: p.update(label_manager="LabelManager"),
    r"preprocessor_name": lambda p: p["configurations"]["3d_fullres"].update(preprocessor_name="DefaultPreprocessor"),
    r"inherits_from": lambda p: p["configurations"]["3d_fullres"].update(inherits_from="3d_fullres"),
    r"nonlin.*'os\.system'": lambda p: find_layers(p).update(nonlin="os.system"),
    r"nonlin.*torch\.nn\.functional": lambda p: find_layers(p).update(nonlin="torch.nn.functional.torch.os.system"),
    r"network_class_name": lambda p: p["configurations"]["3d_fullres"]["architecture"].update(network_class_name="a.B"),
    r"n_stages": lambda p: find_layers(p).update(n_stages=10**6),
    r"features_per_stage": lambda p: find_layers(p).update(features_per_stage=[8]),
    r"foreground_intensity_properties_per_channel\.0\.std": lambda p: p["foreground_intensity_properties_per_channel"][
        "0"
    ].pop("std"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_plans_are_named_with_file_and_key(message: str) -> None:
    plans = deepcopy(PLANS)
    WRONG[message](plans)
    with pytest.raises(ModelError, match=rf"MODEL/plans\.json.*{message}"):
        check_model(plans, DATASET, "MODEL")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channel_names", {}), ("channel_names", None), ("channel_names", {"0": "CT", "1": "PET"}),
        ("file_ending", 5), ("file_ending", "nii"), ("labels", []), ("labels", {"background": 0}),
        ("regions_class_order", [1]), ("regions_class_order", "12"),
    ],
)  # fmt: skip
def test_a_wrong_dataset_json_is_named_with_file_and_key(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=rf"MODEL/dataset\.json.*{key}"):
        check_dataset({**DATASET, key: value}, "MODEL/dataset.json", 1)


@pytest.mark.parametrize("value", [1, [1], 1.5, True, -1, 70000, "2", [], [[2]], [2, 2], None])
def test_label_values_that_a_label_map_cannot_hold_are_refused(value: Any) -> None:
    with pytest.raises(ModelError):
        check_dataset({**DATASET, "labels": {"background": 0, "liver": 1, "spleen": value}}, "dataset.json")


@pytest.mark.parametrize("value", [2, [2], [1, 2], 300, 32767])
def test_label_values_that_it_can_hold_are_accepted(value: Any) -> None:
    check_dataset({**DATASET, "labels": {"background": 0, "liver": 1, "spleen": value}}, "dataset.json")


@pytest.mark.parametrize("content", ["", "[]", "5", "{", "[" * 100_000], ids=len)
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "plans.json").write_text(content)
    with pytest.raises(ModelError, match=r"plans\.json"):
        read_json(tmp_path / "plans.json")


@pytest.mark.parametrize("seed", range(50))
def test_mutated_files_are_accepted_or_refused_with_a_message(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    plans, dataset = mutate(PLANS, rng)[0], mutate(DATASET, rng)[0]
    card = mutate(json.loads((FILES / "adapter/adapter.json").read_text()), rng)[0]
    (tmp_path / "adapter.json").write_text(json.dumps(card))
    for check in (
        lambda: check_model(plans, DATASET, "MODEL"),
        lambda: check_model(PLANS, dataset, "MODEL"),
        lambda: read_card(tmp_path).spec,
    ):
        try:
            check()
        except DuplusError as error:
            assert len(str(error)) > 20  # noqa: PT017, any other exception is the failure
