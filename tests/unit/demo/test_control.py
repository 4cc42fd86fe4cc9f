"""The controls exchange the embeddings of targets or contexts, and change nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.demo.control import copy_model, exchange_contexts, exchange_targets
from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_section import PLANS_VERSION

NAMES = ["liver", "left kidney", "right kidney"]


def make_plans(names: list[str] = NAMES) -> dict[str, Any]:
    prompts = {
        context: {name: [f"A {context} of {name}", f"{name} in {context}"] for name in names}
        for context in ("CT", "MR")
    }
    texts = [
        *names,
        *(f"A {context} of abdomen" for context in prompts),
        *(text for found in prompts.values() for many in found.values() for text in many),
    ]
    return {
        "plans_name": "DuPLUSPlans",
        "duplus": {
            "version": PLANS_VERSION,
            "targets": [{"name": name, "label": name} for name in names],
            "contexts": {
                context: {"sentences": [f"A {context} of abdomen"], "target_prompts": found, "targets": names}
                for context, found in prompts.items()
            },
            "embeddings": {text: f"vector of {text}" for text in texts},
        },
    }


def embeddings(plans: dict[str, Any]) -> dict[str, str]:
    return plans["duplus"]["embeddings"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("template", ["{}", "A CT of {}"])
def test_no_target_keeps_its_embedding_of_sentence_or_name(name: str, template: str) -> None:
    text = template.format(name)
    assert embeddings(exchange_targets(make_plans(), "CT"))[text] != f"vector of {text}"


def test_sentence_and_name_come_from_the_same_target() -> None:
    found = embeddings(exchange_targets(make_plans(), "CT"))
    assert found["liver"] == "vector of left kidney"
    assert found["A CT of liver"] == "vector of A CT of left kidney"
    assert found["A CT of right kidney"] == "vector of A CT of liver"


def test_other_contexts_and_targets_without_annotation_take_no_part() -> None:
    plans = make_plans()
    plans["duplus"]["contexts"]["CT"]["targets"] = ["left kidney", "right kidney"]
    found = embeddings(exchange_targets(plans, "CT"))
    assert found["A CT of left kidney"] == "vector of A CT of right kidney"
    assert found["A CT of right kidney"] == "vector of A CT of left kidney"
    assert all(found[text] == f"vector of {text}" for text in ("liver", "A CT of liver", "A MR of left kidney"))


def test_embeddings_are_exchanged_none_is_lost() -> None:
    before, after = embeddings(make_plans()), embeddings(exchange_targets(make_plans(), "CT"))
    assert sorted(before.values()) == sorted(after.values())


def test_contexts_and_the_plans_given_stay_as_they_are() -> None:
    plans = make_plans()
    assert embeddings(exchange_targets(plans, "CT"))["A CT of abdomen"] == "vector of A CT of abdomen"
    assert plans == make_plans()


def test_contexts_are_exchanged_and_targets_stay() -> None:
    before, after = embeddings(make_plans()), embeddings(exchange_contexts(make_plans()))
    assert after["A CT of abdomen"] == "vector of A MR of abdomen"
    assert after["A MR of abdomen"] == "vector of A CT of abdomen"
    assert {text for text in before if before[text] != after[text]} == {"A CT of abdomen", "A MR of abdomen"}


def test_one_context_cannot_be_exchanged() -> None:
    plans = make_plans()
    del plans["duplus"]["contexts"]["MR"]
    with pytest.raises(PlansError, match=r"contexts \['CT'\]"):
        exchange_contexts(plans)


def test_one_target_cannot_be_exchanged() -> None:
    with pytest.raises(PlansError, match="targets"):
        exchange_targets(make_plans(["liver"]), "CT")


def test_copied_model_differs_in_the_plans_only(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "fold_0").mkdir(parents=True)
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")
    (model / "dataset.json").write_text("{}")
    (model / "plans.json").write_text(json.dumps(make_plans()))
    copy_model(model, tmp_path / "copy", exchange_contexts)
    assert (tmp_path / "copy" / "fold_0" / "checkpoint_final.pth").read_bytes() == b"weights"
    assert json.loads((tmp_path / "copy" / "plans.json").read_text()) == exchange_contexts(make_plans())
    assert json.loads((model / "plans.json").read_text()) == make_plans()
