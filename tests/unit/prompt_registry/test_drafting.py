"""Entries drafted from a dataset.json, and the file with comments for the user to review."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.prompt_registry import Context, Entry, Target, draft_entry, entry_texts, find_entry
from duplus_nnunet.prompt_registry.draft_file import write_draft
from duplus_nnunet.prompt_registry.drafting import guess_modality
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.registry_file import check_registry_file
from duplus_nnunet.prompt_registry.store import SHIPPED_FOLDER, read_store

PHANTOM = ("left kidney", "right kidney", "liver", "spleen", "stomach", "aorta", "spine")

LABELS = [
    "kidney_l",
    "kidney_r",
    "left kidney",
    "lk",
    "rk",
    "right_kidney",
    "lt_kidney",
    "kidney",
    "IVC",
    "postcava",
    "inferior vena cava",
    "gm",
    "gray matter",
    "lens",
    "lens of the eye",
    "lens_l",
    "lens_r",
    "left lens",
    "parotid",
    "parotis",
    "parotid gland",
    "Brain Stem",
    "brain_stem_l",
    "optic nerve",
    "optic nerve_l",
    "optic nerve_r",
    "LV",
    "left ventricle",
    "l",
    "r",
    "left",
    "right",
    "la",
    "left atrium",
    "adrenal",
    "adrenal_gland",
]


def labelled(*names: str, channel: str = "CT") -> dict[str, Any]:
    return {"channel_names": {"0": channel}, "labels": {"background": 0} | {n: i + 1 for i, n in enumerate(names)}}


@pytest.mark.parametrize(
    ("channels", "modality"),
    [
        (["CT"], "computed tomography"),
        (["PET"], "positron emission tomography"),
        (["MRI"], "magnetic resonance imaging"),
        (["T1"], "magnetic resonance imaging"),
        (["T1ce"], "magnetic resonance imaging"),
        (["cineMRI"], "magnetic resonance imaging"),
        (["FLAIR", "T1w", "t1gd", "T2w"], "magnetic resonance imaging"),
        (["CT", "PET"], "computed tomography and positron emission tomography"),
        (["noNorm"], "medical image"),
        (["nonCT"], "medical image"),
        (["CT", "something"], "medical image"),
        ([], "medical image"),
    ],
)
def test_channels_tell_the_modality(channels: list[str], modality: str) -> None:
    assert guess_modality(channels) == modality


def test_a_draft_says_that_it_is_one() -> None:
    entry = draft_entry("Dataset501_Phantom", labelled("liver"), "/raw/Dataset501_Phantom")
    assert entry.origin == "drafted from /raw/Dataset501_Phantom/dataset.json"


def test_a_draft_has_one_context_of_the_unknown_region() -> None:
    entry = draft_entry("Dataset501_Phantom", labelled("liver"), None)
    assert entry.default_context == "phantom_ct"
    assert entry.contexts["phantom_ct"].prompt == "A computed tomography of body"


def test_a_draft_pairs_left_and_right() -> None:
    entry = draft_entry("Dataset501_Phantom", labelled("kidney_left", "kidney_right"), None)
    assert [(target.name, target.partner) for target in entry.targets] == [
        ("left kidney", "right kidney"),
        ("right kidney", "left kidney"),
    ]


def test_a_draft_keeps_the_labels_of_dataset_json() -> None:
    entry = draft_entry("Dataset501_Phantom", labelled("SpinalCord"), None)
    assert (entry.targets[0].label, entry.targets[0].name) == ("SpinalCord", "spinal cord")


def test_labels_that_would_read_alike_keep_their_own_names() -> None:
    entry = draft_entry("Dataset501_Phantom", labelled("postcava", "IVC"), None)
    assert [target.name for target in entry.targets] == ["postcava", "IVC"]


@given(st.lists(st.sampled_from(LABELS), min_size=1, unique_by=normalise))
def test_drafted_names_are_distinct(labels: list[str]) -> None:
    names = [target.name for target in draft_entry("Dataset501_Phantom", labelled(*labels), None).targets]
    assert len({normalise(name) for name in names}) == len(labels)


def test_a_phantom_needs_no_encoder() -> None:
    (path,) = SHIPPED_FOLDER.glob("*.npz")
    store = read_store(path)
    texts = entry_texts(draft_entry("Dataset501_Phantom", labelled(*PHANTOM), None))
    assert [text for text in texts if text not in store] == []


@pytest.mark.parametrize("channel", ["CT", "MRI", "odd"])
@pytest.mark.parametrize("name", ["Dataset501_Phantom", "Dataset502_No", "Dataset503_1: #x"])
def test_a_drafted_file_is_clean_and_says_the_same(tmp_path: Path, channel: str, name: str) -> None:
    dataset_json = labelled("kidney_left", "kidney_right", "lung_left", "yes", "odd: name, [x]", "7", channel=channel)
    entry = draft_entry(name, dataset_json, None)
    (tmp_path / "prompts.yaml").write_text(write_draft(entry), encoding="utf-8")
    _, problems = check_registry_file(tmp_path / "prompts.yaml")
    assert problems == ()
    again = find_entry(name, dataset_json, tmp_path)
    assert (again.contexts, again.targets) == (entry.contexts, entry.targets)


def test_a_drafted_file_marks_what_to_review() -> None:
    text = write_draft(draft_entry("Dataset501_Phantom", labelled("SpinalCord", "lung_left", channel="odd"), None))
    marked = [line for line in text.splitlines() if "# review" in line]
    for part in ("source:", "missing:", "modality:", "region:", "spinal cord:", "partner: none"):
        assert any(part in line for line in marked), part


def test_a_file_from_a_full_entry_loses_nothing(tmp_path: Path) -> None:
    context = Context("c", "ultrasound", "neck", "own T1", ("para",), "US", ("neck", "head"))
    target = Target("lab", "thing", ("other thing",), None, "not annotated", ("see {modality}",), ("lower leg",))
    entry = Entry("Demo", {"c": context}, "c", (target, Target("b", "b")), "here", "a paper")
    (tmp_path / "prompts.yaml").write_text(write_draft(entry), encoding="utf-8")
    again = find_entry("Demo", labelled("lab", "b", channel="US"), tmp_path)
    assert (again.contexts, again.targets, again.source) == (entry.contexts, entry.targets, entry.source)
