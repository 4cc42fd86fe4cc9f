"""A study: planted signals are found, noise is not, and held-out patients stay unseen."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation import study as study_module
from duplus_nnunet.survival.evaluation.study import Design, Study, list_methods, run_study
from duplus_nnunet.survival.models import methods
from duplus_nnunet.survival.models.forecasts import Forecast, choose_cut_off
from duplus_nnunet.survival.models.methods import Task
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import Fold, make_folds
from duplus_nnunet.survival.records.horizons import choose_horizons
from duplus_nnunet.survival.records.outcome import Outcome
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

from ..cohorts import SCHEMA, make_features, make_records


@pytest.fixture(scope="module")
def study() -> Any:
    pytest.importorskip("sksurv")
    return run_study(make_records(), SCHEMA, Design(folds=3, seeds=(0,)))


def test_every_method_finds_a_planted_signal(study: Any) -> None:
    for name, scores in study.scores.items():
        if name == "Kaplan-Meier":
            assert scores["Harrell's C"].value == 0.5
            continue
        assert scores["Harrell's C"].value > 0.75, name
        assert scores["integrated Brier"].value < study.scores["Kaplan-Meier"]["integrated Brier"].value
    assert study.differences["Kaplan-Meier"]["Harrell's C"].value > 0.25


def test_survival_curves_fall_and_follow_the_risk(study: Any) -> None:
    curves = np.array([one.survival for one in study.predictions if one.method == "logistic hazard"])
    assert (np.diff(curves, axis=1) <= 1e-9).all()
    assert ((curves >= 0) & (curves <= 1)).all()
    for fold in range(3):
        own = [one for one in study.predictions if one.method == "logistic hazard" and one.fold == fold]
        last = [one.survival[-1] for one in sorted(own, key=lambda one: one.risk)]
        assert np.corrcoef(range(len(last)), last)[0, 1] < -0.8


def test_nothing_is_fitted_to_held_out_patients() -> None:
    pytest.importorskip("sksurv")
    from duplus_nnunet.survival.models.methods import METHODS, Task, forecast

    records = make_records(45)
    train, test = records[:30], records[30:]
    poisoned = [
        replace(record, time=record.time * 1000, event=CENSORED, values={**record.values, "age": 1e6 * number})
        for number, record in enumerate(test)
    ]
    times = np.array([100.0, 300.0])
    names = ("CT: lesion volume", "CT: 0", "CT: 1")
    rows = {r.patient: np.random.default_rng(r.row).random(3).astype(np.float32) for r in records}
    images = FeatureTable(names, ("CT",) * 3, ("measure", "pooled", "lesion"), rows)
    other_rows = rows | {r.patient: np.array([1e9, np.nan, -1e9], np.float32) for r in test[1:]}
    for method in METHODS:
        alone = forecast(method, Task(train, test[:1], SCHEMA, times, 0, images))
        own = replace(test[0], time=9.0, event=CENSORED if test[0].event == SEEN else SEEN)
        among = forecast(method, Task(train, [own, *poisoned[1:]], SCHEMA, times, 0, replace(images, rows=other_rows)))
        np.testing.assert_allclose(alone.risk, among.risk[:1], rtol=1e-5, atol=1e-6, err_msg=method)
        np.testing.assert_allclose(alone.survival, among.survival[:1], rtol=1e-5, atol=1e-6, err_msg=method)
        assert alone.cut == among.cut
        assert (alone.cut is None) == (method == "Kaplan-Meier")


def test_the_order_of_rows_changes_no_score() -> None:
    pytest.importorskip("sksurv")
    records, design = make_records(30), Design(folds=3, seeds=(0,), methods=("Cox", "logistic hazard"))
    one, other = run_study(records, SCHEMA, design), run_study(records[::-1], SCHEMA, design)
    assert one.scores == other.scores


def test_fewer_events_than_folds_can_share_still_have_scores() -> None:
    pytest.importorskip("sksurv")
    few = [replace(r, event=SEEN if n % 4 == 0 else CENSORED) for n, r in enumerate(make_records(40))]
    result = run_study(few, SCHEMA, Design(seeds=(0, 1, 2), methods=("Cox", "Kaplan-Meier")))
    assert 0 <= result.scores["Cox"]["pooled AUC"].value <= 1
    with pytest.raises(DataError, match=r"2 folds.* only 1 "):
        run_study([replace(r, event=SEEN if n < 2 else CENSORED) for n, r in enumerate(few)], SCHEMA, Design(folds=2))


def test_without_a_varying_covariate_all_predictions_of_a_fold_are_equal() -> None:
    pytest.importorskip("sksurv")
    same = [replace(r, values={"age": None, "sex": "m", "grade": None}) for r in make_records(40)]
    schema = SCHEMA.model_copy(update={"covariates": {"sex": SCHEMA.covariates["sex"]}})
    result = run_study(same, schema, Design(folds=3, seeds=(0,)))
    assert {scores["Harrell's C"].value for scores in result.scores.values()} == {0.5}
    assert any("no covariate" in note for note in result.notes)


@pytest.mark.parametrize("horizon", [0.5, 1.0])
def test_a_horizon_before_the_first_event_is_refused(horizon: float) -> None:
    pytest.importorskip("sksurv")
    records = [replace(record, time=record.time + 1) for record in make_records(30)]
    with pytest.raises(DataError, match=rf"last horizon \({horizon:g} days\)"):
        run_study(records, SCHEMA, Design(folds=3, seeds=(0,), horizons=(horizon,), methods=("Cox",)))


def test_delayed_entry_is_noted() -> None:
    pytest.importorskip("sksurv")
    records = make_records(30)
    records[4] = replace(records[4], entry=records[4].time / 2)
    result = run_study(records, SCHEMA, Design(folds=3, seeds=(0,), methods=("Cox",)))
    assert any(note.startswith("1 patient(s) with delayed entry") for note in result.notes)


def test_a_horizon_beyond_the_follow_up_is_refused() -> None:
    pytest.importorskip("sksurv")
    with pytest.raises(DataError, match=r"1e\+06 days lies beyond"):
        run_study(make_records(30), SCHEMA, Design(folds=3, seeds=(0,), horizons=(1e6,), methods=("Cox",)))


def test_chosen_horizons_lie_within_the_follow_up_of_every_fold() -> None:
    pytest.importorskip("sksurv")
    late = (3, 9, 12)
    records = [
        replace(r, time=2000.0 + n if n in late else 50.0 + n, event=SEEN if n in (*late, 0, 5, 20) else CENSORED)
        for n, r in enumerate(make_records(30))
    ]
    fold = Fold(tuple(n for n in range(30) if n not in late), late)
    design = Design(seeds=(0,), given=((fold,),), methods=("Cox", "Kaplan-Meier"))
    result = run_study(records, SCHEMA, design)
    assert 50 < result.horizons[-1] < 79
    listed = ", ".join(f"{horizon:g}" for horizon in result.horizons)
    assert any(f"the horizons are {listed} days" in note for note in result.notes)
    assert result.at_horizons["Cox"][-1].horizon == result.calibration["Cox"][-1].horizon == result.horizons[-1]
    usual = run_study(make_records(30), SCHEMA, Design(folds=3, seeds=(0,), methods=("Cox",)))
    assert not any("the horizons are" in note for note in usual.notes)


def test_chosen_horizons_are_quarters_of_the_events_before_the_end() -> None:
    outcome = Outcome(np.array([True, True, True, True, False]), np.array([1.0, 2.0, 3.0, 9.0, 9.0]))
    assert choose_horizons(outcome) == (1.75, 2.5, 4.5)
    assert choose_horizons(outcome, 4.0) == (1.75, 2.5)
    late = Outcome(np.array([True, True, *[True] * 8]), np.array([1.0, 2.0, *[9.0] * 8]))
    assert choose_horizons(late, 5.0) == (1.25, 1.5, 1.75)
    with pytest.raises(DataError, match=r"first is at 1 days.* 1\.5 days"):
        choose_horizons(late, 1.5)


def test_whole_years_with_enough_events_and_follow_up_are_the_horizons() -> None:
    time = np.concatenate([np.linspace(30, 800, 20), np.full(12, 1000.0)])
    outcome = Outcome(np.array([True] * 20 + [False] * 12), time)
    assert choose_horizons(outcome) == (365.25, 730.5)
    assert choose_horizons(outcome, 700.0) == (365.25,)
    # Six patients are followed for longer than a year: too few.
    assert choose_horizons(outcome.take(range(15)))[0] == pytest.approx(np.quantile(time[:15], 0.25))


def test_the_horizons_of_the_schema_are_used(by_age: list[Task]) -> None:
    schema = SCHEMA.model_copy(update={"horizons": [100, 300.0]})
    result = run_study(make_records(40), schema, Design(seeds=(0,), folds=3, methods=("age",)))
    assert result.horizons == (100.0, 300.0)
    assert not any("clinical.yaml" in note for note in result.notes)
    other = run_study(make_records(40), schema, Design(seeds=(0,), folds=3, methods=("age",), horizons=(200.0,)))
    assert other.horizons == (200.0,)
    assert any("clinical.yaml" in note for note in other.notes)


@pytest.mark.parametrize("horizons", [(math.nan,), (math.inf,), (0.0, 5.0), (5.0, 5.0), (9.0, 5.0)])
def test_invalid_horizons_are_refused(horizons: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="--horizons"):
        Design(horizons=horizons)


def test_the_strongest_penalty_is_taken_if_too_few_are_left_to_choose_by() -> None:
    pytest.importorskip("sksurv")
    records = [replace(record, time=10.0 + n, event=SEEN) for n, record in enumerate(make_records(4))]
    result = methods.forecast("Coxnet", Task(records[:2], records[2:], SCHEMA, np.array([10.5]), 0))
    assert np.isfinite(result.risk).all()
    assert np.ptp(result.risk) == 0


@pytest.fixture
def by_age(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Add a method "age" whose risk is the age; returns the list of its tasks."""
    tasks = []

    def predict(task: Task) -> Forecast:
        tasks.append(task)
        risk = np.array([float(record.values["age"] or 0) for record in task.test])
        own = np.array([float(record.values["age"] or 0) for record in task.train])
        return Forecast(risk, np.exp(-np.outer(np.exp((risk - 60) / 5), task.times / 400)), cut=choose_cut_off(own))

    monkeypatch.setitem(methods.METHODS, "age", predict)  # type: ignore[arg-type]
    return tasks


