"""Cox regression with delayed entry agrees with other programs, and with itself where nobody enters late."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet.survival.evaluation.hazard_ratios import estimate_hazard_ratios, fit_cox
from duplus_nnunet.survival.models.baselines import predict_cox
from duplus_nnunet.survival.models.breslow import fit_breslow_baseline
from duplus_nnunet.survival.models.delayed_entry import differentiate, fit_delayed_entry
from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.records.outcome import Outcome
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

from ..cohorts import SCHEMA, make_records

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "delayed_entry.json").read_text(encoding="utf-8"))
X, EVENT = np.array(GOLDEN["x"]), np.array(GOLDEN["event"])
UNTIED = Outcome(EVENT, np.array(GOLDEN["time"]), np.array(GOLDEN["entry"]))
TIED = Outcome(EVENT, np.array(GOLDEN["rounded_time"]), np.array(GOLDEN["rounded_entry"]))


@pytest.mark.parametrize(("name", "outcome"), [("untied", UNTIED), ("tied", TIED)])
def test_coefficients_and_errors_are_those_of_lifelines_and_statsmodels(name: str, outcome: Outcome) -> None:
    pytest.importorskip("sksurv")
    coefficients, errors = fit_cox(X, outcome)
    np.testing.assert_allclose(coefficients, GOLDEN[name]["coefficients"], atol=1e-6)
    np.testing.assert_allclose(errors, GOLDEN[name]["errors"], atol=1e-6)


def test_a_ridge_penalty_is_that_of_lifelines_on_standardised_covariates() -> None:
    spread = X.std(0, ddof=1)
    model = fit_delayed_entry(X / spread, UNTIED, GOLDEN["ridge"])
    np.testing.assert_allclose(model.coef_ / spread, GOLDEN["penalised"], atol=1e-5)


def test_without_late_entries_it_is_scikit_survivals_model() -> None:
    linear_model = pytest.importorskip("sksurv.linear_model")
    outcome = Outcome(TIED.event, TIED.time)
    own = fit_delayed_entry(X, outcome, 0.1)
    other = linear_model.CoxPHSurvivalAnalysis(alpha=0.1, tol=1e-12).fit(X, outcome.to_sksurv())
    np.testing.assert_allclose(own.coef_, other.coef_, atol=1e-7)
    baseline = other.cum_baseline_hazard_
    times, hazards = fit_breslow_baseline(other.predict(X), outcome)
    np.testing.assert_allclose(hazards, baseline(times), rtol=1e-9)


def test_derivatives_are_those_of_finite_differences() -> None:
    at, step = np.array([0.3, -0.2]), 1e-5
    found = differentiate(at, X, TIED)
    for index in range(2):
        ahead, behind = (differentiate(at + sign * step * np.eye(2)[index], X, TIED) for sign in (1, -1))
        assert found.score[index] == pytest.approx((ahead.value - behind.value) / (2 * step), abs=1e-5)
        np.testing.assert_allclose(found.information[index], (behind.score - ahead.score) / (2 * step), atol=1e-5)


def test_predictions_are_unbiased_where_ignoring_entries_is_not() -> None:
    pytest.importorskip("sksurv")
    rng = np.random.default_rng(4)
    age = rng.normal(size=3000)
    event, entry, censoring = rng.exponential(10 * np.exp(-age)), rng.uniform(0, 10, 3000), rng.uniform(5, 40, 3000)
    entry[:300] = 0.0
    time = np.minimum(event, censoring)
    records = [
        Record(row, f"p{row}", "", float(time[row]), SEEN if event[row] <= censoring[row] else CENSORED,
               float(entry[row]), {"age": float(age[row]), "sex": "m", "grade": 1.0})
        for row in np.flatnonzero(entry < time)
    ]  # fmt: skip
    # At the mean of a standard normal age, half of the patients are event-free at 10 ln 2.
    average = replace(records[0], values={"age": 0.0, "sex": "m", "grade": 1.0})
    times = np.array([10 * np.log(2)])
    survival = predict_cox(Task(records, [average], SCHEMA, times, 0)).survival[0, 0]
    naive = predict_cox(Task([replace(r, entry=0.0) for r in records], [average], SCHEMA, times, 0)).survival[0, 0]
    assert survival == pytest.approx(0.5, abs=0.04)
    assert naive > 0.6


def test_hazard_ratios_are_estimated_with_entries() -> None:
    pytest.importorskip("sksurv")
    records = make_records(200, effect=1.0, seed=2)
    late = [replace(record, entry=min(50.0, record.time / 2)) for record in records]
    ratios = {ratio.name: ratio for ratio in estimate_hazard_ratios(late, SCHEMA)}
    assert 1 < ratios["age"].low < np.e < ratios["age"].high


def test_a_covariate_that_separates_patients_does_not_stop_the_fit_silently() -> None:
    outcome = Outcome(
        np.array([True, True, False, False]), np.array([2.0, 3.0, 4.0, 5.0]), np.array([0.0, 1.0, 0.0, 1.0])
    )
    model = fit_delayed_entry(np.array([[1.0], [1.0], [0.0], [0.0]]), outcome)
    assert model.coef_[0] > 15  # diverges: `estimate_hazard_ratios` calls it not finite
