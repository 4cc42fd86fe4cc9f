"""Prompts that travel in the plans."""

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import PlansError, PromptError
from duplus_nnunet.prompt_bank import PromptBank, decode_vector, encode_vector, measure_centre

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


@pytest.mark.parametrize("asked", ["liver", "LIVER", "Liver", "hepar", " Hepar "])
def test_a_target_is_found_by_name_label_and_synonym(asked: str) -> None:
    assert PromptBank(make_plans()).find_targets([asked]) == ["liver"]


def test_targets_come_in_the_order_of_the_dataset() -> None:
    assert PromptBank(make_plans()).find_targets(["2spleen", "liver"]) == ["liver", "spleen"]


def test_an_unknown_target_names_the_nearest_first() -> None:
    with pytest.raises(PromptError, match=r"Did you mean 'spleen'\?.*'liver'"):
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
    with pytest.raises(PromptError, match="In the context 'mr': Unknown target 'spleen'"):
        PromptBank(plans).draw("mr")
