"""Cumulative incidence, concordance and Brier score with competing events are those of their formulas."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from duplus_nnunet.survival.evaluation.calibration import (
    HeldOutSurvival,
    measure_slope,
    observe_survival,
    observe_with_interval,
)
from duplus_nnunet.survival.evaluation.incidence import (
    estimate_incidence,
    observe_incidence,
    observe_with_limits,
    weigh_at_risk,
)
from duplus_nnunet.survival.evaluation.metrics import brier_score, concordance, ipcw_weights, pool
from duplus_nnunet.survival.evaluation.partial_likelihood import PartialLikelihood
from duplus_nnunet.survival.records.outcome import Outcome

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "competing_risks.json").read_text(encoding="utf-8"))["data"]
NAMED = pytest.mark.parametrize("golden", GOLDEN, ids=[entry["name"] for entry in GOLDEN])


def read(golden: dict[str, Any]) -> Outcome:
    cause = np.array(golden["cause"])
    return Outcome(cause == 1, np.array(golden["time"]), None, cause == 2)


def draw(count: int, seed: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    cause = rng.integers(0, 3, count)
    return Outcome(cause == 1, np.ceil(rng.exponential(8, count)), None, cause == 2)


@NAMED
def test_cumulative_incidence_is_that_of_scikit_survival(golden: dict[str, Any]) -> None:
    incidence = estimate_incidence(read(golden))
    np.testing.assert_allclose(incidence.at(np.array(golden["times"])), golden["incidence"], atol=1e-12)
    assert (incidence.low <= incidence.values).all()
    assert (incidence.high >= incidence.values).all()


def test_cumulative_incidence_without_competing_events_is_one_less_kaplan_meier() -> None:
    outcome = Outcome(np.array([True, True, False, True]), np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(estimate_incidence(outcome).values, [0.25, 0.5, 1.0])


def test_one_less_kaplan_meier_exceeds_the_cumulative_incidence() -> None:
    outcome = draw(60)
    censored = Outcome(outcome.event, outcome.time)
    assert estimate_incidence(censored).values[-1] > estimate_incidence(outcome).values[-1] + 0.1


@pytest.mark.parametrize("late", [False, True])
def test_the_influence_is_the_derivative_with_respect_to_the_weight_of_a_patient(late: bool) -> None:
    outcome, copies = draw(30), 400
    if late:
        entry = np.where(outcome.time > 3, 2.0, 0.0)
        entry[:3] = 0.0
        outcome = Outcome(outcome.event, outcome.time, entry, outcome.competing)
    value, influence = observe_incidence(outcome, 9.0)
    many = np.repeat(np.arange(len(outcome)), copies)
    for row in (0, 5, 11, 29):
        changed, _ = observe_incidence(outcome.take(np.append(many, row)), 9.0)
        assert (changed - value) * copies == pytest.approx(influence[row], abs=2e-3)


def test_limits_agree_with_those_of_scikit_survival_to_two_digits() -> None:
    nonparametric = pytest.importorskip("sksurv.nonparametric")
    outcome = read(GOLDEN[1])
    times, values, limits = nonparametric.cumulative_incidence_competing_risks(
        outcome.causes, outcome.time, conf_type="log-log"
    )
    row = int(np.searchsorted(times, 0.4, side="right")) - 1
    value, interval = observe_with_limits(outcome, 0.4)
    assert value == pytest.approx(1 - values[1][row])
    assert interval == pytest.approx((1 - limits[1, 1, row], 1 - limits[1, 0, row]), abs=0.01)
    assert observe_with_interval(outcome, 0.4) == (value, interval)


def test_beyond_the_follow_up_nothing_is_known_and_no_event_has_an_exact_limit() -> None:
    outcome = Outcome(np.zeros(10, bool), np.arange(1.0, 11.0), None, np.arange(10) == 0)
    assert observe_with_limits(outcome, 11.0) == (None, None)
    assert observe_with_limits(outcome, 5.5) == (1.0, (pytest.approx(0.025 ** (1 / 5)), 1.0))


def test_the_product_over_weighted_risk_sets_is_the_aalen_johansen_estimate() -> None:
    outcome = draw(50, 3)
    times, had = np.unique(outcome.time[outcome.event], return_counts=True)
    product = 1 - np.cumprod(1 - had / weigh_at_risk(outcome, times).sum(0))
    np.testing.assert_allclose(product, estimate_incidence(outcome).at(times), atol=1e-12)


@NAMED
def test_concordance_and_brier_score_are_those_of_their_formulas(golden: dict[str, Any]) -> None:
    outcome, risk = read(golden), np.array(golden["risk"])
    assert pool([concordance(outcome, risk)]) == pytest.approx(golden["wolbers"], abs=1e-12)
    weights = ipcw_weights(outcome, outcome, np.inf)
    weighted = pool([concordance(outcome, risk, weights**2)])
    assert weighted == pytest.approx(golden["weighted"], abs=1e-12)
    survival, times = 1 - np.array(golden["predicted"])[:, None], np.array([golden["horizon"]])
    brier = pool([brier_score(outcome, outcome, survival, times)])
    assert brier == pytest.approx(golden["brier"], abs=1e-12)


def test_a_patient_with_a_competing_event_is_expected_to_have_the_lower_risk() -> None:
    outcome = Outcome(np.array([False, True]), np.array([1.0, 2.0]), None, np.array([True, False]))
    assert pool([concordance(outcome, np.array([0.0, 1.0]))]) == 1.0
    assert pool([concordance(outcome, np.array([1.0, 0.0]))]) == 0.0


@NAMED
def test_predictions_of_the_fine_gray_model_have_the_slope_1(golden: dict[str, Any]) -> None:
    outcome, risk = read(golden), np.array(golden["x"]) @ np.array(golden["fine_gray"])
    survival = np.exp(-0.3 * np.exp(risk))[:, None]
    held_out = HeldOutSurvival(outcome, survival, np.zeros(len(risk)), np.arange(len(risk)))
    slope, _ = measure_slope(held_out, 0, float(outcome.time.max()))
    assert slope == pytest.approx(1.0, abs=1e-4)


def test_leaving_a_patient_out_changes_the_sums_of_concordance_by_twice_its_share() -> None:
    outcome, risk = draw(40, 1), np.random.default_rng(1).normal(size=40)
    sums = concordance(outcome, risk)
    for row in (0, 7, 21, 39):
        rest = np.delete(np.arange(40), row)
        without = concordance(outcome.take(rest), risk[rest])
        assert sums.top.sum() - without.top.sum() == pytest.approx(2 * sums.top[row])
        assert sums.bottom.sum() - without.bottom.sum() == pytest.approx(2 * sums.bottom[row])


def test_observed_survival_and_its_influence_are_those_of_the_cumulative_incidence() -> None:
    outcome = draw(40, 2)
    incidence, moved = observe_incidence(outcome, 9.0)
    survival, influence = observe_survival(outcome, 9.0)
    assert survival == 1 - incidence
    np.testing.assert_array_equal(influence, -moved)


def test_score_residuals_of_weighted_risk_sets_add_up_to_the_score() -> None:
    outcome, x = draw(40, 3), np.random.default_rng(3).normal(size=40)
    stratum, censored = (
        PartialLikelihood(x, Outcome(outcome.event, outcome.time, None, competing))
        for competing in (outcome.competing, None)
    )
    score, information = stratum.differentiate(0.4)
    assert stratum.find_residuals(0.4).sum() == pytest.approx(score)
    assert (score - stratum.differentiate(0.4 + 1e-6)[0]) * 1e6 == pytest.approx(information, rel=1e-4)
    assert score != pytest.approx(censored.differentiate(0.4)[0], abs=1e-3)


def test_the_influence_on_the_slope_is_near_the_change_when_a_patient_is_left_out() -> None:
    count = 150
    outcome, x = draw(count, 4), np.random.default_rng(4).normal(size=count)
    survival = np.exp(-0.3 * np.exp(x))[:, None]

    def measure(rows: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        held_out = HeldOutSurvival(outcome.take(rows), survival[rows], np.zeros(len(rows)), np.arange(len(rows)))
        return measure_slope(held_out, 0, 12.0)

    everyone = np.arange(count)
    slope, influence = measure(everyone)
    changes = np.array([slope - measure(np.delete(everyone, row))[0] for row in everyone])
    assert np.corrcoef(changes, influence)[0, 1] > 0.97
    assert influence.std() == pytest.approx(changes.std(), rel=0.1)
