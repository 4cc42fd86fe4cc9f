"""Calibration of predicted survival: agreement with other programs, known truths, and edge cases."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.survival.evaluation.calibration import (
    HeldOutSurvival,
    average_slopes,
    calibrate,
    group,
    measure_excess,
    measure_slope,
    observe_survival,
    observe_with_interval,
)
from duplus_nnunet.survival.evaluation.intervals import Value
from duplus_nnunet.survival.evaluation.partial_likelihood import PartialLikelihood
from duplus_nnunet.survival.records.outcome import Outcome

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "calibration_slopes.json").read_text(encoding="utf-8"))


def hold_out(outcome: Outcome, survival: Any, fold: Any) -> HeldOutSurvival:
    return HeldOutSurvival(outcome, np.asarray(survival, float), np.asarray(fold, float), np.arange(len(outcome)))


def make_held_out(count: int = 400, seed: int = 0, factor: float = 1.0, ties: bool = False) -> HeldOutSurvival:
    """Draw patients whose log-hazard is x; predictions assume `factor` times x."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=count)
    event, censoring = rng.exponential(100 * np.exp(-x)), rng.exponential(200, count)
    time = np.minimum(event, censoring) + 0.5
    if ties:
        time = np.ceil(time / 20) * 20
    survival = np.exp(-np.outer(np.exp(factor * x), [0.4, 0.8]))
    return hold_out(Outcome(event <= censoring, time), survival, rng.integers(0, 2, count))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("horizon", [20.0, 60.0, 150.0])
def test_observed_survival_is_kaplan_meier_of_scikit_survival(horizon: float, ties: bool) -> None:
    nonparametric = pytest.importorskip("sksurv.nonparametric")
    outcome = make_held_out(80, 1, ties=ties).outcome
    times, curve = nonparametric.kaplan_meier_estimator(outcome.event, outcome.time)
    expected = np.concatenate([[1.0], curve])[np.searchsorted(times, horizon, side="right")]
    assert observe_survival(outcome, horizon)[0] == pytest.approx(expected, abs=1e-12)
    value, interval = observe_with_interval(outcome, horizon)
    assert value == pytest.approx(expected, abs=1e-12)
    assert interval is not None
    assert interval[0] < expected < interval[1]


