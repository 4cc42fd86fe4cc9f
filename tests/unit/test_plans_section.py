"""Differences between plans."""

from duplus_nnunet.plans_section import find_differences


def test_equal_plans_have_no_differences() -> None:
    before = {"patch": (1, 2), "intensities": {0: {"mean": 1.0}}, "none": None}
    now = {"patch": [1, 2], "intensities": {"0": {"mean": 1.0}}}
    assert list(find_differences(before, now)) == []


def test_differences_name_the_keys_that_lead_there() -> None:
    before = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": 1}
    now = {"a": {"b": 2, "c": [1, {"d": 3}]}, "f": 1}
    assert list(find_differences(before, now, "plans")) == [
        ("plans.a.b", 1, 2),
        ("plans.a.c", [1, {"d": 2}], [1, {"d": 3}]),
        ("plans.e", 1, None),
        ("plans.f", None, 1),
    ]
