"""Methods predict the cumulative incidence where events compete."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.incidence import estimate_incidence
from duplus_nnunet.survival.evaluation.study import Design, run_study
from duplus_nnunet.survival.models.competing import LEAST_COMPETING, count_competing, forecast_incidence
from duplus_nnunet.survival.models.competing_hazard import add_competing_hazard, combine_causes, fit_competing_hazard
from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.models.methods import forecast
from duplus_nnunet.survival.models.model import SurvivalModel, fit_model
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import SEEN, Record

from ..cohorts import SCHEMA, make_records

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "competing_risks.json").read_text(encoding="utf-8"))["data"]
TIMES = np.array([50.0, 200.0, 400.0])


def make_competing(count: int = 80, every: int = 4) -> list[Record]:
    """Turn every nth patient's end into a competing event."""
    return [
        replace(record, event="2") if number % every == 0 else record
        for number, record in enumerate(make_records(count))
    ]


def make_task(every: int = 4) -> Task:
    records = make_competing(every=every)
    return Task(records[:60], records[60:], SCHEMA, TIMES, 0)


def test_constant_hazards_give_their_closed_form() -> None:
    times = np.linspace(0, 3, 4)
    free = combine_causes(np.exp(-0.2 * times)[None], np.exp(-0.5 * times)[None])
    np.testing.assert_allclose(free[0], 1 - 0.2 / 0.7 * (1 - np.exp(-0.7 * times)), atol=1e-12)


def test_both_incidences_and_the_probability_of_neither_add_up_to_1() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.exp(-np.cumsum(rng.random((5, 8)), axis=1)) for _ in range(2))
    incidences = (1 - combine_causes(first, second)) + (1 - combine_causes(second, first))
    np.testing.assert_allclose(incidences + first * second, 1.0, atol=1e-12)


def test_kaplan_meier_of_both_kinds_combines_to_the_aalen_johansen_estimate() -> None:
    task = make_task()
    together = forecast("Kaplan-Meier", task)
    outcome = read_outcome(task.train)
    np.testing.assert_allclose(1 - together.survival[0], estimate_incidence(outcome).at(TIMES), atol=1e-12)
    from duplus_nnunet.survival.models.baselines import predict_kaplan_meier

    np.testing.assert_allclose(forecast_incidence(predict_kaplan_meier, task).survival, together.survival, atol=1e-9)


@pytest.mark.parametrize("method", ["Cox", "Coxnet", "random survival forest"])
def test_predicted_incidence_is_below_one_less_survival_and_follows_the_signal(method: str) -> None:
    task = make_task()
    censored = replace(
        task, train=[replace(record, event="censored") if record.event == "2" else record for record in task.train]
    )
    predicted, alone = forecast(method, task), forecast(method, censored)
    assert (predicted.survival >= alone.survival - 1e-9).all()
    assert (predicted.survival[:, -1] > alone.survival[:, -1]).mean() > 0.5
    ages = np.array([float(record.values["age"] or 0) for record in task.test])
    assert np.corrcoef(ages, predicted.risk)[0, 1] > 0.5
    assert predicted.cut is not None


def test_few_competing_events_have_one_hazard_for_all_patients_and_it_is_said() -> None:
    task = make_task(every=20)
    assert 0 < count_competing(task.train) < LEAST_COMPETING
    assert any("competing" in note for note in forecast("Cox", task).notes)


def test_a_study_with_competing_events_scores_all_methods() -> None:
    study = run_study(make_competing(90), SCHEMA, Design(2, (0,), methods=("Cox", "Kaplan-Meier")))
    assert study.scores["Cox"]["Harrell's C"].value > 0.6
    assert study.scores["Kaplan-Meier"]["Harrell's C"].value == pytest.approx(0.5)
    assert study.scores["Cox"]["Brier skill"].value > 0
    assert math.isfinite(study.calibration["Cox"][0].slope.value)
    assert any("23 patient(s) with a competing event" in note for note in study.notes)


def test_a_stored_model_of_images_and_records_keeps_the_hazard_of_competing_events() -> None:
    records = make_competing(40)
    model = fit_model(records, SCHEMA, None, SurvivalSettings(), 0)
    assert model.competing is not None
    again = SurvivalModel.from_plain(model.to_plain())
    survival = model.forecast(records, None, TIMES).survival
    np.testing.assert_array_equal(again.forecast(records, None, TIMES).survival, survival)
    earlier = SurvivalModel.from_plain({key: part for key, part in model.to_plain().items() if key != "competing"})
    assert (survival[:, -1] > earlier.forecast(records, None, TIMES).survival[:, -1]).all()


def test_a_competing_hazard_of_no_event_changes_nothing() -> None:
    outcome = read_outcome(make_records(10))
    assert fit_competing_hazard(outcome) is None
    nothing = np.array([[100.0], [1.0]])
    curves = add_competing_hazard(lambda times: np.exp(-times / 300)[None], nothing, TIMES)
    np.testing.assert_allclose(curves[0], np.exp(-TIMES / 300))


@pytest.mark.skipif(importlib.util.find_spec("comprisk") is None, reason="needs the extra competing")
@pytest.mark.parametrize("golden", GOLDEN, ids=[entry["name"] for entry in GOLDEN])
def test_fine_gray_coefficients_are_those_of_the_weighted_partial_likelihood(golden: dict[str, list[float]]) -> None:
    names = [f"x{column}" for column in range(len(golden["x"][0]))]  # type: ignore[arg-type]
    form = {"column": "e", "seen": [1], "censored": [0], "competing": [2]}
    schema = ClinicalSchema.model_validate(
        {"patient": "id", "time": {"column": "t"}, "event": form, "covariates": {n: {"type": "numeric"} for n in names}}
    )
    kinds = ["censored", SEEN, "2"]
    records = [
        Record(row, f"p{row}", "", time, kinds[int(cause)], 0.0, dict(zip(names, x, strict=True)))  # type: ignore[call-overload]
        for row, (x, cause, time) in enumerate(zip(golden["x"], golden["cause"], golden["time"], strict=True))
    ]
    times = np.array([np.median(golden["time"])])
    predicted = forecast("Fine-Gray", Task(records, records, schema, times, 0))
    expected = np.array(golden["x"]) @ np.array(golden["fine_gray_as_crr"])
    np.testing.assert_allclose(predicted.risk - predicted.risk.mean(), expected - expected.mean(), atol=1e-4)


def test_fine_gray_without_competing_events_is_refused() -> None:
    with pytest.raises(DataError, match="competing"):
        forecast("Fine-Gray", Task(make_records(20), make_records(20), SCHEMA, TIMES, 0))