def run_age(records: list[Record], **options: Any) -> Study:
    pytest.importorskip("sksurv")
    return run_study(records, SCHEMA, Design(**{"seeds": (0,), "folds": 3, "methods": ("age",), **options}))


def test_risk_groups_are_cut_by_training_risks(by_age: list[Task]) -> None:
    records = make_records(31)
    ages = {record.patient: float(record.values["age"] or 0) for record in records}
    result = run_age(records)
    for one in result.predictions:
        held = {other.patient for other in result.predictions if other.fold == one.fold}
        cut = np.median([age for patient, age in ages.items() if patient not in held])
        assert one.group == ("high" if ages[one.patient] > cut else "low")
    (groups,) = result.risk_groups
    assert sum(len(group.outcome) for group in groups.groups) == 31
    assert groups.p is not None
    assert groups.p < 0.05


def test_the_order_of_held_out_patients_and_of_records_changes_nothing(by_age: list[Task]) -> None:
    records = make_records(30)
    folds = make_folds(records, 3, 5)
    turned = [Fold(fold.train[::-1], fold.test[::-1]) for fold in folds]
    back = [Fold(*(tuple(29 - row for row in side) for side in (f.train, f.test))) for f in folds]
    chosen = ("age", "Cox")
    one, other, third = (
        run_age(rows, given=(tuple(given),), methods=chosen)
        for rows, given in ((records, folds), (records, turned), (records[::-1], back))
    )
    assert one.scores == other.scores == third.scores
    assert one.calibration["Cox"] == other.calibration["Cox"] == third.calibration["Cox"]
    assert one.predictions == other.predictions == third.predictions


