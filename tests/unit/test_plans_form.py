"""Plans edited by hand: what cannot be used is named, with its place."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_form import as_form, parse_section
from duplus_nnunet.prompt_bank import encode_vector, measure_centre

TEXTS = ("T1", "T2 liver", "T2 spleen", "liver", "spleen")
VECTOR = np.ones(4, dtype=np.float32)
SECTION: dict[str, Any] = {
    "version": 1,
    "default_context": "ct",
    "contexts": {"ct": {"sentences": ["T1"], "target_prompts": {"liver": ["T2 liver"], "spleen": ["T2 spleen"]}}},
    "targets": [{"name": "liver", "label": "1"}, {"name": "spleen", "label": "2"}],
    "centres": dict.fromkeys(("context", "sentence", "name"), measure_centre([VECTOR])),
    "embeddings": dict.fromkeys(TEXTS, encode_vector(VECTOR)),
    "left_right_axis": 2,
}


def test_what_planning_writes_is_read() -> None:
    form = parse_section(SECTION, "Test")
    assert (form.plans_name, form.default_context, form.left_right_axis) == ("Test", "ct", 2)
    assert form.contexts["ct"].target_prompts == {"liver": ["T2 liver"], "spleen": ["T2 spleen"]}
    assert [target.label for target in form.targets] == ["1", "2"]


def test_keys_that_are_not_known_are_kept() -> None:
    section = copy.deepcopy({**SECTION, "notes": "mine"})
    section["contexts"]["ct"]["scanner"] = {"field": 3.0}
    assert parse_section(section, "Test").model_dump(exclude_unset=True) == section


def test_every_target_with_a_prompt_is_trained_unless_some_are_listed() -> None:
    section = copy.deepcopy(SECTION)
    assert parse_section(section, "Test").contexts["ct"].trained == ["liver", "spleen"]
    section["contexts"]["ct"]["targets"] = []
    assert parse_section(section, "Test").contexts["ct"].trained == []


def test_older_plans_have_no_implausible_targets() -> None:
    section = copy.deepcopy(SECTION)
    assert parse_section(section, "Test").contexts["ct"].implausible == []
    section["contexts"]["ct"] |= {"targets": ["liver"], "implausible": ["spleen"]}
    assert parse_section(section, "Test").contexts["ct"].implausible == ["spleen"]


def test_a_form_is_not_validated_again() -> None:
    form = as_form({"plans_name": "Test", "duplus": SECTION})
    assert as_form(form) is form


def test_entries_of_a_joined_model_come_first() -> None:
    entries = [["name", "spleen"], ["context", "another"]]
    form = parse_section({**SECTION, "entries": entries}, "Test")
    assert form.list_entries()[:3] == [("name", "spleen"), ("context", "another"), ("context", "T1")]
    assert len(form.list_entries()) == len(TEXTS) + 1


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    r"duplus\.targets: .*found 'liver'": lambda s: s.update(targets="liver"),
    r"duplus\.targets: .*found \[\]": lambda s: s.update(targets=[]),
    r"duplus\.targets\.0\.label is missing": lambda s: s["targets"][0].pop("label"),
    r"duplus\.contexts: .*found \[\]": lambda s: s.update(contexts=[]),
    r"duplus\.contexts\.ct\.sentences: .*found 'T1'": lambda s: s["contexts"]["ct"].update(sentences="T1"),
    r"default_context is 'mr'.*'ct'": lambda s: s.update(default_context="mr"),
    r"duplus\.contexts\.ct\.implausible: 'lung' is no target": lambda s: s["contexts"]["ct"].update(
        implausible=["lung"]
    ),
    r"duplus\.contexts\.ct\.implausible: 'liver' is trained": lambda s: s["contexts"]["ct"].update(
        targets=["liver"], implausible=["spleen", "liver"]
    ),
    r"duplus\.left_right_axis: .*found 'x'": lambda s: s.update(left_right_axis="x"),
    r"duplus\.left_right_axis: .*found 3": lambda s: s.update(left_right_axis=3),
    r"duplus\.orientation: .*found 'LPL'": lambda s: s.update(orientation="LPL"),
    r"duplus\.orientation: .*found 'LP'": lambda s: s.update(orientation="LP"),
    r"duplus\.targets: .* name 'liver'": lambda s: s["targets"][1].update(name="liver"),
    r"duplus\.targets: .* label '1'": lambda s: s["targets"][1].update(label="1"),
    r"contexts: .*'spleen'": lambda s: s["contexts"]["ct"]["target_prompts"].pop("spleen"),
    r"embeddings .*'liver, again'": lambda s: s["contexts"]["ct"]["target_prompts"]["liver"].append("liver, again"),
    r"'liver' .*0 .*4": lambda s: s["embeddings"].update(liver="%%%"),
    r"'liver' .*2 .*4": lambda s: s["embeddings"].update(liver=encode_vector(VECTOR[:2])),
    r"duplus\.centres\.name is missing": lambda s: s["centres"].pop("name"),
    r"duplus\.centres\.name\.scale: .*found 'x'": lambda s: s["centres"]["name"].update(scale="x"),
    r"centres\.name\.directions .*4": lambda s: s["centres"]["name"].update(gains=[1.0], directions="AAA="),
    r"sources\.A\.weight: .*found -1": lambda s: s.update(sources={"A": {"context": "ct", "weight": -1}}),
    r"sources\.A\.context is 'mr'.*'ct'": lambda s: s.update(sources={"A": {"context": "mr", "weight": 1}}),
    r"duplus\.sources: .*weight": lambda s: s.update(sources={"A": {"context": "ct", "weight": 0}}),
    r"contexts\.ct\.spacing": lambda s: s["contexts"]["ct"].update(spacing=[1.0, 1.0]),
    r"duplus\.setting is unknown; did you mean 'settings'": lambda s: s.update(setting={"epochs": 7}),
    r"duplus\.epochs is a setting": lambda s: s.update(epochs=7),
    r"contexts\.ct\.spacings .*'spacing'": lambda s: s["contexts"]["ct"].update(spacings=[1, 1, 1]),
    r"targets\.1\.synonym .*'synonyms'": lambda s: s["targets"][1].update(synonym=["milt"]),
    r"sources\.A\.weights .*'weight'": lambda s: s.update(sources={"A": {"context": "ct", "weight": 1, "weights": 2}}),
    r"ct\.targets: 'lung'": lambda s: s["contexts"]["ct"].update(targets=["lung"]),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_change_is_named_with_its_place(message: str) -> None:
    section = copy.deepcopy(SECTION)
    WRONG[message](section)
    with pytest.raises(PlansError, match=rf"'Test'.*{message}"):
        parse_section(section, "Test")


def test_of_many_problems_the_first_are_shown_and_the_others_counted() -> None:
    section = {**SECTION, "embeddings": {"another": encode_vector(VECTOR)}}
    with pytest.raises(PlansError, match=r"\b2 more"):
        parse_section(section, "Test")
