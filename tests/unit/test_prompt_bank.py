"""Prompts that travel in the plans."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet import standard_embeddings
from duplus_nnunet.errors import PlansError, PromptError
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.prompt_bank import PromptBank, _choose_text, encode_vector, measure_centre
from duplus_nnunet.settings import read_settings
from duplus_nnunet.standard_embeddings import decode_vector

TEXTS = ["T1", "T1 again", "CT of liver", "CT of spleen", "the liver", "liver", "spleen"]


def make_plans() -> dict[str, object]:
    rng = np.random.default_rng(0)
    vectors = {text: rng.normal(size=4).astype(np.float32) for text in TEXTS}
    centre = measure_centre([vectors["liver"], vectors["spleen"]])
    return {
        "plans_name": "Test",
        "duplus": {
            "version": 1,
            "default_context": "ct",
            "contexts": {
                "ct": {
                    "sentences": ["T1", "T1 again"],
                    "target_prompts": {"liver": ["CT of liver", "the liver"], "spleen": ["CT of spleen"]},
                }
            },
            "targets": [
                {"name": "liver", "label": "Liver", "synonyms": ["hepar"], "partner": None},
                {"name": "spleen", "label": "2_spleen", "synonyms": [], "partner": None},
            ],
            "centres": dict.fromkeys(("context", "sentence", "name"), centre),
            "embeddings": {text: encode_vector(vector) for text, vector in vectors.items()},
        },
    }


def test_vectors_survive_writing_to_half_precision() -> None:
    vector = np.linspace(-1, 1, 7, dtype=np.float32)
    np.testing.assert_allclose(decode_vector(encode_vector(vector)), vector, atol=1e-3)


def test_centred_vectors_of_a_pair_point_apart() -> None:
    first, second = np.array([1, 0.1], dtype=np.float32), np.array([1, -0.1], dtype=np.float32)
    found = measure_centre([first, second])
    a, b = ((v - decode_vector(found["centre"])) * found["scale"] for v in (first, second))
    assert np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) < -0.9


def test_a_single_vector_is_not_centred_away() -> None:
    found = measure_centre([np.array([1.0, 2.0], dtype=np.float32)])
    assert not decode_vector(found["centre"]).any()


def test_all_targets_and_the_default_context_are_drawn_by_default() -> None:
    prompts = PromptBank(make_plans()).draw()
    assert prompts.context.shape == (1, 4)
    assert prompts.targets.shape == (2, 8)


def test_without_a_generator_drawing_is_deterministic() -> None:
    bank = PromptBank(make_plans())
    assert all(bool((bank.draw().targets == bank.draw().targets).all()) for _ in range(5))


def test_paraphrases_are_drawn_with_a_generator_only() -> None:
    bank, rng = PromptBank(make_plans()), np.random.default_rng(0)
    plain = bank.draw().targets[0]
    assert not bool((bank.draw(rng=rng, probability=1).targets[0] == plain).all())
    assert bool((bank.draw(rng=rng, probability=0).targets[0] == plain).all())


def test_paraphrases_are_equally_probable_and_drawn_for_each_target_alone() -> None:
    plans = make_plans()
    prompts = {"liver": ["CT of liver", "the liver", "T1"], "spleen": ["CT of spleen", "the liver"]}
    plans["duplus"]["contexts"]["ct"]["target_prompts"] = prompts  # type: ignore[index]
    bank, rng = PromptBank(plans), np.random.default_rng(0)
    drawn = [tuple(text for text, _ in bank.choose(rng=rng, probability=0.3)[1]) for _ in range(5000)]
    liver, spleen = (Counter(texts) for texts in zip(*drawn, strict=True))
    assert [liver[text] / 5000 for text in prompts["liver"]] == pytest.approx([0.7, 0.15, 0.15], abs=0.02)
    assert [spleen[text] / 5000 for text in prompts["spleen"]] == pytest.approx([0.7, 0.3], abs=0.02)
    assert Counter(drawn)["CT of liver", "CT of spleen"] / 5000 == pytest.approx(0.49, abs=0.025)


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_min=True), st.integers(1, 12))
def test_a_text_is_found_for_every_random_number(number: float, probability: float, texts: int) -> None:
    assert _choose_text([str(text) for text in range(texts)], number, probability)


@given(st.floats(1e-9, 1), st.integers(2, 12))
def test_the_largest_number_below_the_probability_chooses_the_last_text(probability: float, texts: int) -> None:
    assert _choose_text([str(n) for n in range(texts)], np.nextafter(probability, 0), probability) == str(texts - 1)


@pytest.mark.parametrize("asked", ["liver", "LIVER", "Liver", "hepar", " Hepar "])
def test_a_target_is_found_by_name_label_and_synonym(asked: str) -> None:
    assert PromptBank(make_plans()).find_targets([asked]) == ["liver"]


def test_words_of_a_context_are_names_then_labels_and_synonyms() -> None:
    plans = make_plans()
    assert PromptBank(plans).words_in("ct") == ["liver", "spleen", "Liver", "hepar", "2_spleen"]
    plans["duplus"]["contexts"]["ct"]["targets"] = ["spleen"]
    assert PromptBank(plans).words_in("ct") == ["spleen", "2_spleen"]


def test_targets_come_in_the_order_of_the_dataset() -> None:
    assert PromptBank(make_plans()).find_targets(["2spleen", "liver"]) == ["liver", "spleen"]


def test_an_unknown_target_names_the_nearest_first() -> None:
    with pytest.raises(PromptError, match=r"'speen'.*'spleen'.*'liver'"):
        PromptBank(make_plans()).find_targets(["speen"])


def test_an_unknown_context_lists_all() -> None:
    with pytest.raises(PromptError, match="'ct'"):
        PromptBank(make_plans()).find_context("mr")


def test_plans_without_prompts_are_refused() -> None:
    with pytest.raises(PlansError, match="DuPLUSPlanner"):
        PromptBank({"plans_name": "nnUNetPlans"})


def test_damaged_plans_name_what_is_missing() -> None:
    plans = make_plans()
    del plans["duplus"]["embeddings"]  # type: ignore[attr-defined]
    with pytest.raises(PlansError, match="embeddings"):
        PromptBank(plans)


def test_the_form_of_plans_makes_the_same_bank() -> None:
    plans = make_plans()
    bank = PromptBank(as_form(plans))
    assert bank.entries == PromptBank(plans).entries
    assert torch.equal(bank.vectors, PromptBank(plans).vectors)
    assert bank.settings == read_settings(plans)


def test_each_embedding_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, decoded = PromptBank(make_plans()), []
    monkeypatch.setattr(standard_embeddings, "decode_vector", lambda text: decoded.append(text) or decode_vector(text))
    for _ in range(2):
        bank.draw()
        bank.vectors  # noqa: B018
    assert len(decoded) == len(bank.entries)


def test_changing_drawn_prompts_leaves_the_bank_as_it_is() -> None:
    bank = PromptBank(make_plans())
    before = bank.vectors
    prompts = bank.draw()
    prompts.context.zero_()
    prompts.targets.zero_()
    assert torch.equal(bank.vectors, before)


def test_a_prompt_without_embedding_is_named() -> None:
    plans = make_plans()
    del plans["duplus"]["embeddings"]["CT of liver"]  # type: ignore[index]
    with pytest.raises(PlansError, match="CT of liver"):
        PromptBank(plans).draw()


def test_prompts_know_the_rows_of_their_texts() -> None:
    bank = PromptBank(make_plans())
    prompts = bank.draw(targets=["spleen"])
    assert prompts.rows is not None
    context, targets = prompts.rows
    assert torch.equal(bank.vectors[context].flatten(1), prompts.context)
    assert torch.equal(bank.vectors[targets].flatten(1), prompts.targets)


def test_a_text_that_no_context_or_target_has_is_in_no_row() -> None:
    bank = PromptBank(make_plans())
    assert bank.compose("T1", [("liver", "liver")]).rows is None


def test_keys_tell_texts_and_their_kinds_apart() -> None:
    bank = PromptBank(make_plans())
    assert len(set(bank.keys.tolist())) == len(bank.entries) == 7


def test_a_target_that_a_context_has_no_prompt_for_is_refused() -> None:
    plans = make_plans()
    contexts = plans["duplus"]["contexts"]  # type: ignore[index]
    contexts["mr"] = {"sentences": ["T1"], "target_prompts": {"liver": ["CT of liver"]}}
    with pytest.raises(PromptError, match=r"'mr'.*'spleen'"):
        PromptBank(plans).draw("mr", ["spleen"])


def make_pair() -> PromptBank:
    """Two kidneys, in CT; in MR only the left one."""
    plans = make_plans()
    rename = {"liver": "left kidney", "spleen": "right kidney"}
    section: dict[str, Any] = plans["duplus"]  # type: ignore[assignment]
    for target in section["targets"]:
        target["name"] = rename[target["name"]]
    section["targets"][0]["partner"], section["targets"][1]["partner"] = "right kidney", "left kidney"
    prompts = section["contexts"]["ct"]["target_prompts"]
    section["contexts"]["ct"]["target_prompts"] = {rename[name]: texts for name, texts in prompts.items()}
    section["contexts"]["mr"] = {"sentences": ["T1 again"], "target_prompts": {"left kidney": ["CT of liver"]}}
    for old, new in rename.items():
        section["embeddings"][new] = section["embeddings"][old]
    return PromptBank(plans)


def test_in_a_mirror_image_partners_change_places() -> None:
    prompts = make_pair().draw("ct")
    assert prompts.mirrored is not None
    assert torch.equal(prompts.mirrored.targets, prompts.targets.flip(0))
    assert torch.equal(prompts.mirrored.context, prompts.context)


def test_one_side_alone_is_asked_for_by_its_partner_in_a_mirror_image() -> None:
    bank = make_pair()
    prompts = bank.draw("ct", ["left kidney"])
    assert prompts.mirrored is not None
    assert torch.equal(prompts.mirrored.targets, bank.draw("ct", ["right kidney"]).targets)


def test_without_the_partners_prompt_there_is_no_mirror_image() -> None:
    assert make_pair().draw("mr").mirrored is None


def test_targets_without_a_side_are_the_same_in_a_mirror_image() -> None:
    prompts = PromptBank(make_plans()).draw()
    assert prompts.mirrored is not None
    assert torch.equal(prompts.mirrored.targets, prompts.targets)


def test_a_batch_has_prompts_an_image_each() -> None:
    bank = make_pair()
    texts = bank.choose_batch([("ct", bank.names), ("mr", bank.names)], np.random.default_rng(0), 0.0)
    prompts = bank.compose_batch(texts)
    assert prompts.context.shape == (2, 4)
    assert prompts.targets.shape == (2, 2, 8)
    assert torch.equal(prompts.targets[0], bank.draw("ct").targets)
    assert torch.equal(prompts.targets[1, 0], bank.draw("mr").targets[0])


def test_several_contexts_need_one_to_be_named() -> None:
    with pytest.raises(PromptError, match=r"2 contexts.*'ct'.*T1.*'mr'"):
        make_pair().require_context(None)
    assert PromptBank(make_plans()).require_context(None) == "ct"


def test_without_texts_contexts_are_alike_and_targets_are_numbers() -> None:
    plans = make_plans()
    plans["duplus"]["settings"] = {"context_prompt": "none", "target_prompt": "one-hot"}  # type: ignore[index]
    bank = PromptBank(plans)
    prompts = bank.draw(rng=np.random.default_rng(0), probability=1)
    assert bank.embedding == (4, 2)
    assert not prompts.context.any()
    batch = bank.compose_batch(bank.choose_batch([("ct", bank.names)] * 2, np.random.default_rng(0), 0.5))
    assert torch.equal(batch.targets[1], prompts.targets)
    assert torch.equal(prompts.targets > 0, torch.eye(2, dtype=torch.bool))
    with pytest.raises(PromptError, match="one-hot"):
        bank.compose("T1", [("CT of liver", "ureter")])


def test_whitened_names_are_equally_far_apart() -> None:
    rng = np.random.default_rng(3)
    first, second, third = rng.normal(size=(3, 16)).astype(np.float32)
    vectors = [first, first + 0.3 * second, third]
    centre = measure_centre(vectors, whiten=True)
    plans = make_plans()
    section: dict[str, Any] = plans["duplus"]  # type: ignore[assignment]
    section["centres"] = dict.fromkeys(("context", "sentence", "name"), centre)
    section["embeddings"] = {text: encode_vector(first) for text in TEXTS}
    standardised = PromptBank(plans).standardise(torch.from_numpy(np.stack(vectors)), "name")
    apart = torch.cdist(standardised, standardised)[(0, 0, 1), (1, 2, 2)]
    torch.testing.assert_close(apart, apart[:1].expand(3), rtol=0.02, atol=0)
    assert standardised.square().mean().sqrt() == pytest.approx(2, rel=0.02)


def test_two_names_are_whitened_by_centring_alone() -> None:
    vectors = [np.array([1, 0, 2], dtype=np.float32), np.array([1, 3, 1], dtype=np.float32)]
    assert measure_centre(vectors, whiten=True)["gains"] == [1.0]
