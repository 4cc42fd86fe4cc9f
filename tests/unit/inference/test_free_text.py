"""Targets in the user's own words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.errors import EncoderError, PromptError
from duplus_nnunet.inference import free_text
from duplus_nnunet.inference.binding import BoundModel, bind
from duplus_nnunet.inference.free_text import describe_reading, find_free_value, find_known, read_texts
from duplus_nnunet.inference.model import LoadedModel, ModelRecord
from duplus_nnunet.inference.selection import Selection
from duplus_nnunet.prompt_bank import PromptBank, encode_vector
from duplus_nnunet.prompt_registry.identity import EncoderIdentity
from duplus_nnunet.reporting.presence import PresenceCalibration

E = 6
CT, MR = "computed tomography", "magnetic resonance imaging"
IDENTITY = EncoderIdentity("tiny", "mean", "a" * 64, E)
LABELS = {"background": 0, "liver": 1, "kidney_l": 2, "ignore": 3}
NEW = "A computed tomography of the renal pelvis"


def vector_of(text: str) -> np.ndarray:
    vector = np.random.default_rng(sum(map(ord, text))).normal(size=E)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def prompts_in(modality: str) -> dict[str, list[str]]:
    return {
        "liver": [f"A {modality} of liver", f"A {modality} of hepar", f"outline of the liver on {modality}"],
        "left kidney": [f"A {modality} of left kidney", f"the left one in {modality}"],
    }


@pytest.fixture
def plans() -> dict[str, Any]:
    """Two contexts, two targets, embeddings of six numbers."""
    contexts = {
        key: {"modality": modality, "sentences": [f"A {modality} of abdomen"], "target_prompts": prompts_in(modality)}
        for key, modality in (("ct", CT), ("mr", MR))
    }
    texts = ["liver", "left kidney"]
    for context in contexts.values():
        texts += [*context["sentences"], *(text for many in context["target_prompts"].values() for text in many)]
    return {
        "plans_name": "Test",
        "duplus": {
            "version": 1,
            "default_context": "ct",
            "contexts": contexts,
            "targets": [
                {"name": "liver", "label": "liver", "synonyms": ["hepar"], "partner": None},
                {"name": "left kidney", "label": "kidney_l", "synonyms": [], "partner": None},
            ],
            "encoder": IDENTITY.to_dict(),
            "centres": {
                kind: {"centre": encode_vector(np.zeros(E)), "scale": 1.0} for kind in ("context", "sentence", "name")
            },
            "embeddings": {text: encode_vector(vector_of(text)) for text in texts},
        },
    }


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the text encoder; list what it was asked for."""
    asked: list[str] = []

    def embed(texts: Sequence[str], encoder: str | None, expected: EncoderIdentity) -> tuple[np.ndarray, Any]:
        assert expected == IDENTITY
        asked.extend(texts)
        return np.stack([vector_of(text) for text in texts]), expected

    monkeypatch.setattr(free_text, "embed", embed)
    return asked


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("LIVER", "liver"),
        ("hepar", "liver"),
        ("kidney-l", "left kidney"),
        ("A computed tomography of  liver", "liver"),
        ("outline of the LIVER on computed tomography", "liver"),
        ("the left one in magnetic resonance imaging", "left kidney"),
        ("A computed tomography of the left kidney.", "left kidney"),
        ("the liver", "liver"),
    ],
)
def test_a_text_by_which_a_target_goes_is_that_target(
    plans: dict[str, Any], encoded: list[str], text: str, name: str
) -> None:
    reading = read_texts(PromptBank(plans), LABELS, "ct", [text])
    assert list(reading.known.values()) == [name]
    assert not reading.new
    assert not encoded


def test_a_new_text_is_encoded_as_typed_beside_its_bare_name(plans: dict[str, Any], encoded: list[str]) -> None:
    (target,) = read_texts(PromptBank(plans), LABELS, "ct", [NEW]).new
    assert (target.text, target.sentence, target.name) == (NEW, NEW, "renal pelvis")
    assert encoded == [NEW, "renal pelvis"]


