"""ICARE: bagged signs of covariates."""

import json
from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.models.icare import Icare, drop_correlated, find_signs
from duplus_nnunet.survival.models.methods import forecast

from ..cohorts import SCHEMA, make_records

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "icare.json").read_text())
DTYPE = [("event", "?"), ("time", "f8")]


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    case = GOLDEN[name]
    outcome = np.array(list(zip(case["event"], case["time"], strict=True)), dtype=DTYPE)
    return np.array(case["x"], np.float64), outcome


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "programs"])
def test_one_model_is_that_of_the_authors_package(name: str) -> None:
    pytest.importorskip("sksurv")
    x, y = read(name)
    model = Icare(0, bags=0, closest=1.0).fit(x, y)
    np.testing.assert_array_equal(find_signs(x, y, np.ones((1, len(x))))[0], GOLDEN[name]["signs"])
    own = (x - x.mean(0)) @ model._weights
    np.testing.assert_allclose(own, GOLDEN[name]["risk"], atol=1e-5)
    assert np.corrcoef(model.predict(x), own)[0, 1] == pytest.approx(1, abs=1e-9)


def test_signs_are_those_of_pairs_and_count_a_patient_as_often_as_drawn() -> None:
    x = np.array([[3.0], [1.0], [2.0]])
    y = np.array([(True, 1.0), (True, 2.0), (False, 2.0)], dtype=DTYPE)
    # The pairs are 0 > 1, 0 > 2 and, as events come before censorings, 1 < 2.
    assert find_signs(
        x, y, np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 5.0], [1.0, 2.0, 5.0]])
    ).ravel().tolist() == [1, -1, 1, -1]


def test_of_correlated_covariates_the_first_in_order_is_kept() -> None:
    rng = np.random.default_rng(0)
    first, other = rng.normal(size=(2, 200))
    x = np.stack([first, -first + 0.01 * other, other], 1)
    x -= x.mean(0)
    assert drop_correlated(x, np.ones(200), [0, 1, 2], 0.9).tolist() == [True, False, True]
    assert drop_correlated(x, np.ones(200), [2, 1, 0], 0.9).tolist() == [False, True, True]
    assert drop_correlated(x, np.ones(200), [2, 1, 0], 1.0).all()


def test_coefficients_are_those_of_the_risk() -> None:
    pytest.importorskip("sksurv")
    x, y = read("gbsg2")
    model = Icare(0, bags=10).fit(x, y)
    own = x @ model.coef_
    np.testing.assert_allclose(own - own.mean(), model.predict(x) - model.predict(x).mean(), atol=1e-9)


def test_a_planted_signal_is_found_with_survival_that_falls_with_risk() -> None:
    pytest.importorskip("sksurv")
    records = make_records(60)
    predicted = forecast("ICARE", Task(records[:40], records[40:], SCHEMA, np.array([50.0, 200.0]), 0))
    ages = [float(record.values["age"] or 0) for record in records[40:]]
    assert np.corrcoef(ages, predicted.risk)[0, 1] > 0.6
    order = np.argsort(predicted.risk)
    assert (np.diff(predicted.survival[order], axis=0) <= 1e-12).all()
