"""A base and its adapters as one model: who answers for what, and what may not stand beside each other."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.adaptation.joining import (
    ModelPart,
    check_overlap,
    describe_base,
    join_labels,
    join_plans,
    list_members,
    name_adapter,
)
from duplus_nnunet.errors import PlansError, PromptError
from duplus_nnunet.prompt_bank import PromptBank, encode_vector, measure_centre

CENTRE = measure_centre([np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0])])


def make_plans(context: str, targets: dict[str, str], dataset: str = "Dataset001_Base", t1: str = "") -> dict[str, Any]:
    """Make plans of one context; targets are names with their labels."""
    sentence = t1 or f"T1 {context}"
    texts = [sentence, *targets, *(f"{context} of {name}" for name in targets)]
    rng = np.random.default_rng(len(context))
    return {
        "plans_name": "Test",
        "dataset_name": dataset,
        "duplus": {
            "version": 1,
            "default_context": context,
            "contexts": {
                context: {
                    "sentences": [sentence],
                    "target_prompts": {name: [f"{context} of {name}"] for name in targets},
                    "targets": list(targets),
                    "volumes": dict.fromkeys(targets, 1),
                }
            },
            "targets": [
                {"name": name, "label": label, "synonyms": [], "partner": None} for name, label in targets.items()
            ],
            "centres": dict.fromkeys(("context", "sentence", "name"), CENTRE),
            "embeddings": {text: encode_vector(rng.normal(size=4)) for text in texts},
        },
    }


def label(*names: str, **more: Any) -> dict[str, Any]:
    return {"labels": {"background": 0, **{name: value for value, name in enumerate(names, 1)}}, **more}


BASE = make_plans("ct", {"liver": "Liver", "spleen": "Spleen"})
BASE_LABELS = label("Liver", "Spleen")


def member(plans: dict[str, Any], labels: dict[str, Any], name: str = "new") -> ModelPart:
    return ModelPart(name, plans["duplus"], labels)


def test_a_model_without_a_base_is_left_as_it_is() -> None:
    assert join_plans(BASE) == BASE
    assert join_labels(BASE, BASE_LABELS) == BASE_LABELS


def test_an_adapters_plans_hold_their_base() -> None:
    new = make_plans("pet", {"tumour": "GTV"}, "Dataset062_New")
    new["duplus"]["base"] = describe_base("base", BASE, BASE_LABELS, (0, 1, 2))
    members = list_members(new, label("GTV"))
    assert [one.name for one in members] == ["", "Dataset062_New"]
    joined = PromptBank(join_plans(new))
    assert joined.default_context == "ct"
    assert joined.names == ["liver", "spleen", "tumour"]
    assert joined.names_in("ct") == ["liver", "spleen"]
    assert joined.names_in("pet") == ["tumour"]
    assert joined.draw("ct").adapters == ("", "")
    assert joined.draw("pet").adapters == ("Dataset062_New",)


def test_the_bases_prompts_and_label_values_stay() -> None:
    added = member(make_plans("pet", {"tumour": "GTV", "liver": "hepar"}), label("GTV", "hepar"))
    joined = PromptBank(join_plans(BASE, [added]))
    alone = PromptBank(BASE)
    assert (joined.draw("ct").targets == alone.draw("ct").targets).all()
    assert (joined.draw("ct").context == alone.draw("ct").context).all()
    assert join_labels(BASE, BASE_LABELS, [added])["labels"] == {"background": 0, "Liver": 1, "Spleen": 2, "GTV": 3}
    assert joined.find_adapters("pet", ["liver", "tumour"]) == ("new", "new")
    assert joined.find_adapters("ct", ["liver"]) == ("",)


def test_a_new_target_in_an_old_context_is_the_adapters_alone() -> None:
    added = member(make_plans("ct", {"stomach": "Stomach"}), label("Stomach"))
    joined = PromptBank(join_plans(BASE, [added]))
    assert joined.names_in("ct") == ["liver", "spleen", "stomach"]
    assert joined.draw("ct").adapters == ("", "", "new")
    assert [part.adapter for part in joined.draw("ct").parts] == ["", "new"]


def test_free_texts_are_answered_by_whom_the_context_belongs_to() -> None:
    bank = PromptBank(join_plans(BASE, [member(make_plans("pet", {"tumour": "GTV"}), label("GTV"))]))
    assert bank.find_adapters("pet", [], 1) == ("new",)
    assert bank.find_adapters("ct", ["liver"], 1) == ("", "")
    assert PromptBank(BASE).find_adapters("ct", ["liver"], 1) is None


def test_several_adapters_are_told_apart() -> None:
    one = member(make_plans("pet", {"tumour": "GTV"}), label("GTV"), "one")
    two = member(make_plans("mr", {"tumour": "Tumor", "cyst": "Cyst"}), label("Tumor", "Cyst"), "two")
    bank = PromptBank(join_plans(BASE, [one, two]))
    assert (bank.draw("pet").adapters, bank.draw("mr").adapters) == (("one",), ("two", "two"))
    labels = join_labels(BASE, BASE_LABELS, [one, two])["labels"]
    assert labels == {"background": 0, "Liver": 1, "Spleen": 2, "GTV": 3, "Cyst": 4}


def test_what_an_adapter_predicts_is_not_implausible_any_more() -> None:
    base = make_plans("ct", {"liver": "Liver", "spleen": "Spleen"})
    base["duplus"]["contexts"]["ct"] |= {"targets": ["liver"], "implausible": ["spleen"]}
    assert PromptBank(base).contexts["ct"].implausible == ["spleen"]
    joined = PromptBank(join_plans(base, [member(make_plans("ct", {"spleen": "Spleen"}), label("Spleen"))]))
    assert joined.names_in("ct") == ["liver", "spleen"]
    assert joined.contexts["ct"].implausible == []


def test_the_table_of_texts_is_the_adapters() -> None:
    new = make_plans("pet", {"tumour": "GTV"}, "Dataset062_New")
    own = PromptBank(new).entries
    new["duplus"]["base"] = describe_base("base", BASE, BASE_LABELS, (0, 1, 2))
    assert PromptBank(join_plans(new)).entries[: len(own)] == own


def test_overlapping_targets_keep_an_order() -> None:
    base = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    added = member(make_plans("pet", {"tumour": "GTV"}), {**label("GTV"), "regions_class_order": [1]})
    joined = join_labels(BASE, base, [added])
    assert joined["labels"] == {"background": 0, "whole": [1, 2], "core": 2, "GTV": 3}
    assert joined["regions_class_order"] == [1, 2, 3]


@pytest.mark.parametrize("mirror", [False, True])
def test_overlapping_and_exclusive_targets_do_not_make_one_model(mirror: bool) -> None:
    pair = [{"regions_class_order": [1]}, {}]
    with pytest.raises(PlansError, match="'regions_class_order'"):
        check_overlap(*(reversed(pair) if mirror else pair))


def test_the_same_target_in_the_same_context_stays_the_bases() -> None:
    added = member(make_plans("ct", {"liver": "Liver"}), label("Liver"))
    with pytest.raises(PlansError, match=r"'liver'.*'ct'.*--context"):
        join_plans(BASE, [added])


def test_a_context_that_says_something_else_is_refused() -> None:
    added = member(make_plans("ct", {"stomach": "Stomach"}, t1="T1 of something else"), label("Stomach"))
    with pytest.raises(PlansError, match=r"'ct'.*'T1 ct'.*'T1 of something else'"):
        join_plans(BASE, [added])


def test_a_label_with_another_meaning_is_refused() -> None:
    added = member(make_plans("pet", {"tumour": "Liver"}), label("Liver"))
    with pytest.raises(PromptError, match=r"'Liver'.*'tumour'.*'liver'"):
        join_plans(BASE, [added])


def test_a_name_with_another_partner_is_refused() -> None:
    plans = deepcopy(make_plans("pet", {"liver": "hepar"}))
    plans["duplus"]["targets"][0]["partner"] = "other"
    with pytest.raises(PromptError, match=r"'liver'.*None.*'other'"):
        join_plans(BASE, [member(plans, label("hepar"))])


@pytest.mark.parametrize(("dataset", "name"), [("Dataset062_A.b c", "Dataset062_A_b_c"), ("", "adapter")])
def test_names_of_adapters_can_stand_in_names_of_weights(dataset: str, name: str) -> None:
    assert name_adapter({"dataset_name": dataset}) == name


@pytest.mark.parametrize(("base", "new", "joined"), [(None, None, None), (2, None, 2), (None, 1, 1), (0, 0, 0)])
def test_the_left_right_axis_is_the_one_that_is_known(base: int | None, new: int | None, joined: int | None) -> None:
    plans, added = deepcopy(BASE), make_plans("pet", {"tumour": "GTV"})
    plans["duplus"]["left_right_axis"], added["duplus"]["left_right_axis"] = base, new
    assert join_plans(plans, [member(added, label("GTV"))])["duplus"]["left_right_axis"] == joined


def test_two_left_right_axes_are_refused() -> None:
    plans, added = deepcopy(BASE), make_plans("pet", {"tumour": "GTV"})
    plans["duplus"]["left_right_axis"], added["duplus"]["left_right_axis"] = 2, 1
    with pytest.raises(PlansError, match="left-right axis"):
        join_plans(plans, [member(added, label("GTV"))])


@pytest.mark.parametrize(("base", "new", "joined"), [(None, None, None), ("LPS", None, "LPS"), (None, "RAS", "RAS")])
def test_the_orientation_is_the_one_that_is_known(base: str | None, new: str | None, joined: str | None) -> None:
    plans, added = deepcopy(BASE), make_plans("pet", {"tumour": "GTV"})
    plans["duplus"]["orientation"], added["duplus"]["orientation"] = base, new
    assert join_plans(plans, [member(added, label("GTV"))])["duplus"]["orientation"] == joined


def test_parts_of_different_orientations_are_refused() -> None:
    plans, added = deepcopy(BASE), make_plans("pet", {"tumour": "GTV"})
    plans["duplus"]["orientation"], added["duplus"]["orientation"] = "LPS", "RAS"
    with pytest.raises(PlansError, match="LPS, RAS"):
        join_plans(plans, [member(added, label("GTV"))])
