"""Intervals over trainings and patients."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def intervals(load: Callable[[str], Any]) -> Any:
    return load("intervals")


def make_scores(intervals: Any, table: Any, stratum: str = "", name: str = "") -> list[Any]:
    """Make the scores of one target from a table (trainings, patients)."""
    pairs = product(range(len(table)), range(len(table[0])))
    return [intervals.Score(f"{name}{t}", f"p{p}", "liver", float(table[t][p]), stratum=stratum) for t, p in pairs]


def find_half_width(row: dict[str, Any]) -> float:
    low, high = row["interval_95"]
    return (high - low) / 2


def test_interval_of_one_training_is_that_of_patients(intervals: Any) -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, (1, 200))
    row = intervals.estimate(make_scores(intervals, values))
    assert row["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert find_half_width(row) == pytest.approx(1.96 * values.std() / np.sqrt(200), rel=0.1)
    assert row["interval_over"].startswith("patients only")


def test_two_trainings_that_differ_span_the_interval(intervals: Any) -> None:
    row = intervals.estimate(make_scores(intervals, [[0.2] * 10, [0.8] * 10]))
    assert row["interval_95"] == [0.2, 0.8]
    assert row["mean"] == 0.5


def test_variance_between_trainings_is_unbiased(intervals: Any) -> None:
    trainings = np.array([0.1, 0.5, 0.9])
    draws = intervals.draw_trainings({"": "abc"}, draws=20000)
    means = draws.counts @ trainings / 3
    assert means.var() == pytest.approx(trainings.var(ddof=1) / 3, rel=0.05)


def test_interval_over_both_is_wider_than_over_either(intervals: Any) -> None:
    patients = np.random.default_rng(1).normal(0, 0.1, 30)
    trainings = np.array([0.5, 0.55, 0.6])
    both, one, same = (
        find_half_width(intervals.estimate(make_scores(intervals, table)))
        for table in (trainings[:, None] + patients, patients[None] + 0.5, np.tile(trainings[:, None], 30))
    )
    assert both > max(one, same)


def test_trainings_of_a_stratum_keep_their_share(intervals: Any) -> None:
    draws = intervals.draw_trainings({"0": "abc", "1": "d"}, draws=50)
    assert draws.counts[:, :3].sum(1) == pytest.approx(3)
    assert (draws.counts[:, 3] == 1).all()


def test_training_in_two_strata_is_refused(intervals: Any) -> None:
    with pytest.raises(ValueError, match="stratum"):
        intervals.draw_trainings({"0": "a", "1": "a"})


def test_difference_of_patients_in_pairs_has_no_variance(intervals: Any) -> None:
    values = np.random.default_rng(2).normal(0.5, 0.2, (1, 20))
    first, second = (make_scores(intervals, table) for table in (values + 0.1, values))
    row = intervals.compare(first, second)
    assert (row["mean"], *row["interval_95"]) == pytest.approx((0.1, 0.1, 0.1), abs=1e-4)


def test_trainings_in_pairs_cancel_and_others_do_not(intervals: Any) -> None:
    values = np.array([[0.2] * 5, [0.5] * 5, [0.8] * 5])
    first, second = (make_scores(intervals, table) for table in (values + 0.1, values))
    assert intervals.compare_pairs(first, second)["interval_95"] == pytest.approx([0.1, 0.1])
    assert find_half_width(intervals.compare(first, second)) > 0.2


def test_patients_that_one_side_lacks_are_not_compared(intervals: Any) -> None:
    first, second = make_scores(intervals, [[0.5, 0.5, 0.9]]), make_scores(intervals, [[0.4, 0.4]])
    assert intervals.compare(first, second)["patients"] == 2


def test_sources_count_alike_whatever_their_number_of_patients(intervals: Any) -> None:
    many = [intervals.Score("1", f"a{n}", "liver", 1.0, "CT") for n in range(9)]
    assert intervals.estimate([*many, intervals.Score("1", "b", "liver", 0.0, "MR")])["mean"] == 0.5


def test_no_scores_give_no_mean(intervals: Any) -> None:
    assert intervals.estimate([])["mean"] is None
