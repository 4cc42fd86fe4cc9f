"""A method that is chosen by inner cross-validation, within the training patients."""

from dataclasses import replace

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation import choosing
from duplus_nnunet.survival.evaluation.choosing import BEST, choose_method, predict_by_best
from duplus_nnunet.survival.evaluation.study import Design, run_study
from duplus_nnunet.survival.models.forecasts import Forecast, Task
from duplus_nnunet.survival.records.table import CENSORED
from duplus_nnunet.survival.report.metrics_json import to_plain
from duplus_nnunet.survival.report.text import describe_choices

from ..cohorts import SCHEMA, make_records


def by_age(sign: float) -> object:
    """Return a method whose risk is the age, or its opposite."""

    def predict(task: Task) -> Forecast:
        risk = np.array([sign * float(record.values["age"] or 0.0) for record in task.test])
        return Forecast(risk, np.full((len(task.test), len(task.times)), 0.5))

    return predict


def fail(task: Task) -> Forecast:
    raise DataError("too few patients")


METHODS = {"right": by_age(1.0), "wrong": by_age(-1.0), "also right": by_age(2.0), "broken": fail}


@pytest.fixture(autouse=True)
def _simple_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "forecast", lambda name, task: METHODS[name](task))  # type: ignore[operator]
    monkeypatch.setattr(choosing.choose_method, "__defaults__", (("wrong", "right", "also right"),))


def make_task(count: int = 60) -> Task:
    records = make_records(count)
    return Task(records[: count - 10], records[count - 10 :], SCHEMA, np.array([100.0]), 0)


def test_the_method_of_the_highest_concordance_is_chosen_and_the_first_of_equal_ones() -> None:
    choice = choose_method(make_task(), ("wrong", "broken", "right", "also right"))
    assert choice.method == "right"
    assert choice.scores["right"] == choice.scores["also right"] == pytest.approx(1 - choice.scores["wrong"])
    assert choice.scores["right"] > 0.75
    assert choice.errors == {"broken": "too few patients"}
    with pytest.raises(DataError, match="too few patients"):
        choose_method(make_task(), ("broken",))


def test_held_out_patients_have_no_part_in_the_choice() -> None:
    task = make_task()
    poisoned = [replace(record, time=1.0, event=CENSORED, values={"age": -999.0}) for record in task.test]
    assert choose_method(task) == choose_method(replace(task, test=poisoned))


def test_the_choice_is_fitted_to_all_training_patients() -> None:
    task = make_task()
    predicted = predict_by_best(task)
    assert predicted.chosen == "right"
    np.testing.assert_array_equal(predicted.risk, [record.values["age"] for record in task.test])


def test_with_many_patients_one_inner_fold_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def count(name: str, task: Task) -> Forecast:
        sizes.append((len(task.train), len(task.test)))
        return METHODS[name](task)  # type: ignore[operator,no-any-return]

    monkeypatch.setattr(choosing, "forecast", count)
    monkeypatch.setattr(choosing, "MANY_PATIENTS", 50)
    choose_method(make_task(), ("right",))
    assert sizes == [(40, 10)]
    choose_method(make_task(59), ("right",))
    assert len(sizes) == 1 + 5


def test_a_study_reports_what_was_chosen_in_each_fold() -> None:
    pytest.importorskip("sksurv")
    design = Design(folds=3, seeds=(0, 1), methods=(BEST, "Cox"))
    study = run_study(make_records(), SCHEMA, design)
    assert study.chosen == {BEST: (("right",) * 3,) * 2}
    assert to_plain(study, design)["chosen_in_folds"] == {BEST: [["right"] * 3] * 2}
    assert [line.endswith("right 6.") for line in describe_choices(study)] == [True]