def test_given_folds_are_used_and_may_leave_some_out(by_age: list[Task]) -> None:
    records = make_records(30)[::-1]
    names = sorted(record.patient for record in records)
    rows = {record.patient: row for row, record in enumerate(records)}
    splits = [(names[10:], names[:10]), (names[:10] + names[20:], names[10:20])]
    folds = tuple(Fold(*(tuple(rows[name] for name in side) for side in split)) for split in splits)
    result = run_age(records, given=(folds,))
    assert [one.patient for one in result.predictions] == names[:20]
    assert [one.fold for one in result.predictions] == [0] * 10 + [1] * 10
    assert any(note.startswith("10 patient(s) are not held out") for note in result.notes)
    with pytest.raises(DataError, match=r"1 seed.* 2 seeds"):
        run_age(records, given=(folds,), seeds=(0, 1))


def test_each_fold_gets_the_features_that_are_made_for_it(by_age: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    records = make_records(30)[::-1]
    monkeypatch.setattr(study_module, "IMAGE_METHODS", ("age",))
    calls = {}

    def find(seed: int, number: int, fold: Fold) -> FeatureTable:
        held = {records[row].patient for row in fold.test}
        return calls.setdefault((seed, number), (make_features(records), held))[0]

    design = Design(folds=3, seeds=(4, 7), methods=("age", "Kaplan-Meier"))
    run_study(records, SCHEMA, design, features=find)
    assert list(calls) == [(seed, number) for seed in (4, 7) for number in range(3)]
    for task, (table, held) in zip(by_age, calls.values(), strict=True):
        assert task.images is table
        assert held == {record.patient for record in task.test}
        assert not held & {record.patient for record in task.train}
    with pytest.raises(DataError, match="'age'"):
        run_study(records, SCHEMA, design)


def test_forecasts_from_elsewhere_are_scored_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sksurv")
    records = make_records(40)
    seen = []

    def know(task: Task) -> Forecast:
        seen.append({record.patient for record in task.test})
        time = np.array([record.time for record in task.test])
        return Forecast(-time, (time[:, None] > task.times).astype(float), ("from elsewhere",), float(-time.mean()))

    design = Design(folds=4, seeds=(0,), methods=("Cox", "oracle"), forecasts={"oracle": know})
    result = run_study(records, SCHEMA, design)
    assert set().union(*seen) == {record.patient for record in records}
    assert sum(map(len, seen)) == 40  # held-out patients alone, and no centre that was left out
    assert result.scores["oracle"]["Harrell's C"].value == 1
    difference = result.differences["oracle"]["Harrell's C"]
    assert difference.value == pytest.approx(result.scores["Cox"]["Harrell's C"].value - 1)
    assert "from elsewhere" in result.notes
    assert {one.group for one in result.predictions if one.method == "oracle"} == {"high", "low"}
    monkeypatch.setattr(study_module, "METHODS", {"Cox": methods.METHODS["Cox"]})
    assert run_study(records, SCHEMA, replace(design, methods=())).methods == ("Cox", "oracle")


@pytest.mark.parametrize(
    ("forecast", "message"),
    [
        (lambda task: Forecast(np.zeros(3), np.zeros((3, 2))), r"\(3,\).*\(3, 2\)"),
        (lambda task: Forecast(np.full(len(task.test), np.nan), np.ones((len(task.test), len(task.times)))), "finite"),
        (lambda task: Forecast(np.zeros(len(task.test)), np.full((len(task.test), len(task.times)), 2.0)), "0 and 1"),
    ],
)
def test_forecasts_that_do_not_fit_are_refused(forecast: Any, message: str) -> None:
    pytest.importorskip("sksurv")
    design = Design(folds=3, seeds=(0,), methods=("x",), forecasts={"x": forecast})
    with pytest.raises(DataError, match=message):
        run_study(make_records(30), SCHEMA, design)


def test_methods_that_cannot_be_run_are_named() -> None:
    with pytest.raises(DataError, match=r"'Coks'.*Cox"):
        run_study(make_records(30), SCHEMA, Design(methods=("Coks",)))
    with pytest.raises(DataError, match="'Cox'"):
        run_study(make_records(30), SCHEMA, Design(forecasts={"Cox": methods.METHODS["Cox"]}))
    with pytest.raises(DataError, match="'image and record'"):
        run_study(make_records(30), SCHEMA, Design(methods=("image and EHR",)))  # its former name; needs images


def test_other_methods_are_compared_with_duplus() -> None:
    assert list_methods(has_images=False)[0] == "logistic hazard"
    assert not set(list_methods(has_images=False)) & set(study_module.IMAGE_METHODS)
    assert list_methods(has_images=True)[0] == "image and record"
    assert set(list_methods(has_images=True)) == {*methods.METHODS}


def test_centres_are_predicted_by_the_others_and_small_ones_are_named(by_age: list[Task]) -> None:
    few = [replace(r, centre=("C" if n < 4 else "AB"[n % 2])) for n, r in enumerate(make_records(60))]
    result = run_age(few, methods=("age", "Kaplan-Meier"))
    assert result.centres is not None
    assert [one.name for one in result.centres.centres] == ["A", "B"]
    assert any("'C'" in note for note in result.notes)
    for task, centre in zip(by_age[-2:], "AB", strict=True):
        assert not {record.patient for record in task.test} & {record.patient for record in task.train}
        assert {record.patient for record in task.test} == {record.patient for record in few if record.centre == centre}
    own = result.centres.centres[0]
    assert own.patients == 28
    assert own.scores["age"]["Harrell's C"].value > 0.7
    assert result.centres.differences["Kaplan-Meier"]["Harrell's C"].value > 0.2


def test_a_single_centre_or_networks_trained_on_all_leave_none_out(
    by_age: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make_records(60)
    assert run_age([replace(record, centre="A") for record in records]).centres is None
    assert run_age([replace(record, centre="") for record in records]).centres is None
    monkeypatch.setattr(study_module, "IMAGE_METHODS", ("age",))
    design = Design(folds=3, seeds=(0,), methods=("age", "Kaplan-Meier"))
    table = make_features(records)
    result = run_study(records, SCHEMA, design, features=lambda *_: table)
    assert result.centres is not None
    assert set(result.centres.scores) == {"Kaplan-Meier"}
    asked = []
    find = replace(design, find_centre_features=lambda name, fold: asked.append((name, fold)) or table)
    result = run_study(records, SCHEMA, find, features=lambda *_: table)
    assert result.centres is not None
    assert set(result.centres.scores) == {"age", "Kaplan-Meier"}
    assert [name for name, _ in asked] == ["A", "B"]


def test_cohorts_without_events_are_refused_and_without_censoring_are_not(by_age: list[Task]) -> None:
    records = make_records(30)
    with pytest.raises(DataError, match="30 patients"):
        run_age([replace(record, event=CENSORED) for record in records])
    assert run_age([replace(record, event=SEEN) for record in records]).scores["age"]["pooled AUC"].value > 0.5


def test_pure_noise_is_chance() -> None:
    pytest.importorskip("sksurv")
    result = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        records = [replace(r, values={**r.values, "age": rng.normal()}) for r in make_records(45, 0.0, seed)]
        design = Design(folds=3, seeds=(seed,), methods=("Cox",))
        result.append(run_study([replace(r, centre="") for r in records], SCHEMA, design).scores["Cox"]["Harrell's C"])
    values = np.array([one.value for one in result])
    half = 2.093 * values.std(ddof=1) / math.sqrt(20)  # Student's t of 19 degrees of freedom
    assert abs(values.mean() - 0.5) <= half
    assert sum(one.interval is not None and one.interval[0] <= 0.5 <= one.interval[1] for one in result) >= 16
