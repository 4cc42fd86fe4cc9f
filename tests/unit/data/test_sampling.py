"""Cases are drawn by the weight of their source."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.sampling import default_weight, measure_shares, repeat_cases
from duplus_nnunet.errors import PlansError


def make_cases(**counts: int) -> dict[str, Case]:
    return {
        f"{source}{number}": Case(source, f"{source}{number}", ("x",), ("x",))
        for source, count in counts.items()
        for number in range(count)
    }


def measure_sources(cases: dict[str, Case], drawn: list[str]) -> dict[str, float]:
    counts = Counter(cases[name].source for name in drawn)
    return {source: count / len(drawn) for source, count in counts.items()}


def test_two_hundred_cases_do_not_drown_ten() -> None:
    cases = make_cases(a=200, b=10)
    weights = {
        source: default_weight([case for case in cases.values() if case.source == source]) for source in ("a", "b")
    }
    share = measure_sources(cases, repeat_cases(measure_shares(cases, weights)))["b"]
    assert share == pytest.approx(10**0.5 / (10**0.5 + 200**0.5), rel=0.05)


def test_a_source_with_seven_targets_is_drawn_more_often_than_one_with_a_single_target() -> None:
    many = [Case("many", str(number), tuple("abcdefg"), ()) for number in range(40)]
    partial = [Case("many", "x", ("a",), ()), Case("many", "y", (), ())]
    assert default_weight(many) == pytest.approx(280**0.5)
    assert default_weight(make_cases(one=40).values()) == pytest.approx(40**0.5)
    assert default_weight(partial) == pytest.approx(2**0.5)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 10), st.floats(0.1, 10))
def test_sources_are_drawn_by_their_weights(first: int, second: int, a: float, b: float) -> None:
    cases = make_cases(a=first, b=second)
    shares = measure_shares(cases, {"a": a, "b": b})
    assert sum(shares.values()) == pytest.approx(1)
    assert measure_sources(cases, repeat_cases(shares))["a"] == pytest.approx(a / (a + b), rel=0.13)


def test_one_source_is_drawn_evenly_and_each_case_once() -> None:
    cases = make_cases(a=7)
    assert repeat_cases(measure_shares(cases, {"a": 3.0})) == list(cases)


def test_a_weight_of_zero_leaves_a_source_out() -> None:
    cases = make_cases(a=2, b=2)
    assert repeat_cases(measure_shares(cases, {"a": 1.0, "b": 0.0})) == ["a0", "a1"]


def test_the_weight_of_a_source_without_cases_does_not_count() -> None:
    assert sum(measure_shares(make_cases(a=2), {"a": 1.0, "gone": 9.0}).values()) == pytest.approx(1)


def test_a_case_with_a_rare_target_is_drawn_more_often_but_not_without_bound() -> None:
    cases = make_cases(a=100) | {"rare": Case("a", "rare", ("x", "y"), ("x", "y"))}
    shares = measure_shares(cases, {"a": 1.0})
    assert shares["rare"] == pytest.approx(3 * shares["a0"])


def test_a_case_without_any_target_is_still_drawn() -> None:
    cases = make_cases(a=2) | {"empty": Case("a", "empty", ("x",), ())}
    assert "empty" in repeat_cases(measure_shares(cases, {"a": 1.0}))


def test_cases_of_sources_without_weight_alone_are_refused() -> None:
    with pytest.raises(PlansError, match="'A'"):
        measure_shares(make_cases(A=2), {"A": 0, "B": 1})
    assert measure_shares({}, {"A": 0}) == {}
