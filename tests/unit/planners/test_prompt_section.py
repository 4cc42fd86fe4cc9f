"""Plans list the targets that images of a context cannot show, and hold their prompts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.planners import prompt_section
from duplus_nnunet.planners.prompt_section import build_section
from duplus_nnunet.planners.report import describe_plans, report_plans
from duplus_nnunet.prompt_registry import Context, Entry, Target
from duplus_nnunet.prompt_registry.embedding import embed
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER

LABELS = {"background": 0, "stem": 1, "tumor": 2}
BRAIN, LIVER = Target("stem", "brainstem"), Target("tumor", "liver")
ANNOTATED = {"brain_mr": ["brainstem"], "abdomen_pet": ["liver"]}


def make_entry(*targets: Target) -> Entry:
    contexts = {
        "brain_mr": Context("brain_mr", "magnetic resonance imaging", "brain", "A magnetic resonance imaging of brain"),
        "abdomen_pet": Context(
            "abdomen_pet", "positron emission tomography", "abdomen", "A positron emission tomography of abdomen"
        ),
    }
    return Entry("D", contexts, "brain_mr", targets or (BRAIN, LIVER), "here", "")


def list_implausible(section: dict[str, Any]) -> dict[str, list[str]]:
    return {name: context.get("implausible", []) for name, context in section["contexts"].items()}


@pytest.fixture
def without_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only prompts of the brainstem in PET be missing from the store."""

    def fail(texts: list[str]) -> Any:
        if "A positron emission tomography of brainstem" in texts:
            raise EncoderError("There is no text encoder.")
        return embed(texts)

    store = [{"A positron emission tomography of brainstem"}]
    monkeypatch.setattr(prompt_section, "embed", fail)
    monkeypatch.setattr(prompt_section, "find_store", lambda *_: Missing(*store))


class Missing:
    """A store that holds all texts but some."""

    def __init__(self, texts: set[str]) -> None:
        self.texts = texts

    def __contains__(self, text: str) -> bool:
        return text not in self.texts


def test_targets_of_other_regions_are_implausible() -> None:
    section = build_section(make_entry(), LABELS, ANNOTATED)
    assert list_implausible(section) == {"brain_mr": ["liver"], "abdomen_pet": ["brainstem"]}


def test_a_dataset_of_one_context_gets_no_such_key() -> None:
    entry = make_entry()
    alone = replace(entry, contexts={"brain_mr": entry.contexts["brain_mr"]}, targets=(BRAIN,))
    section = build_section(alone, {"background": 0, "stem": 1}, {"brain_mr": ["brainstem"]})
    assert "implausible" not in section["contexts"]["brain_mr"]


def test_a_target_that_shares_a_value_with_an_annotated_one_is_left_out() -> None:
    section = build_section(make_entry(), {"background": 0, "stem": [1, 2], "tumor": 2}, ANNOTATED)
    assert list_implausible(section) == {"brain_mr": [], "abdomen_pet": []}


def test_annotations_win_against_regions_and_a_note_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    entry = make_entry(replace(BRAIN, regions=("foot",)), LIVER)
    assert list_implausible(build_section(entry, LABELS, ANNOTATED))["brain_mr"] == ["liver"]
    assert "'brainstem'" in capsys.readouterr().err


def test_an_implausible_target_has_a_prompt_in_the_modality_of_the_context() -> None:
    prompts = build_section(make_entry(), LABELS, ANNOTATED)["contexts"]["abdomen_pet"]["target_prompts"]
    assert prompts["brainstem"][0] == "A positron emission tomography of brainstem"


@pytest.mark.usefixtures("without_encoder")
def test_without_an_encoder_only_the_prompts_that_cannot_be_embedded_are_left_out() -> None:
    section = build_section(make_entry(), LABELS, ANNOTATED)
    prompts = {name: list(context["target_prompts"]) for name, context in section["contexts"].items()}
    assert prompts == {"brain_mr": ["brainstem", "liver"], "abdomen_pet": ["liver"]}


def test_the_report_lists_them() -> None:
    section = build_section(make_entry(), LABELS, ANNOTATED)
    section["sources"] = {
        "B": {"context": "abdomen_pet", "weight": 1.0, "targets": {"liver": 3}, "median_shape": [8] * 3}
    }
    plans = {
        "plans_name": "Test",
        "transpose_forward": [0, 1, 2],
        "configurations": {"3d_fullres": {"patch_size": [8] * 3, "batch_size": 2, "spacing": [1.0] * 3}},
        "duplus": section,
    }
    assert report_plans(plans)["3d_fullres"]["sources"]["B"]["implausible"] == ["brainstem"]
    assert "brainstem" in describe_plans(plans).splitlines()[-1]


def list_wordings(section: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        name: {target: len(texts) for target, texts in context["target_prompts"].items()}
        for name, context in section["contexts"].items()
    }


def embed_anything(texts: list[str]) -> Any:
    return np.random.default_rng(0).normal(size=(len(texts), DEFAULT_ENCODER.dimension)), DEFAULT_ENCODER


@pytest.mark.parametrize(
    ("most", "annotated", "others"), [(24, 6, 6), (23, 6, 1), (14, 6, 1), (13, 5, 1), (6, 2, 1), (5, 2, 0), (0, 1, 0)]
)
def test_plans_have_fewer_wordings_where_all_would_be_too_large(
    most: int, annotated: int, others: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prompt_section, "_MOST_BYTES", most * 2 * DEFAULT_ENCODER.dimension)
    monkeypatch.setattr(prompt_section, "embed", embed_anything)
    section = build_section(make_entry(), LABELS, ANNOTATED)
    expected = {
        "brain_mr": {"brainstem": annotated, "liver": others},
        "abdomen_pet": {"brainstem": others, "liver": annotated},
    }
    assert list_wordings(section) == {
        name: {target: count for target, count in counts.items() if count} for name, counts in expected.items()
    }
    first = section["contexts"]["brain_mr"]["target_prompts"]["brainstem"]
    assert first[0] == "A magnetic resonance imaging of brainstem"
    assert len(set(first)) == annotated
    assert ("too large" in capsys.readouterr().err) == (others < 6)


def test_a_target_keeps_its_wordings_in_all_contexts_of_the_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_section, "_MOST_BYTES", 14 * 2 * DEFAULT_ENCODER.dimension)
    monkeypatch.setattr(prompt_section, "embed", embed_anything)
    entry = make_entry()
    contexts = {**entry.contexts, "neck_mr": replace(entry.contexts["brain_mr"], name="neck_mr", region="neck")}
    section = build_section(replace(entry, contexts=contexts), LABELS, {**ANNOTATED, "neck_mr": ["liver"]})
    prompts = {name: context["target_prompts"] for name, context in section["contexts"].items()}
    assert prompts["neck_mr"] == prompts["brain_mr"]