@pytest.mark.parametrize("ties", [False, True])
def test_a_slope_is_the_coefficient_of_a_cox_model(ties: bool) -> None:
    linear_model = pytest.importorskip("sksurv.linear_model")
    held = make_held_out(120, 2, ties=ties)
    held = hold_out(held.outcome, held.survival, np.zeros(120))
    horizon = 80.0
    until = Outcome(held.outcome.event & (held.outcome.time <= horizon), np.minimum(held.outcome.time, horizon))
    x = np.log(-np.log(np.clip(held.survival[:, 0], 0.001, 0.999)))[:, None]
    expected = linear_model.CoxPHSurvivalAnalysis(ties="breslow", tol=1e-12).fit(x, until.to_sksurv()).coef_[0]
    assert measure_slope(held, 0, horizon)[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_slopes_and_their_errors_are_those_of_lifelines(case: dict[str, Any]) -> None:
    outcome = Outcome(np.array(case["event"]), np.array(case["time"]))
    held_out = hold_out(outcome, np.array(case["survival"])[:, None], case["fold"])
    slope, influence = measure_slope(held_out, 0, case["horizon"])
    assert slope == pytest.approx(case["slope"], abs=1e-6)
    assert math.sqrt(np.square(influence).sum()) == pytest.approx(case["robust standard error"], abs=1e-6)


@pytest.mark.parametrize("measure", [measure_excess, measure_slope])
@pytest.mark.parametrize("late", [False, True])
def test_the_influence_of_a_patient_is_the_effect_of_doubling_the_patient(measure: Any, late: bool) -> None:
    """To first order: the error of the linear term falls with the square of the number of patients."""
    held_out = make_held_out(1200, 3, ties=True)
    if late:
        entry = held_out.outcome.time * np.random.default_rng(1).integers(0, 3, 1200) / 4
        held_out = replace(held_out, outcome=replace(held_out.outcome, entry=entry))
    value, influence = measure(held_out, 1, 80.0)
    for row in np.argsort(-np.abs(influence))[[0, 5, 50, 500]]:
        rows = [*range(1200), int(row)]
        twice = hold_out(held_out.outcome.take(rows), held_out.survival[rows], held_out.fold[rows])
        assert measure(twice, 1, 80.0)[0] - value == pytest.approx(influence[row], abs=0.03 * np.abs(influence).max())


def test_the_score_never_rises_and_residuals_add_up_to_it() -> None:
    held_out = make_held_out(60, 8, ties=True)
    likelihood = PartialLikelihood(np.random.default_rng(0).normal(size=60) * 5, held_out.outcome)
    slopes = np.linspace(-20, 20, 81)
    scores = [likelihood.differentiate(slope)[0] for slope in slopes]
    assert (np.diff(scores) <= 1e-9).all()
    for slope, score in zip(slopes[::20], scores[::20], strict=True):
        assert likelihood.find_residuals(slope).sum() == pytest.approx(score, abs=1e-8)
        step = (likelihood.differentiate(slope + 1e-5)[0] - likelihood.differentiate(slope - 1e-5)[0]) / 2e-5
        assert -step == pytest.approx(likelihood.differentiate(slope)[1], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("factor", "low", "high"), [(1.0, 0.8, 1.25), (2.0, 0.4, 0.65), (0.5, 1.6, 2.5)])
def test_the_slope_is_below_1_for_predictions_that_are_too_extreme(factor: float, low: float, high: float) -> None:
    held_out = make_held_out(800, 4, factor)
    assert low < measure_slope(held_out, 0, 200.0)[0] < high


def test_correct_probabilities_are_neither_too_high_nor_too_low() -> None:
    held_out = make_held_out(800, 5)
    # exp(-e^x t / 100) is predicted for 40 and 80 days
    right = calibrate([held_out], [40.0, 80.0], 0.0)
    for one in right:
        assert one.excess.interval is not None
        assert one.excess.interval[0] < 0 < one.excess.interval[1]
        assert one.slope.interval is not None
        assert one.slope.interval[0] < 1 < one.slope.interval[1]
    low = calibrate([hold_out(held_out.outcome, held_out.survival**2, held_out.fold)], [40.0, 80.0], 0.0)
    assert all(one.excess.interval is not None and one.excess.interval[0] > 0.05 for one in low)


def test_constant_predictions_have_no_slope_and_a_perfect_order_the_steepest() -> None:
    outcome = Outcome(np.ones(20, bool), np.arange(1.0, 21.0))
    # Predictions differ between folds, not within them.
    flat = hold_out(outcome, np.repeat([[0.3], [0.6]], 10, axis=0), np.repeat([0.0, 1.0], 10))
    assert math.isnan(measure_slope(flat, 0, 15.0)[0])
    ordered = hold_out(outcome, np.linspace(0.1, 0.9, 20)[:, None], np.zeros(20))
    assert measure_slope(ordered, 0, 15.0)[0] == 20
    assert calibrate([ordered], [15.0], 0.25)[0].slope == Value(20.0, None)
    none = hold_out(Outcome(np.zeros(20, bool), outcome.time), ordered.survival, ordered.fold)
    assert math.isnan(measure_slope(none, 0, 15.0)[0])


@pytest.mark.parametrize(
    ("slopes", "mean"), [((1.0, 2.0), 1.5), ((1.0, 20.0), 20.0), ((-20.0, 1.0), -20.0), ((-20.0, 20.0), math.nan)]
)
def test_a_slope_that_diverges_in_one_seed_has_no_mean(slopes: tuple[float, float], mean: float) -> None:
    np.testing.assert_equal(average_slopes(slopes), mean)


def test_groups_are_of_equal_size_and_include_all_patients() -> None:
    pytest.importorskip("sksurv")
    held_out = make_held_out(90, 6)
    groups = group(held_out, 0, 60.0)
    assert [one.patients for one in groups] == [18] * 5
    predicted = [one.predicted for one in groups]
    assert predicted == sorted(predicted)
    assert np.average(predicted) == pytest.approx(held_out.survival[:, 0].mean())
    assert len(group(make_held_out(20), 0, 60.0)) == 2
    flat = hold_out(held_out.outcome, np.full((90, 1), 0.5), held_out.fold)
    assert [one.patients for one in group(flat, 0, 60.0)] == [90]


def test_intervals_with_all_or_no_events_are_exact_and_absent_beyond_the_follow_up() -> None:
    pytest.importorskip("sksurv")
    time = np.arange(1.0, 11.0)
    free = Outcome(np.zeros(10, bool), time + 10)
    assert observe_with_interval(free, 5.0) == (1.0, (pytest.approx(0.025 ** (1 / 10)), 1.0))
    assert observe_with_interval(free, 99.0) == (None, None)
    had = Outcome(np.ones(10, bool), time)
    assert observe_with_interval(had, 99.0) == (0.0, (0.0, pytest.approx(1 - 0.025 ** (1 / 10))))
