"""Which model folders are DuPLUS models, and whether plans and checkpoint belong together."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.host import make_predictor_class
from duplus_nnunet.inference.model_folder import describe_targets, is_ours
from duplus_nnunet.inference.named_classes import require_names
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.inference.training_match import compare_training

FILES = Path(__file__).parents[2] / "compatibility" / "files"
PLANS: dict[str, Any] = json.loads((FILES / "models/segmentation/plans.json").read_text())
CHECKPOINT = {"trainer_name": "T", "init_args": {"configuration": "3d_fullres", "plans": PLANS}}


def write_plans(folder: Path, plans: Any) -> Path:
    (folder / "plans.json").write_text(json.dumps(plans))
    return folder


def test_plans_that_have_lost_our_part_are_damaged_not_stock(tmp_path: Path) -> None:
    lost = {key: value for key, value in PLANS.items() if key != "duplus"}
    with pytest.raises(ModelError, match=r"plans\.json.*DuPLUSLabelManager"):
        is_ours(write_plans(tmp_path, lost))
    assert not is_ours(write_plans(tmp_path, {"label_manager": "LabelManager"}))


def test_a_stock_model_is_refused_before_its_checkpoint_is_loaded(tmp_path: Path) -> None:
    predictor = make_predictor_class(Selection(), takes_stock=False)(allow_tqdm=False)
    with pytest.raises(ModelError, match="--allow-stock"):
        predictor.initialize_from_trained_model_folder(str(write_plans(tmp_path, {"label_manager": "L"})), (0,))


@pytest.mark.parametrize("selection", [Selection(("liver",)), Selection(options=Options(statistics=True))])
def test_what_only_our_models_do_is_refused_for_others(tmp_path: Path, selection: Selection) -> None:
    predictor = make_predictor_class(selection)(allow_tqdm=False)
    with pytest.raises(ModelError, match="not a DuPLUS"):
        predictor.initialize_from_trained_model_folder(str(write_plans(tmp_path, {"label_manager": "L"})), (0,))


def test_targets_are_listed_under_the_contexts_that_they_were_trained_in(tmp_path: Path) -> None:
    plans = deepcopy(PLANS)
    context = next(iter(plans["duplus"]["contexts"].values()))
    dropped, *kept = context["targets"]
    context["targets"] = kept
    text = describe_targets(write_plans(tmp_path, plans)).partition(context["sentences"][0])[2].partition("context ")[0]
    assert f"    {kept[0]}" in text
    assert f"    {dropped} " not in text.replace("\n", " \n")


def test_plans_of_the_training_match() -> None:
    assert compare_training(deepcopy(PLANS), CHECKPOINT, "c.pth") == "3d_fullres"


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "features_per_stage": lambda p: find_architecture(p)["arch_kwargs"].update(features_per_stage=[1]),
    "network_class_name": lambda p: find_architecture(p).update(network_class_name="Other"),
    "transpose_forward": lambda p: p.update(transpose_forward=[2, 1, 0]),
    r"centres": lambda p: p["duplus"]["centres"]["name"].update(scale=1.0),
}


def find_architecture(plans: dict[str, Any]) -> dict[str, Any]:
    return plans["configurations"]["3d_fullres"]["architecture"]


@pytest.mark.parametrize("key", CHANGES)
def test_plans_that_a_checkpoint_was_not_trained_with_are_refused(key: str) -> None:
    plans = deepcopy(PLANS)
    CHANGES[key](plans)
    with pytest.raises(ModelError, match=rf"{key}.*c\.pth"):
        compare_training(plans, CHECKPOINT, "c.pth")


@pytest.mark.parametrize("content", [{}, {"trainer_name": "T"}, {"trainer_name": "T", "init_args": 5}])
def test_a_checkpoint_without_its_configuration_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"c\.pth"):
        compare_training(PLANS, content, "c.pth")


@pytest.mark.parametrize("key", ["image_reader_writer", "resampling_fn_data", "normalization_schemes"])
def test_names_that_nnunet_does_not_have_are_refused(key: str) -> None:
    plans = deepcopy(PLANS)
    chosen = plans["configurations"]["3d_fullres"]
    require_names(plans, "3d_fullres", "MODEL")
    place = plans if key in plans else chosen
    place[key] = ["nothing"] if isinstance(place[key], list) else "nothing"
    with pytest.raises(ModelError, match=rf"MODEL/plans\.json.*{key}.*'nothing'"):
        require_names(plans, "3d_fullres", "MODEL")
