"""Intervals over trainings and patients."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats


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


def test_two_trainings_that_differ_say_little(intervals: Any) -> None:
    row = intervals.estimate(make_scores(intervals, [[0.4] * 10, [0.42] * 10]))
    assert row["interval_95"] == pytest.approx([0.41 - 12.706 * 0.01, 0.41 + 12.706 * 0.01], abs=0.003)  # Student's t
    row = intervals.estimate(make_scores(intervals, [[0.2] * 10, [0.8] * 10]))
    assert (row["mean"], row["interval_95"]) == (0.5, [0, 1])


def test_interval_of_trainings_without_noise_is_students(intervals: Any) -> None:
    values = np.random.default_rng(4).normal(0.5, 0.02, 5)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    row = intervals.estimate(make_scores(intervals, np.tile(values[:, None], 20)))
    assert row["interval_95"] == pytest.approx([low, high], abs=0.002)


def test_interval_of_three_trainings_covers_the_truth(intervals: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "DRAWS", 400)
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        table = 0.5 + rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.05, 16) + rng.normal(0, 0.03, (3, 16))
        low, high = intervals.estimate(make_scores(intervals, table), -1.0)["interval_95"]
        covered += low <= 0.5 <= high
    assert covered >= 89


def test_coverage_is_simulated_for_both_kinds_of_interval(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = load("training_intervals")
    monkeypatch.setattr(simulation.intervals, "DRAWS", 200)
    setting = simulation.Setting(2, 8, 0.1, 0.01, 0.01)
    row = simulation.measure(setting, 40, np.random.default_rng(0))
    assert row["coverage of percentiles"] < 0.8 < row["coverage"]
    exact = simulation.measure(simulation.Setting(2, 8, 0.0, 0.0, 0.0), 2, np.random.default_rng(0))
    assert (exact["coverage"], exact["median width"]) == (1, 0)


def test_a_difference_of_strata_counts_the_trainings_of_each(intervals: Any) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0.5, 0.03, (2, 3))
    first = [
        score
        for fold in (0, 1)
        for score in make_scores(intervals, np.tile(values[fold][:, None], 30), str(fold), f"{fold}-")
    ]
    second = make_scores(intervals, [[0.4] * 30], name="other")
    row = intervals.compare(first, second)
    error = np.sqrt((values.var(axis=1, ddof=1) / 3).sum()) / 2
    assert row["mean"] == pytest.approx(values.mean() - 0.4, abs=1e-4)
    assert 1.9 * error < find_half_width(row) < 4.4 * error  # Student's t of 2 to 4 degrees of freedom, and rounding
    assert row["interval_over"] == "patients, and trainings where there are several"


def test_variance_between_trainings_is_unbiased(intervals: Any) -> None:
    trainings = np.array([0.1, 0.5, 0.9])
    draws = intervals.draw_trainings({"": "abc"}, draws=20000)
    means = draws.counts @ trainings / 3
    assert means.var() == pytest.approx(trainings.var(ddof=1) / 3, rel=0.05)


def test_interval_over_both_is_wider_than_over_either(intervals: Any) -> None:
    patients = np.random.default_rng(1).normal(0, 0.1, 30)
    trainings = np.linspace(0.5, 0.6, 12)
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
    row = intervals.compare(first, second)
    assert (row["patients"], row["left_out"]) == (2, [1, 0])


def test_images_of_a_patient_are_compared_in_pairs(intervals: Any) -> None:
    base = intervals.Score("1", "p", "liver", 0.8, "s", case="a")
    second = [base, replace(base, value=0.4, case="b"), replace(base, patient="q", value=0.6)]
    first = [replace(score, value=score.value + 0.1) for score in second]
    for row in (intervals.compare_pairs(first, second), intervals.compare(first, second)):
        assert (row["mean"], row["left_out"]) == (pytest.approx(0.1), [0, 0])
    with pytest.raises(ValueError, match="two scores"):
        intervals.compare_pairs([replace(score, case="") for score in first], second)


def test_targets_that_one_side_invents_are_counted(intervals: Any) -> None:
    first, second = make_scores(intervals, [[0.8] * 4 + [0.0] * 3]), make_scores(intervals, [[0.8] * 4])
    for row in (intervals.compare(first, second), intervals.compare_pairs(first, second)):
        assert (row["mean"], row["left_out"]) == (0, [3, 0])


def test_sources_count_alike_whatever_their_number_of_patients(intervals: Any) -> None:
    many = [intervals.Score("1", f"a{n}", "liver", 1.0, "CT") for n in range(9)]
    assert intervals.estimate([*many, intervals.Score("1", "b", "liver", 0.0, "MR")])["mean"] == 0.5


def test_no_scores_give_no_mean(intervals: Any) -> None:
    assert intervals.estimate([])["mean"] is None
