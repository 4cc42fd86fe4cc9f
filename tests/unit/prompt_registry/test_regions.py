"""Texts are read as levels of the body, and levels that are far apart do not meet in one image."""

import pytest

from duplus_nnunet.prompt_registry.regions import EVERY_LEVEL, can_meet, check_region, find_levels, join_levels

LEGS = {"thigh", "lower leg", "foot"}


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("head and neck", {"head", "neck"}),
        ("Left Thigh", {"thigh"}),
        ("chest, abdomen and pelvis", {"thorax", "abdomen", "pelvis"}),
        ("heart", {"thorax"}),
        ("kidneys", {"abdomen"}),
        ("extremities", {"arm", *LEGS}),
        ("lower extremities", LEGS),
        ("right lower leg", {"lower leg"}),
        ("feet", {"foot"}),
        ("whole body", set(EVERY_LEVEL)),
        ("anywhere", set(EVERY_LEVEL)),
    ],
)
def test_a_text_names_levels(text: str, levels: set[str]) -> None:
    assert find_levels(text) == levels


@pytest.mark.parametrize(
    "text", ["body", "", "abdomen with contrast", "upper and lower extremities", "and", "the left"]
)
def test_of_a_text_with_an_unknown_word_nothing_can_be_said(text: str) -> None:
    assert find_levels(text) is None


def test_texts_are_joined_only_if_all_are_known() -> None:
    assert join_levels(["thorax", "abdomen"]) == {"thorax", "abdomen"}
    assert join_levels(["thorax", "body"]) is None
    assert join_levels([]) is None


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("head", "head", True),
        ("head", "neck", True),
        ("head", "thorax", False),
        ("abdomen", "thorax", True),
        ("abdomen", "thigh", False),
        ("pelvis", "thigh", True),
        ("arm", "neck", True),
        ("arm", "thigh", True),
        ("arm", "head", False),
        ("arm", "lower leg", False),
        ("whole body", "foot", True),
        ("head", "extremities", False),
    ],
)
def test_a_field_of_view_reaches_over_to_adjacent_levels(one: str, other: str, meet: bool) -> None:
    first, second = find_levels(one), find_levels(other)
    assert first is not None
    assert second is not None
    assert can_meet(first, second) == can_meet(second, first) == meet


def test_an_unknown_part_of_the_body_is_refused_with_the_known_levels() -> None:
    with pytest.raises(ValueError, match="'thorax'"):
        check_region("thorx")