def test_a_name_alone_is_put_into_the_contexts_sentence(plans: dict[str, Any], encoded: list[str]) -> None:
    (target,) = read_texts(PromptBank(plans), LABELS, "mr", ["the renal pelvis"]).new
    assert (target.sentence, target.name) == (f"A {MR} of renal pelvis", "renal pelvis")
    assert encoded == [target.sentence, target.name]


def test_a_sentence_of_no_known_wording_stands_for_both(plans: dict[str, Any], encoded: list[str]) -> None:
    text = "on computed tomography: renal pelvis"
    (target,) = read_texts(PromptBank(plans), LABELS, "ct", [text]).new
    assert (target.sentence, target.name) == (text, text)
    assert encoded == [text]


def test_new_label_values_follow_the_largest_one_the_ignore_label_included(
    plans: dict[str, Any], encoded: list[str]
) -> None:
    reading = read_texts(PromptBank(plans), LABELS, "ct", ["ureter", "liver", "renal pelvis", "URETER"])
    assert [(target.text, target.value) for target in reading.new] == [("ureter", 4), ("renal pelvis", 5)]
    assert find_free_value({"background": 0, "whole": [1, 7], "core": 2}) == 8


def test_two_texts_that_are_encoded_alike_are_one_target(plans: dict[str, Any], encoded: list[str]) -> None:
    reading = read_texts(PromptBank(plans), LABELS, "ct", ["ureter", "A computed tomography of ureter"])
    assert [target.text for target in reading.new] == ["ureter"]


def test_nearest_known_targets_come_first(plans: dict[str, Any], encoded: list[str]) -> None:
    (target,) = read_texts(PromptBank(plans), LABELS, "ct", ["ureter"]).new
    names, cosines = zip(*target.nearest, strict=True)
    assert sorted(names) == ["left kidney", "liver"]
    assert list(cosines) == sorted(cosines, reverse=True)
    sentence = vector_of(target.sentence) @ vector_of(f"A {CT} of liver")
    assert dict(target.nearest)["liver"] == pytest.approx(
        (sentence + vector_of("ureter") @ vector_of("liver")) / 2, abs=2e-3
    )


@pytest.mark.parametrize("text", ["", "  ", "-", "..."])
def test_an_empty_text_is_refused(plans: dict[str, Any], text: str) -> None:
    with pytest.raises(PromptError, match=r"2 of 2.*--prompt"):
        read_texts(PromptBank(plans), LABELS, "ct", ["ureter", text])


@pytest.mark.parametrize("text", ["background", "Ignore"])
def test_words_that_nnunet_keeps_for_itself_are_refused(plans: dict[str, Any], text: str) -> None:
    with pytest.raises(PromptError, match=f"(?i){text}.*dataset.json"):
        read_texts(PromptBank(plans), LABELS, "ct", [text])


def test_a_text_that_may_mean_two_targets_is_refused(plans: dict[str, Any]) -> None:
    for name in ("liver", "left kidney"):
        plans["duplus"]["contexts"]["ct"]["target_prompts"][name].append("the big one")
    plans["duplus"]["embeddings"]["the big one"] = encode_vector(vector_of("the big one"))
    with pytest.raises(PromptError, match=r"'the big one'.*'liver', 'left kidney'"):
        find_known(PromptBank(plans), "ct", "the big one")


def test_the_contexts_own_wording_wins_over_that_of_another(plans: dict[str, Any]) -> None:
    contexts = plans["duplus"]["contexts"]
    contexts["ct"]["target_prompts"]["liver"].append("the big one")
    contexts["mr"]["target_prompts"]["left kidney"].append("the big one")
    plans["duplus"]["embeddings"]["the big one"] = encode_vector(vector_of("the big one"))
    assert find_known(PromptBank(plans), "ct", "the big one") == "liver"
    assert find_known(PromptBank(plans), "mr", "the big one") == "left kidney"


