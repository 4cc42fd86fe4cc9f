"""Merging of targets, their order and their label values."""

from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.data.composing.label_values import LabelValues, assign_values
from duplus_nnunet.data.composing.source_datasets import SourceDataset
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.data.composing.targets import MergedTarget, merge_targets
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry import Entry, Target


def make_source(name: str, targets: dict[str, Any], *described: Target) -> SourceDataset:
    """Make a source of labels and their values; targets are called as their labels unless described."""
    known = {target.label: target for target in described}
    entry = Entry(name, {}, "", tuple(known.get(one, Target(one, one)) for one in targets if one != "ignore"), "a file")
    values = {label: tuple(value) if isinstance(value, list) else (value,) for label, value in targets.items()}
    return SourceDataset(name, f"Dataset001_{name}", Path(), entry, ("CT",), ".nii.gz", None, values, {}, {})


def unite(*origins: SourceDataset, **spec: Any) -> list[MergedTarget]:
    return merge_targets(origins, Spec(**spec))


def names(merged: list[MergedTarget]) -> list[str]:
    return [one.target.name for one in merged]


def assign(*origins: SourceDataset) -> LabelValues:
    return assign_values(origins, unite(*origins))


LIVER = make_source("A", {"liver": 1, "spleen": 2})


def test_targets_of_one_name_become_one() -> None:
    assert names(unite(LIVER, make_source("B", {"spleen": 1, "aorta": 2}))) == ["liver", "spleen", "aorta"]


def test_a_synonym_unites_and_both_names_are_kept() -> None:
    other = make_source("B", {"hepar": 1}, Target("hepar", "hepar", synonyms=("Liver", "jecur")))
    merged = unite(LIVER, other)
    assert names(merged) == ["liver", "spleen"]
    assert merged[0].target.synonyms == ("hepar", "jecur")
    assert merged[0].members["Dataset001_B"].label == "hepar"


def test_the_spelling_of_a_label_does_not_unite() -> None:
    first = make_source("A", {"tumor": 1}, Target("tumor", "liver tumor"))
    assert names(unite(first, make_source("B", {"tumor": 1}, Target("tumor", "kidney tumor")))) == [
        "liver tumor",
        "kidney tumor",
    ]


def test_overlapping_meanings_stay_apart_and_the_wider_comes_first() -> None:
    values = assign(make_source("A", {"left kidney": 1, "liver": 2}), make_source("B", {"kidneys": 1}))
    assert dict(values.labels) == {"background": 0, "kidneys": 1, "left kidney": 2, "liver": 3}
    assert values.class_order == [1, 2, 3]
    assert values.tables["Dataset001_A"] == {0: 0, 1: 2, 2: 3}


def test_without_overlap_there_is_no_class_order() -> None:
    assert assign(LIVER).class_order is None


def test_the_specification_renames_and_thereby_unites_or_parts() -> None:
    other = make_source("B", {"liver": 1})
    assert names(unite(LIVER, other, targets={"B": {"liver": "spleen"}})) == ["liver", "spleen"]
    merged = unite(LIVER, other, targets={"B": {"liver": "liver with tumors"}})
    assert names(merged) == ["liver", "spleen", "liver with tumors"]


def test_the_specification_leaves_targets_out() -> None:
    assert names(unite(LIVER, skip={"A": ["Spleen"]})) == ["liver"]
    with pytest.raises(DataError, match="Dataset001_A"):
        unite(LIVER, skip={"A": ["liver", "spleen"]})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"skip": {"A": ["lever"]}}, r"`skip` .*Dataset001_A: .*'lever'.*'liver'"),
        ({"skip": {"Z": ["liver"]}}, r"`skip` .*'Z'.*'Dataset001_A'"),
        ({"targets": {"A": {"lung": "x"}}}, r"`targets` .*Dataset001_A: .*'lung'"),
        ({"targets": {"A": {"liver": "Background"}}}, r"Dataset001_A: .*'Background'"),
        ({"targets": {"A": {"liver": "spleen"}}}, r"'liver' and 'spleen' of Dataset001_A"),
    ],
)
def test_what_the_specification_names_must_exist(spec: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        unite(LIVER, **spec)


def test_a_target_that_may_be_either_of_two_is_asked_about() -> None:
    other = make_source("B", {"x": 1}, Target("x", "x", synonyms=("liver", "spleen")))
    with pytest.raises(DataError, match=r"'x' of Dataset001_B .*'liver' or 'spleen'.*targets: {Dataset001_B: {x:"):
        unite(LIVER, other)


def test_partners_of_different_sources_find_each_other() -> None:
    merged = unite(make_source("A", {"left kidney": 1}), make_source("B", {"right kidney": 1}))
    assert [one.target.partner for one in merged] == ["right kidney", "left kidney"]


def test_partners_follow_a_new_name() -> None:
    pair = (Target("L", "left eye", partner="right eye"), Target("R", "right eye", partner="left eye"))
    merged = unite(make_source("A", {"L": 1, "R": 2}, *pair), targets={"A": {"L": "oculus sinister"}})
    assert [one.target.partner for one in merged] == ["right eye", "oculus sinister"]


def test_one_source_that_leaves_a_target_out_is_enough_to_say_so() -> None:
    other = make_source("B", {"liver": 1}, Target("liver", "liver", missing="not annotated"))
    assert unite(LIVER, other)[0].target.missing == "not annotated"


def test_regions_keep_a_value_for_each_set_of_targets() -> None:
    kits = make_source("K", {"kidney": [1, 2, 3], "mass": [2, 3], "tumor": 2})
    values = assign(make_source("A", {"tumor": 1, "liver": 2}), kits)
    assert dict(values.labels) == {"background": 0, "kidney": [1, 2, 4], "mass": [2, 4], "tumor": [3, 4], "liver": 5}
    assert values.class_order == [1, 2, 4, 5]
    assert values.tables["Dataset001_K"] == {0: 0, 1: 1, 2: 4, 3: 2}


def test_the_ignore_label_stays_the_last() -> None:
    values = assign(LIVER, make_source("B", {"liver": 1, "ignore": 2}))
    assert values.labels["ignore"] == 3
    assert values.tables["Dataset001_B"] == {0: 0, 1: 1, 2: 3}
    assert values.largest == 3


def test_a_skipped_label_becomes_background() -> None:
    values = assign_values([LIVER], unite(LIVER, skip={"A": ["liver"]}))
    assert values.tables["Dataset001_A"] == {0: 0, 1: 0, 2: 1}
