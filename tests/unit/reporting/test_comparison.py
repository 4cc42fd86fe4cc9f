"""Differences of two sets of scores."""

import math
from dataclasses import replace

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.case_scores import CaseScore, TargetScore
from duplus_nnunet.reporting.comparison import compare, to_plain


def make_cases(gain: float = 0.0, targets: tuple[str, ...] = ("liver", "spleen")) -> dict[str, CaseScore]:
    """Make ten cases that differ much from each other."""
    cases = {}
    for number in range(10):
        dice = 0.1 + 0.07 * number + gain
        scores = {target: TargetScore(dice, dice, present=True, predicted=True) for target in targets}
        cases[str(number)] = CaseScore("ct", str(number), (1.0, 1.0, 1.0), scores)
    return cases


def find(comparison: object, target: str) -> object:
    return next(each.mean for each in comparison.differences if (each.target, each.metric) == (target, "dice"))


def test_constant_gain_has_an_interval_without_width() -> None:
    mean = find(compare(make_cases(0.1), make_cases()), "liver")
    assert mean.value == pytest.approx(0.1)
    assert mean.interval == pytest.approx((0.1, 0.1))


def test_difference_changes_sign_with_the_order() -> None:
    first, second = make_cases(0.1), make_cases()
    for target in ("spleen", "(mean over targets)"):
        assert find(compare(first, second), target).value == -find(compare(second, first), target).value


def test_only_what_both_have_is_compared() -> None:
    fewer = {name: case for name, case in make_cases(0.1, ("liver",)).items() if name != "3"}
    comparison = compare(fewer, make_cases())
    assert (comparison.pairs, comparison.left_out) == (9, 11)
    assert {each.target for each in comparison.differences} == {"liver", "(mean over targets)"}


def test_value_that_one_lacks_is_no_difference() -> None:
    rejected = TargetScore(math.nan, math.nan, present=False, predicted=False)
    wrong = TargetScore(0.0, 0.0, present=False, predicted=True)
    ours, theirs = (
        {name: replace(case, targets={**case.targets, "spleen": score}) for name, case in make_cases(gain).items()}
        for gain, score in ((0.1, rejected), (0.0, wrong))
    )
    comparison = compare(ours, theirs)
    assert math.isnan(find(comparison, "spleen").value)
    assert find(comparison, "(mean over targets)").value == pytest.approx(0.1)
    assert to_plain(comparison)["differences"][1]["difference"] is None


def test_over_all_targets_each_target_of_a_source_counts_as_one() -> None:
    both, single = make_cases(0.1), {f"mr{name}": case for name, case in make_cases(0.4, ("liver",)).items()}
    others = {**make_cases(), **{f"mr{name}": case for name, case in make_cases(0.0, ("liver",)).items()}}
    others = {name: replace(case, source="mr" if name in single else "ct") for name, case in others.items()}
    single = {name: replace(case, source="mr") for name, case in single.items()}
    found = {(each.source, each.metric): each.mean.value for each in compare({**both, **single}, others).differences}
    assert found["(mean over sources)", "dice"] == pytest.approx((0.1 + 0.4) / 2)
    assert found["(all sources)", "dice"] == pytest.approx((0.1 + 0.1 + 0.4) / 3)


def test_nothing_in_common_says_what_there_is() -> None:
    with pytest.raises(DataError, match=r"'0' of 'ct' with liver.*with kidney"):
        compare(make_cases(targets=("liver",)), make_cases(targets=("kidney",)))


def test_other_references_are_refused() -> None:
    other = make_cases()
    absent = TargetScore(0.0, 0.0, present=False, predicted=True)
    other["4"] = replace(other["4"], targets={**other["4"].targets, "liver": absent})
    with pytest.raises(DataError, match=r"'4'.*'liver'"):
        compare(make_cases(), other)


def test_other_patients_are_refused() -> None:
    other = make_cases()
    other["4"] = replace(other["4"], patient="x")
    with pytest.raises(DataError, match=r"(?s)'4'.*patient '4'.*'x'"):
        compare(make_cases(), other)