def test_a_label_value_that_nnunet_cannot_hold_is_refused(plans: dict[str, Any], encoded: list[str]) -> None:
    with pytest.raises(PromptError, match="32768"):
        read_texts(PromptBank(plans), {**LABELS, "last": 32767}, "ct", ["ureter"])


def test_without_the_models_own_encoder_the_remedy_is_said(
    plans: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUPLUS_EMBEDDINGS", str(tmp_path))
    plans["duplus"]["encoder"]["name"] = "./moved"
    with pytest.raises(EncoderError, match=r"(?s).*'ureter'.*'./moved'.*--encoder"):
        read_texts(PromptBank(plans), LABELS, "ct", ["ureter"])


def test_plans_that_name_no_encoder_are_refused(plans: dict[str, Any]) -> None:
    del plans["duplus"]["encoder"]
    with pytest.raises(EncoderError, match="name, pooling, sha256, dimension"):
        read_texts(PromptBank(plans), LABELS, "ct", ["ureter"])


def test_what_became_of_each_text_is_said(plans: dict[str, Any], encoded: list[str]) -> None:
    said = describe_reading(read_texts(PromptBank(plans), LABELS, "ct", ["hepar", NEW]), {"liver": 1, "left kidney": 2})
    assert "'hepar' is the known target 'liver' (label value 1)." in said
    assert f"{NEW!r} was not seen in training; its label value is 4." in said
    assert "nearest known targets" in said


def ask(plans: dict[str, Any], selection: Selection, dataset_json: dict[str, Any] | None = None) -> BoundModel:
    """Bind a model of these plans, without a network, to a selection."""
    plans = {**plans, "label_manager": "DuPLUSLabelManager"}
    configuration = ConfigurationManager({"architecture": {}, "spacing": [1.0, 1.0, 1.0]})
    record = ModelRecord("MODEL", ("0",), {}, {})
    calibration = PresenceCalibration({}, ())
    labels = dataset_json or {"labels": LABELS}
    predictor: Any = None
    model = LoadedModel(predictor, PlansManager(plans), configuration, labels, PromptBank(plans), record, calibration)
    return bind(model, selection)


def make_label_manager(bound: BoundModel) -> Any:
    return bound.model.plans.get_label_manager(bound.declare_all())


def test_texts_are_bound_after_the_targets_asked_for(plans: dict[str, Any], encoded: list[str]) -> None:
    bound = ask(plans, Selection(("kidney_l",), "ct", (NEW, "left kidney")))
    assert bound.declare_all()["labels"] == {"background": 0, "kidney_l": 2, NEW: 4}
    assert make_label_manager(bound).num_segmentation_heads == 2
    prompts = bound.first.prompts
    assert prompts.targets.shape == (2, 2 * E)
    np.testing.assert_allclose(prompts.targets[1], np.r_[vector_of(NEW), vector_of("renal pelvis")], atol=1e-3)
    assert NEW not in plans["duplus"]["embeddings"]


def test_a_text_of_neither_side_is_the_same_in_a_mirror_image(plans: dict[str, Any], encoded: list[str]) -> None:
    plans["duplus"]["contexts"]["ct"]["targets"] = ["liver"]
    bound = ask(plans, Selection(("liver",), "ct", (NEW,)))
    prompts = bound.first.prompts
    assert prompts.mirrored is not None
    assert bool((prompts.mirrored.targets == prompts.targets).all())


def test_a_target_without_partner_decides_for_those_beside_it_asked_for_or_not(plans: dict[str, Any]) -> None:
    assert ask(plans, Selection(("liver",), "ct")).first.prompts.mirrored is None
    assert ask(plans, Selection(("liver", "left kidney"), "ct")).first.prompts.mirrored is None


def test_a_text_of_one_side_leaves_the_mirroring_of_the_others_unchanged(
    plans: dict[str, Any], encoded: list[str]
) -> None:
    plans["duplus"]["contexts"]["ct"]["targets"] = ["liver"]
    question = ask(plans, Selection(("liver",), "ct", ("left ureter", NEW))).first
    assert [target.text for target in question.reading.new] == [NEW, "left ureter"]
    assert [target.value for target in question.reading.new] == [5, 4]
    assert [group.count for group in question.groups] == [2, 1]
    assert [group.mirrored is None for group in question.groups] == [False, True]


def test_a_text_alone_is_predicted_alone(plans: dict[str, Any], encoded: list[str]) -> None:
    bound = ask(plans, Selection(prompts=(NEW,), context="ct"))
    assert bound.declare_all()["labels"] == {"background": 0, NEW: 4}


def test_without_a_selection_all_targets_are_bound(plans: dict[str, Any]) -> None:
    bound = ask(plans, Selection(context="ct"))
    assert bound.declare_all()["labels"] == {"background": 0, "liver": 1, "kidney_l": 2}


def test_an_unknown_target_is_told_of_free_text(plans: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=r"(?s)'ureter'.*--prompt"):
        ask(plans, Selection(("ureter",), "ct"))


def test_a_known_text_is_bound_as_the_target_itself(plans: dict[str, Any]) -> None:
    first = ask(plans, Selection(("liver",), "ct"))
    second = ask(plans, Selection((), "ct", ("outline of the liver on computed tomography",)))
    assert first.declare_all() == second.declare_all()
    assert bool((first.first.prompts.targets == second.first.prompts.targets).all())


def test_a_new_target_competes_with_the_others_by_probability(plans: dict[str, Any], encoded: list[str]) -> None:
    bound = ask(plans, Selection(("liver",), "ct", (NEW,)))
    logits = np.array([[2.0, 1.0, -1.0], [1.0, 2.0, -2.0]], dtype=np.float32).reshape(2, 1, 1, 3)
    assert make_label_manager(bound).convert_logits_to_segmentation(logits).ravel().tolist() == [1, 4, 0]


def test_where_regions_overlap_a_new_target_is_written_last(plans: dict[str, Any], encoded: list[str]) -> None:
    labels = {"background": 0, "liver": [1, 2], "kidney_l": 2}
    bound = ask(plans, Selection(("kidney_l",), "ct", (NEW,)), {"labels": labels, "regions_class_order": [1, 2]})
    assert bound.declare_all()["regions_class_order"] == [2, 3]
    probabilities = np.full((2, 1, 1, 1), 0.9, dtype=np.float32)
    assert make_label_manager(bound).convert_probabilities_to_segmentation(probabilities).item() == 3


def test_the_legend_gives_each_value_its_text(plans: dict[str, Any], encoded: list[str]) -> None:
    bound = ask(plans, Selection(("liver",), "MR", (NEW,)))
    legend = bound.declare_all()["duplus"]
    assert (legend["context"], legend["context_prompt"]) == ("mr", f"A {MR} of abdomen")
    assert legend["legend"] == {"1": "liver", "4": NEW}
    assert legend["not_seen_in_training"][NEW]["name"] == "renal pelvis"


def test_a_new_text_is_refused_where_the_encoder_learned_with_the_network(
    plans: dict[str, Any], encoded: list[str]
) -> None:
    plans["duplus"]["settings"] = {"text_adapter": {"enabled": True}}
    assert read_texts(PromptBank(plans), LABELS, "ct", ["hepar"]).known == {"hepar": "liver"}
    with pytest.raises(EncoderError, match=rf"(?s){NEW}.*settings\.text_adapter.*--list-targets"):
        read_texts(PromptBank(plans), LABELS, "ct", [NEW])
    assert not encoded
