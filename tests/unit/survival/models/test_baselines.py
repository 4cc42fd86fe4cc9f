"""Baselines: bounded event times of the forest, and fits that fail."""

import warnings
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.baselines import _fit, _report_convergence, coarsen_times, predict_forest
from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.records.outcome import Outcome

from ..cohorts import SCHEMA, make_records


def test_few_event_times_stay_as_they_are() -> None:
    outcome = Outcome(np.array([True, False, True]), np.array([3.0, 4.0, 5.0])).to_sksurv()
    assert coarsen_times(outcome, 2) is outcome


def test_events_move_to_the_next_of_few_times_and_censored_patients_to_the_last() -> None:
    rng = np.random.default_rng(0)
    outcome = Outcome(rng.random(500) < 0.5, rng.exponential(9, 500)).to_sksurv()
    coarse = coarsen_times(outcome, 10)
    times = np.unique(coarse["time"][coarse["event"]])
    assert len(times) == 10
    seen = outcome["event"]
    assert (coarse["event"] == seen).all()
    assert (coarse["time"][seen] >= outcome["time"][seen]).all()
    assert times[-1] == outcome["time"][seen].max()
    censored = coarse["time"][~seen]
    early = outcome["time"][~seen] < times[0]
    assert (censored[~early] <= outcome["time"][~seen][~early]).all()
    assert set(censored) <= {*times, times[0] / 2}


def test_the_risk_of_a_forest_hardly_changes_with_coarse_times(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sksurv")
    records = make_records(160)
    task = Task(records[:120], records[120:], SCHEMA, np.array([100.0, 300.0]), 0)
    fine = predict_forest(task)
    monkeypatch.setattr("duplus_nnunet.survival.models.baselines.coarsen_times.__defaults__", (20,))
    coarse = predict_forest(task)
    assert np.corrcoef(fine.risk, coarse.risk)[0, 1] > 0.97
    assert not np.array_equal(fine.risk, coarse.risk)


def test_a_fit_that_does_not_converge_is_said() -> None:
    pytest.importorskip("sklearn")
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("Optimization did not converge", ConvergenceWarning, stacklevel=1)
        warnings.warn("other", FutureWarning, stacklevel=1)
    (note,) = _report_convergence(caught)
    assert "Optimization did not converge" in note
    assert _report_convergence(caught[1:]) == ()


def test_a_fit_that_fails_is_an_error_of_the_data_with_its_size() -> None:
    def fail(x: Any, y: Any) -> Any:
        raise np.linalg.LinAlgError("Singular matrix")

    outcome = Outcome(np.array([True, False, True]), np.array([3.0, 4.0, 5.0]))
    with pytest.raises(DataError, match=r"3 training patients with 2 events and 7 .*Singular matrix"):
        _fit(fail, np.zeros((3, 7)), outcome)
