"""Predictions over imputations are averaged on the right scale and leak nothing; coefficients are pooled."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet.survival.evaluation.claims import find_claims
from duplus_nnunet.survival.evaluation.hazard_ratios import estimate_hazard_ratios
from duplus_nnunet.survival.evaluation.rubin import pool_imputations
from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.models.imputed import average_survival
from duplus_nnunet.survival.models.methods import COMPETING_METHODS, IMAGE_METHODS, METHODS, forecast
from duplus_nnunet.survival.records.imputation import impute
from duplus_nnunet.survival.records.table import Record

from ..cohorts import SCHEMA, make_records
from ..records.test_imputation import drop

IMPUTING = SCHEMA.model_copy(update={"imputations": 3})
TIMES = np.array([50.0, 200.0])
GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "pooled_imputations.json").read_text(encoding="utf-8"))


def test_pooling_is_that_of_statsmodels() -> None:
    pooled = pool_imputations(np.array(GOLDEN["values"]), np.array(GOLDEN["errors"]))
    np.testing.assert_allclose(pooled.values, GOLDEN["pooled"], rtol=1e-12)
    np.testing.assert_allclose(pooled.errors, GOLDEN["pooled_errors"], rtol=1e-12)


def test_pooling_by_hand() -> None:
    pooled = pool_imputations(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]))
    # Within: (1 + 4) / 2; between: 2, times 1 + 1 / 2.
    assert pooled.values[0] == 2
    assert pooled.errors[0] == pytest.approx(math.sqrt(2.5 + 3))
    assert pooled.freedom[0] == pytest.approx((1 + 2.5 / 3) ** 2)
    assert pool_imputations(np.ones((2, 1)), np.ones((2, 1))).half_widths[0] == pytest.approx(1.959964)


def test_survival_is_averaged_as_a_proportional_hazard() -> None:
    curves = [np.exp(-np.array([[0.5, 1.0]])), np.exp(-np.array([[2.0, 4.0]]))]
    np.testing.assert_allclose(average_survival(curves), np.exp(-np.array([[1.0, 2.0]])))
    assert average_survival([np.ones((1, 1)), np.ones((1, 1))])[0, 0] == pytest.approx(1, abs=1e-9)


def test_the_risk_is_the_mean_over_the_imputed_patients() -> None:
    pytest.importorskip("sksurv")
    records = drop(make_records(), "age", 0.3)
    found = forecast("Cox", Task(records[:40], records[40:], IMPUTING, TIMES, 0))
    parts = [
        forecast("Cox", Task(each.train, each.test, SCHEMA, TIMES, 0))
        for each in impute(records[:40], records[40:], IMPUTING, 3, 0)
    ]
    np.testing.assert_allclose(found.risk, np.mean([part.risk for part in parts], axis=0))
    np.testing.assert_allclose(found.survival, average_survival([part.survival for part in parts]))
    assert found.cut is not None


def test_without_missing_values_imputations_change_nothing() -> None:
    pytest.importorskip("sksurv")
    records = make_records()
    plain, imputing = (
        forecast("Cox", Task(records[:40], records[40:], schema, TIMES, 0)) for schema in (SCHEMA, IMPUTING)
    )
    np.testing.assert_array_equal(plain.risk, imputing.risk)


@pytest.mark.parametrize("method", ["Cox", "Coxnet"])
def test_poisoned_held_out_patients_change_nothing(method: str) -> None:
    pytest.importorskip("sksurv")
    records = drop(drop(make_records(), "age", 0.3), "sex", 0.3, 1)
    train, test = records[:40], records[40:]
    poisoned = [replace(r, time=1e7, event="seen", values={"age": 1e9, "sex": "x", "grade": None}) for r in test[1:]]
    plain, changed = (
        forecast(method, Task(train, held, IMPUTING, TIMES, 0))
        for held in (test, [replace(test[0], time=1.0, event="seen"), *poisoned])
    )
    assert plain.risk[0] == changed.risk[0]
    np.testing.assert_array_equal(plain.survival[0], changed.survival[0])
    assert plain.cut == changed.cut


@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in IMAGE_METHODS and name != "logistic hazard"]
)
@pytest.mark.parametrize("competing", [False, True])
def test_all_methods_for_records_predict_from_imputations(method: str, competing: bool) -> None:
    pytest.importorskip("sksurv")
    records = drop(make_records(), "age", 0.3)
    if competing:
        records = [replace(r, event="2") if n % 3 == 0 else r for n, r in enumerate(records)]
    found = forecast(method, Task(records[:45], records[45:], IMPUTING, TIMES, 0))
    assert found.survival.shape == (15, 2)
    assert ((found.survival >= 0) & (found.survival <= 1)).all()
    assert (np.diff(found.survival, axis=1) <= 0).all()


def test_fine_gray_predicts_from_imputations() -> None:
    pytest.importorskip("comprisk")
    records = [replace(r, event="2") if n % 3 == 0 else r for n, r in enumerate(drop(make_records(), "age", 0.3))]
    (method,) = COMPETING_METHODS
    assert np.isfinite(forecast(method, Task(records[:45], records[45:], IMPUTING, TIMES, 0)).risk).all()


def test_pooled_hazard_ratios_are_unbiased_where_indicators_are_not() -> None:
    pytest.importorskip("sksurv")
    rng = np.random.default_rng(2)
    schema = SCHEMA.model_copy(update={"covariates": dict.fromkeys(("a", "b"), SCHEMA.covariates["age"])})
    records: list[Record] = []
    for record in make_records(600, effect=0.0):
        a = float(rng.normal())
        b, time = a + float(rng.normal(0, 0.5)), float(rng.exponential(100 * math.exp(-a)))
        records.append(replace(record, time=time, event="seen", values={"a": a, "b": b}))
    records = drop(records, "a", 0.5)
    marked, imputed = (
        {ratio.name: ratio for ratio in estimate_hazard_ratios(records, each)}
        for each in (schema, schema.model_copy(update={"imputations": 10}))
    )
    # b has no effect of its own; where a is hidden, b takes its place.
    assert marked["b"].low > 1.2
    assert imputed["b"].low < 1 < imputed["b"].high
    assert imputed["a"].low < math.e ** np.std([r.values["a"] for r in records if r.values["a"] is not None])
    assert "a is missing" not in imputed


def test_indicators_of_imputed_covariates_are_not_counted_as_parameters() -> None:
    records = drop(make_records(), "age", 0.3)
    counts = [find_claims(records, schema, ("Cox",), 30).parameters for schema in (SCHEMA, IMPUTING)]
    assert counts == [4, 3]


def test_a_covariate_that_cannot_be_imputed_is_named() -> None:
    pytest.importorskip("sksurv")
    records = drop(make_records(), "age", 0.95)
    notes = forecast("Cox", Task(records[:45], records[45:], IMPUTING, TIMES, 0)).notes
    assert any("'age'" in note for note in notes)
