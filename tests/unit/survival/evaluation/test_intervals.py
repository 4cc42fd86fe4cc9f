"""Confidence intervals: the two standard errors, averages, differences and skill."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from duplus_nnunet.survival.evaluation.intervals import (
    Estimate,
    Value,
    average_estimates,
    average_seeds,
    conclude,
    estimate_score,
)
from duplus_nnunet.survival.evaluation.metrics import Sums, concordance
from duplus_nnunet.survival.records.outcome import Outcome


def make_sums(seed: int, patients: int = 12) -> Sums:
    rng = np.random.default_rng(seed)
    return Sums(rng.random(patients), np.ones(patients))


def estimate(seed: int = 0, ratio: float = 0.25) -> Estimate:
    """Five folds of twelve patients, whose score is a mean."""
    sums = [make_sums(10 * seed + number) for number in range(5)]
    return estimate_score(sums, [range(12 * number, 12 * number + 12) for number in range(5)], 60, ratio)


def test_the_score_of_evaluated_patients_alone_has_the_error_of_a_mean() -> None:
    values = np.concatenate([make_sums(number).top for number in range(5)])
    one = estimate(ratio=0.0)
    assert one.value == pytest.approx(values.mean())
    assert one.standard_error() == (pytest.approx(values.std(ddof=1) / math.sqrt(60)), math.inf)
    half = 1.959964 * values.std(ddof=1) / math.sqrt(60)
    assert one.summarise().interval == pytest.approx((values.mean() - half, values.mean() + half))


def test_the_corrected_resampled_error_is_that_of_nadeau_and_bengio() -> None:
    """Two folds that differ far more than their patients: 1/J + n2/n1 times the variance between folds."""
    sums = [Sums(np.full(6, level), np.ones(6)) for level in (0.2, 0.4, 0.9)]
    one = estimate_score(sums, [range(6), range(6, 12), range(12, 18)], 18, 0.5)
    spread = np.var([0.2, 0.4, 0.9], ddof=1)
    assert one.standard_error() == (pytest.approx(math.sqrt((1 / 3 + 0.5) * spread)), 2.0)
    half = stats.t.ppf(0.975, 2) * math.sqrt((1 / 3 + 0.5) * spread)
    assert one.summarise().interval == pytest.approx((0.5 - half, 0.5 + half))


def test_the_interval_is_not_narrower_than_by_the_patients() -> None:
    same = [Sums(np.array([0.0, 1.0]), np.ones(2))] * 5
    one = estimate_score(same, [[2 * number, 2 * number + 1] for number in range(5)], 10, 0.25)
    assert one.standard_error()[0] == pytest.approx(np.std([0, 1] * 5, ddof=1) / math.sqrt(10))


def test_pairs_change_with_both_of_their_patients() -> None:
    """The influence is the derivative by the weight of a patient: here by doubling one of many."""
    rng = np.random.default_rng(0)
    outcome, risk = Outcome(rng.random(400) < 0.6, rng.exponential(9, 400)), rng.normal(size=400)
    one = estimate_score([concordance(outcome, risk)], [range(400)], 400, 0.0)
    for row in (3, 50, 200):
        rows = [*range(400), row]
        twice = concordance(outcome.take(rows), risk[rows])
        change = twice.top.sum() / twice.bottom.sum() - one.value
        assert change == pytest.approx(one.influence[row], abs=0.03 * np.abs(one.influence).max())


def test_seeds_are_averaged_patient_by_patient() -> None:
    both = average_estimates([estimate(0), estimate(1)])
    assert both.value == pytest.approx((estimate(0).value + estimate(1).value) / 2)
    np.testing.assert_allclose(both.influence, (estimate(0).influence + estimate(1).influence) / 2)
    assert both.standard_error()[1] == 8


def test_a_method_does_not_differ_from_itself_and_differences_are_paired() -> None:
    one = estimate()
    assert one.subtract(one).summarise() == Value(0.0, (0.0, 0.0))
    shifted = Estimate(one.value + 0.1, one.influence, one.folds, one.ratio)
    assert shifted.subtract(one).summarise().interval == pytest.approx((0.1, 0.1))


def test_skill_is_relative_to_kaplan_meier() -> None:
    rows = {name: {"integrated Brier": [estimate(seed)]} for name, seed in (("Cox", 1), ("Kaplan-Meier", 2))}
    scores, differences = conclude(average_seeds(rows), "Cox")
    skill = scores["Cox"]["Brier skill"]
    assert skill.value == pytest.approx(1 - estimate(1).value / estimate(2).value)
    assert scores["Kaplan-Meier"]["Brier skill"] == Value(0.0, (0.0, 0.0))
    assert differences["Kaplan-Meier"]["Brier skill"].interval == pytest.approx(skill.interval)


@pytest.mark.parametrize(("value", "interval"), [(0.97, True), (1.0, False), (math.nan, False)])
def test_a_concordance_stays_between_0_and_1(value: float, interval: Any) -> None:
    one = Estimate(value, np.full(30, 0.01), (np.zeros(5),))
    low, high = one.summarise(is_share=True).interval or (0.5, 0.5)
    assert (one.summarise(is_share=True).interval is not None) == interval
    assert 0 < low <= high < 1
    least = Estimate(0.01, np.full(30, 0.01), (np.zeros(5),)).summarise(least=0.0).interval
    assert least is not None
    assert least[0] == 0.0
