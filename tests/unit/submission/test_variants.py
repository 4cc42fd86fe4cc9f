"""Plans of variants differ in their settings and their name alone, and replace no others."""

import json
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import PlansError
from duplus_nnunet.settings import read_settings
from duplus_nnunet.submission.variants import Variant, check_variant, make_plans, read_variant, write_plans

from .conftest import DATASET, PLANS


def test_values_are_json_or_texts() -> None:
    words = ["v-1", "network.film=false", "epochs=3", "target_prompt=name", "initial_learning_rate=null"]
    expected = {"network.film": False, "epochs": 3, "target_prompt": "name", "initial_learning_rate": None}
    assert read_variant(words) == Variant("v-1", expected)


@pytest.mark.parametrize("words", [["a__b"], ["a/b"], ["epochs=3"], ["a", "epochs"], ["a", "=3"], ["_a"]])
def test_a_name_that_folders_cannot_have_and_a_missing_value_are_refused(words: list[str]) -> None:
    with pytest.raises(PlansError):
        read_variant(words)


def test_only_what_is_named_changes() -> None:
    made = make_plans(PLANS, "New", Variant("v", {"network.film": False, "seed": 3}))
    settings = read_settings(made)
    assert (settings.network.film, settings.network.film_hidden, settings.seed, settings.epochs) == (False, 16, 3, 5)
    assert {**made, "duplus": 0, "plans_name": 0} == {**PLANS, "duplus": 0, "plans_name": 0}
    assert made["plans_name"] == "New"
    assert PLANS["duplus"]["settings"] == {"epochs": 5, "network": {"film_hidden": 16}}


@pytest.mark.parametrize(
    "changes", [{"network.filmm": False}, {"epochs": 0}, {"epochs.more": 1}, {"nonsense": 1}, {"target_prompt": "x"}]
)
def test_unknown_settings_and_values_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(PlansError, match="'v'"):
        make_plans(PLANS, "New", Variant("v", changes))


def test_plans_without_prompts_have_no_settings() -> None:
    with pytest.raises(PlansError, match="DuPLUSPlanner"):
        make_plans({"configurations": {}}, "New", Variant("v"))


def test_plans_are_written_once_and_others_are_not_replaced(preprocessed: Path) -> None:
    variant = Variant("v", {"epochs": 7})
    made = check_variant(DATASET, "DuPLUSPlans", variant)
    assert made is not None
    assert made[0] == preprocessed / "DuPLUSPlans_v.json"
    write_plans(*made)
    assert read_settings(json.loads(made[0].read_text())).epochs == 7
    assert check_variant(DATASET, "DuPLUSPlans", variant) is None
    with pytest.raises(PlansError, match=r"DuPLUSPlans_v\.json"):
        check_variant(DATASET, "DuPLUSPlans", Variant("v", {"epochs": 8}))


def test_a_seed_is_a_variant_of_each_variant() -> None:
    assert Variant("v", {"epochs": 7}).with_seed(2) == Variant("v_seed2", {"epochs": 7, "seed": 2})
    assert Variant("").with_seed(2).name == "seed2"
