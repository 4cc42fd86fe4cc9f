"""Sections with many texts are packed, and are read as if they were not."""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet import plans_packing
from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.plans_packing import pack_plans, unpack_section
from duplus_nnunet.prompt_bank import PromptBank, encode_vector, measure_centre

NAMES = ("liver", "spleen", "left kidney", "right kidney")
LENGTH = 6


def make_plans(contexts: int = 3) -> dict[str, Any]:
    """Make plans in which all contexts but the last share their target prompts."""
    rng = np.random.default_rng(0)
    prompts = {name: [f"CT of {name}", f"the {name}"] for name in NAMES}
    section: dict[str, Any] = {
        "version": 1,
        "default_context": "context 0",
        "contexts": {
            f"context {number}": {"sentences": [f"T1 {number}"], "target_prompts": copy.deepcopy(prompts)}
            for number in range(contexts)
        },
        "targets": [
            {"name": name, "label": name, "partner": {"left": "right kidney", "right": "left kidney"}.get(name[:-7])}
            for name in NAMES
        ],
        "notes": "mine",
    }
    section["contexts"][f"context {contexts - 1}"]["target_prompts"]["liver"] = ["MR of liver"]
    sentences = [text for context in section["contexts"].values() for text in context["sentences"]]
    texts = [*sentences, *NAMES, "MR of liver", *(text for both in prompts.values() for text in both)]
    vectors = {text: rng.normal(size=LENGTH).astype(np.float32) for text in texts}
    section["centres"] = {
        kind: measure_centre(list(vectors.values()), kind == "name") for kind in ("context", "sentence", "name")
    }
    section["embeddings"] = {text: encode_vector(vector) for text, vector in vectors.items()}
    return {"plans_name": "Test", "duplus": section, "configurations": {}}


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(plans_packing, "LEAST_TEXTS", 1)
    plans: dict[str, Any] = json.loads(json.dumps(pack_plans(make_plans())))
    return plans


def test_small_plans_stay_as_they_are() -> None:
    assert pack_plans(make_plans()) == make_plans()
    assert pack_plans({"plans_name": "nnUNetPlans"}) == {"plans_name": "nnUNetPlans"}


def test_packed_plans_spell_each_prompt_once(packed: dict[str, Any]) -> None:
    contexts = packed["duplus"]["contexts"]
    assert packed["duplus"]["version"] == 2
    assert contexts["context 1"]["target_prompts"] == "context 0"
    assert contexts["context 2"]["target_prompts"]["liver"] == ["MR of liver"]
    assert list(packed["duplus"]["embeddings"]) == ["length", "texts", "vectors"]


def test_a_packed_section_is_read_as_the_plain_one(packed: dict[str, Any]) -> None:
    plain, form = as_form(make_plans()), as_form(packed)
    assert form.contexts == plain.contexts
    assert form.contexts["context 0"].target_prompts is form.contexts["context 1"].target_prompts
    assert dict(form.embeddings) == dict(plain.embeddings)
    assert (form.targets, form.centres, form.list_entries()) == (plain.targets, plain.centres, plain.list_entries())
    unpacked = unpack_section(packed["duplus"])
    assert {**unpacked, "embeddings": dict(unpacked["embeddings"]), "version": 1} == make_plans()["duplus"]


def test_a_packed_section_gives_the_same_prompts(packed: dict[str, Any]) -> None:
    plain, bank = PromptBank(make_plans()), PromptBank(packed)
    assert bank.vectors.equal(plain.vectors)
    images = [("context 0", ("liver", "left kidney")), ("context 2", ("liver", "left kidney"))]
    for number in range(20):
        drawn, expected = (
            bank_.compose_batch(bank_.choose_batch(images, np.random.default_rng(number), 0.5))
            for bank_ in (bank, plain)
        )
        assert drawn.targets.equal(expected.targets)
        assert drawn.context.equal(expected.context)


def test_further_texts_can_be_added_to_a_packed_section(packed: dict[str, Any]) -> None:
    bank = PromptBank(packed).extend({"new": encode_vector(np.ones(LENGTH))})
    assert bank.form.embeddings["new"] == encode_vector(np.ones(LENGTH))
    assert len(bank.form.embeddings) == len(make_plans()["duplus"]["embeddings"]) + 1
    assert bank.compose("T1 0", [("new", "liver")]).rows is None


def test_packing_and_unpacking_twice_changes_nothing(packed: dict[str, Any]) -> None:
    assert pack_plans(packed) == packed
    once = unpack_section(packed["duplus"])
    assert unpack_section(once) == once


def test_the_section_of_a_base_is_packed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans_packing, "LEAST_TEXTS", 1)
    plans = make_plans()
    plans["duplus"]["base"] = {"model": "Base", "section": make_plans()["duplus"]}
    assert pack_plans(plans)["duplus"]["base"]["section"]["version"] == 2


@given(st.dictionaries(st.text(), st.binary(min_size=4, max_size=4), min_size=1, max_size=8))
def test_any_embeddings_come_back(vectors: dict[str, bytes]) -> None:
    numbers = {text: np.frombuffer(vector, dtype="<f2") for text, vector in vectors.items()}
    section = {**make_plans()["duplus"], "embeddings": {text: encode_vector(row) for text, row in numbers.items()}}
    with patch.object(plans_packing, "LEAST_TEXTS", 1), tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plans.json")
        file.write_text(json.dumps(pack_plans({"duplus": section})), encoding="utf-8")
        read = json.loads(file.read_text(encoding="utf-8"))["duplus"]
    assert list(unpack_section(read)["embeddings"].items()) == list(section["embeddings"].items())


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("length", 5, "5 numbers for each of"),
        ("length", 10**15, "too few"),
        ("length", "6", "'6'"),
        ("vectors", None, "packed"),
        ("vectors", "AAAA", "numbers for each"),
        ("vectors", "%%%", "numbers for each"),
        ("texts", ["liver"], "each of 1 texts"),
    ],
)
def test_damaged_embeddings_are_refused(packed: dict[str, Any], part: str, value: Any, message: str) -> None:
    packed["duplus"]["embeddings"][part] = value
    with pytest.raises(PlansError, match=rf"duplus.embeddings.*{message}"):
        as_form(packed)


def test_embeddings_of_another_length_than_the_centre_are_refused(packed: dict[str, Any]) -> None:
    for kind in ("context", "sentence", "name"):
        packed["duplus"]["centres"][kind] = {"centre": encode_vector(np.ones(4)), "scale": 1.0}
    with pytest.raises(PlansError, match="6 numbers each, expected 4"):
        as_form(packed)


@pytest.mark.parametrize("key", ["context 9", "context 1"])
def test_target_prompts_of_no_context_are_refused(packed: dict[str, Any], key: str) -> None:
    packed["duplus"]["contexts"]["context 1"]["target_prompts"] = key
    with pytest.raises(PlansError, match=rf"context 1\.target_prompts is '{key}'"):
        as_form(packed)
