"""The context of each case comes from rules; where these do not tell, it is refused and not guessed."""

from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import RegistryError
from duplus_nnunet.prompt_registry import find_entry
from duplus_nnunet.prompt_registry.case_contexts import find_case_contexts, fits, name_channels
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target
from duplus_nnunet.prompt_registry.registry_file import check_registry_file, load_registry_file
from duplus_nnunet.prompt_registry.schema import read_ids

AMOS = (
    "spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "arota", "postcava",
    "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate/uterus",
)  # fmt: skip
CHAOS = ("liver", "right kidney", "left kidney", "spleen")


def make_entry(*contexts: Context) -> Entry:
    return Entry("Dataset001_A", {c.name: c for c in contexts}, contexts[0].name, (Target("liver", "liver"),), "a.yaml")


def make(name: str, **options: Any) -> Context:
    return Context(name, "computed tomography", "abdomen", "A CT.", **options)


def find_shipped(dataset: str, labels: tuple[str, ...], channel: str) -> Entry:
    names = {"background": 0, **{name: value for value, name in enumerate(labels, start=1)}}
    return find_entry(dataset, {"channel_names": {"0": channel}, "labels": names})


def test_one_context_without_rules_is_that_of_all_cases() -> None:
    assert find_case_contexts(make_entry(make("a")), ["x", "y_1"], ["CT"]) == {"x": "a", "y_1": "a"}


@pytest.mark.parametrize(
    ("cases", "ids", "identifier", "expected"),
    [
        ((), ((1, 500),), "amos_0500", True),
        ((), ((1, 500),), "amos_0501", False),
        ((), ((1, 5), (9, 9)), "a_9", True),
        ((), ((1, 500),), "amos", False),
        ((), ((1, 500),), "2022_amos_0507", False),
        (("ct_.*",), (), "ct_1", True),
        (("ct_1",), (), "ct_17", False),
        (("ct_.*",), ((1, 2),), "ct_3", False),
        ((), (), "anything", False),
    ],
)
def test_a_name_fits_by_pattern_and_by_number(
    cases: tuple[str, ...], ids: tuple[tuple[int, int], ...], identifier: str, expected: bool
) -> None:
    assert fits(make("a", cases=cases, ids=ids), identifier) is expected


def test_several_contexts_without_rules_are_refused() -> None:
    with pytest.raises(RegistryError, match=r"(?s)'a'.*'b'.*'case_1'.*ids"):
        find_case_contexts(make_entry(make("a"), make("b")), ["case_1"], ["CT"])


def test_a_case_that_fits_no_context_is_refused() -> None:
    entry = make_entry(make("a", ids=((1, 5),)), make("b", ids=((6, 9),)))
    with pytest.raises(RegistryError, match=r"1 of 2 cases fit no context.*'x_10'"):
        find_case_contexts(entry, ["x_1", "x_10"], ["CT"])


def test_a_case_that_fits_two_contexts_is_refused() -> None:
    entry = make_entry(make("a", ids=((1, 5),)), make("b", cases=("x.*",)))
    with pytest.raises(RegistryError, match=r"1 of 2 cases fit more than one context.*'x_1'"):
        find_case_contexts(entry, ["x_1", "x_7"], ["CT"])


def test_a_dataset_of_several_channels_has_the_context_of_all_of_them() -> None:
    entry = make_entry(make("both"), make("ct", channel="CT"), make("pet", channel="PET"))
    assert find_case_contexts(entry, ["x"], ["CT", "PET"]) == {"x": "both"}


@pytest.mark.parametrize("channel", ["either_CT_or_MR", "nonCT"])
def test_amos_is_told_by_its_numbers(channel: str) -> None:
    entry = find_shipped("Dataset219_AMOS2022_postChallenge_task2", AMOS, channel)
    assert find_case_contexts(entry, ["amos_0410", "amos_0507"], [channel]) == {
        "amos_0410": "amos_ct", "amos_0507": "amos_mr",
    }  # fmt: skip
    assert entry.contexts["amos_mr"].not_annotated == ("bladder", "prostate or uterus")


def test_mr_cases_of_amos_in_a_dataset_of_ct_are_refused() -> None:
    entry = find_shipped("Dataset219_AMOS2022_postChallenge_task2", AMOS, "CT")
    with pytest.raises(RegistryError, match="'amos_0507'"):
        find_case_contexts(entry, ["amos_0410", "amos_0507"], ["CT"])


def test_the_sequences_of_chaos_are_told_by_case_names() -> None:
    entry = find_shipped("Dataset038_CHAOS_Task_3_5_Variant2", CHAOS, "MRI")
    found = find_case_contexts(entry, ["T1_in_1", "T1_out_1", "T2_1", "chaos_T2"], ["MRI"])
    assert list(found.values()) == ["chaos_t1_in", "chaos_t1_out", "chaos_t2", "chaos_t2"]
    with pytest.raises(RegistryError, match="'MR_7'"):
        find_case_contexts(entry, ["T2_1", "MR_7"], ["MRI"])


def test_a_channel_that_names_the_sequence_needs_no_rule() -> None:
    entry = find_shipped("Dataset039_CHAOS", CHAOS, "T1_out")
    assert find_case_contexts(entry, ["MR_7"], ["T1_out"]) == {"MR_7": "chaos_t1_out"}


@pytest.mark.parametrize(
    ("channel", "own", "expected"),
    [("either_CT_or_MR", "CT", "CT"), ("nonCT", "CT", "CT"), ("MRI", "CT", "MRI"), ("image", None, "image")],
)
def test_a_channel_of_no_modality_gets_the_contexts_own_name(channel: str, own: str | None, expected: str) -> None:
    assert name_channels(make("a", channel=own), [channel]) == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"), [("1-500", (1, 500)), ("07", (7, 7)), (507, (507, 507)), ("3 - 4", (3, 4))]
)
def test_ranges_of_numbers_are_read(text: str | int, expected: tuple[int, int]) -> None:
    assert read_ids(text) == expected


RULES = """\
dataset: Demo
contexts:
  ct: {{modality: computed tomography, region: abdomen, {}}}
targets: {{left kidney: , right kidney: }}
"""


def test_rules_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(RULES.format("cases: [a, b.*], ids: [1-5, 9], not_annotated: [LEFT KIDNEY]"))
    context = load_registry_file(file).contexts["ct"]
    assert (context.cases, context.ids) == (("a", "b.*"), ((1, 5), (9, 9)))
    assert context.not_annotated == ("left kidney",)


@pytest.mark.parametrize("rule", ["cases: ['(']", "ids: [5-1]", "ids: [x]", "not_annotated: [liver]"])
def test_a_wrong_rule_is_named_with_its_line(tmp_path: Path, rule: str) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(RULES.format(rule))
    read, problems = check_registry_file(file)
    assert read is None
    assert [problem.line for problem in problems] == [3]
