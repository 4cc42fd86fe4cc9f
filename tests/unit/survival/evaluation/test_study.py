"""Prognosis from records: exact scores, honest folds, and what was planted is found."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation import study as study_module
from duplus_nnunet.survival.evaluation.cross_validation import find_median
from duplus_nnunet.survival.evaluation.metrics import (
    brier_score,
    concordance,
    cumulative_dynamic_auc,
    ipcw_weights,
    pool,
)
from duplus_nnunet.survival.evaluation.study import Design, Study, choose_horizons, list_methods, run_study
from duplus_nnunet.survival.models import methods
from duplus_nnunet.survival.models.forecasts import Forecast, cut_risks
from duplus_nnunet.survival.models.hazard import (
    RecordNetwork,
    cut_bins,
    logistic_hazard_loss,
    make_targets,
    predict_risk,
    predict_survival,
    train_record_network,
)
from duplus_nnunet.survival.models.methods import Task
from duplus_nnunet.survival.records.encoding import fit_encoder
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import Fold, check_folds, give_folds, make_folds
from duplus_nnunet.survival.records.notes import merge_notes
from duplus_nnunet.survival.records.out_of_range import count_missing, find_warnings, list_known
from duplus_nnunet.survival.records.outcome import Outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "id",
        "time": {"column": "t"},
        "event": {"column": "e", "seen": [1], "censored": [0]},
        "covariates": {
            "age": {"type": "numeric"},
            "sex": {"type": "categorical"},
            "grade": {"type": "ordinal", "order": ["low", "mid", "high"]},
        },
    }
)


def make_records(count: int = 60, effect: float = 2.0, seed: int = 0) -> list[Record]:
    """Make patients whose hazard grows with age by a factor of e to the effect a standard deviation."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        age = rng.normal()
        event, censoring = rng.exponential(400 * math.exp(-effect * age)), rng.exponential(800)
        values = {"age": 60 + 10 * age, "sex": "fm"[number % 2], "grade": float(rng.integers(3))}
        time = max(1.0, min(event, censoring))
        seen = SEEN if event <= censoring else CENSORED
        records.append(Record(number + 1, f"p{number:03d}", "AB"[number % 2], time, seen, 0.0, values))
    return records


def make_outcome(count: int, seed: int, ties: bool = True) -> tuple[Outcome, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    time = rng.exponential(10, count) + 0.5
    risk = rng.normal(size=count)
    if ties:
        time, risk = np.ceil(time), np.round(risk, 1)
    return Outcome(rng.random(count) < 0.6, time), risk


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_scikit_survival(seed: int, ties: bool) -> None:
    metrics = pytest.importorskip("sksurv.metrics")
    (train, _), (test, risk) = make_outcome(150, seed, ties), make_outcome(80, seed + 100, ties)
    times = np.quantile(train.time[train.event], [0.2, 0.4, 0.6])
    curves = np.sort(np.random.default_rng(seed).random((80, 3)), axis=1)[:, ::-1]
    tau = float(times[-1])
    ours = [
        pool([concordance(test, risk)]),
        pool([concordance(test, risk, ipcw_weights(train, test, tau) ** 2)]),
        pool([brier_score(train, test, curves, times)]),
    ]
    structured = train.to_sksurv(), test.to_sksurv()
    theirs = [
        metrics.concordance_index_censored(test.event, test.time, risk)[0],
        metrics.concordance_index_ipcw(*structured, risk, tau=tau)[0],
    ]
    keep = test.time < train.time.max()
    shown = test.take(np.flatnonzero(keep))
    theirs.append(metrics.integrated_brier_score(structured[0], shown.to_sksurv(), curves[keep], times))
    ours[2] = pool([brier_score(train, shown, curves[keep], times)])
    np.testing.assert_allclose([one[0] for one in ours], theirs, atol=1e-6)
    auc = metrics.cumulative_dynamic_auc(structured[0], shown.to_sksurv(), risk[keep], times)[0]
    for time, expected in zip(times, auc, strict=True):
        weights = ipcw_weights(train, shown, float(np.nextafter(time, np.inf)))
        assert pool([cumulative_dynamic_auc(shown, risk[keep], weights, time)])[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["gbsg2", "whas500", "veterans_lung_cancer"])
def test_concordance_is_that_of_scikit_survival_on_its_datasets(name: str) -> None:
    datasets, metrics = pytest.importorskip("sksurv.datasets"), pytest.importorskip("sksurv.metrics")
    _, found = getattr(datasets, f"load_{name}")()
    event, time = (found[field] for field in found.dtype.names)
    outcome = Outcome(event.astype(bool), time.astype(float))
    risk = np.round(np.random.default_rng(0).normal(size=len(outcome)), 1)
    expected = metrics.concordance_index_censored(outcome.event, outcome.time, risk)[0]
    assert pool([concordance(outcome, risk)])[0] == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_only_the_order_of_risks_counts(seed: int) -> None:
    outcome, risk = make_outcome(20, seed, ties=False)
    assert pool([concordance(outcome, risk)]) == pytest.approx(pool([concordance(outcome, np.exp(3 * risk))]))
    reverse = pool([concordance(outcome, -risk)])
    assert pool([concordance(outcome, risk)]) == pytest.approx(1 - reverse, nan_ok=True)


def test_a_patient_that_was_drawn_twice_counts_as_two() -> None:
    outcome, risk = make_outcome(12, 3)
    counts = np.array([[2.0, 0.0, *[1.0] * 10]])
    repeated = [0, 0, *range(2, 12)]
    expected = pool([concordance(outcome.take(repeated), risk[repeated])])
    assert pool([concordance(outcome, risk)], [counts]) == pytest.approx(expected, abs=1e-12)


def test_nothing_to_compare_has_no_score() -> None:
    outcome = Outcome(np.zeros(5, bool), np.arange(1.0, 6.0))
    assert np.isnan(pool([concordance(outcome, np.arange(5.0))])[0])


def test_an_encoder_knows_its_training_records_alone() -> None:
    records = make_records(20)
    encoder = fit_encoder(records, SCHEMA)
    numbers, notes = encoder.encode(records)
    assert not notes
    assert encoder.names == ("age", f"sex={encoder.columns[1].categories[1]}", "grade")
    np.testing.assert_allclose(numbers[:, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(numbers[:, 0].std(), 1, atol=1e-5)


def test_what_an_encoder_has_not_seen_it_says_and_goes_on() -> None:
    records = make_records(20)
    encoder = fit_encoder(records, SCHEMA)
    strange = replace(records[0], values={"age": None, "sex": "x", "grade": 1.0})
    numbers, notes = encoder.encode([strange, records[1]])
    assert numbers[0, 0] == 0
    assert numbers[0, 1] == 0
    assert any("'sex' has values that were not trained on: 'x'" in note for note in notes)
    assert any("'age' is missing in 1 record(s), and in none that was trained on" in note for note in notes)
    _, notes = encoder.encode([replace(records[0], values={"sex": "f"})])
    assert any("'grade' is not known of anybody here" in note for note in notes)


def test_missing_values_are_marked() -> None:
    records = make_records(20)
    records[3] = replace(records[3], values={**records[3].values, "age": None})
    numbers, _ = fit_encoder(records, SCHEMA).encode(records)
    assert numbers[3].tolist()[:2] == [0.0, 1.0]


def test_what_did_not_differ_in_training_moves_nothing() -> None:
    records = [replace(r, values={**r.values, "age": 5.0, "grade": None}) for r in make_records(20)]
    encoder = fit_encoder(records, SCHEMA)
    strange = replace(records[0], values={"age": 1200.0, "sex": records[0].values["sex"], "grade": 2.0})
    one, other = (encoder.encode([record])[0] for record in (records[0], strange))
    np.testing.assert_array_equal(one, other)


@given(st.permutations(range(40)), st.integers(0, 5))
@settings(deadline=None, max_examples=20)
def test_folds_are_of_patients_and_not_of_rows(order: list[int], seed: int) -> None:
    records = make_records(40)
    mixed = [records[place] for place in order]
    one, other = ([{r[p].patient for p in fold.test} for fold in make_folds(r, 5, seed)] for r in (records, mixed))
    assert one == other
    assert set().union(*one) == {record.patient for record in records}
    assert sum(map(len, one)) == 40


def test_folds_share_events_and_centres() -> None:
    records = make_records(60)
    folds = make_folds(records, 5, 0)
    events = [sum(records[place].event == SEEN for place in fold.test) for fold in folds]
    assert max(events) - min(events) <= 1
    assert all(len({records[place].centre for place in fold.test}) == 2 for fold in folds)
    assert all(not set(fold.train) & set(fold.test) for fold in folds)
    with pytest.raises(DataError, match="5 folds for 2 patients with the event"):
        make_folds([replace(record, event=SEEN if n < 2 else CENSORED) for n, record in enumerate(records)], 5, 0)


def test_bins_are_cut_from_events_alone() -> None:
    outcome = Outcome(np.array([True, False, True, True]), np.array([5.0, 50.0, 1.0, 9.0]))
    np.testing.assert_array_equal(cut_bins(outcome, 10), [1, 5, 9])
    assert len(cut_bins(outcome, 2)) == 2
    with pytest.raises(DataError, match="cannot be cut into bins"):
        cut_bins(Outcome(np.zeros(3, bool), np.ones(3)), 4)


def test_the_loss_is_the_likelihood_of_the_formula() -> None:
    outcome = Outcome(np.array([True, False, True, False]), np.array([1.0, 1.5, 3.0, 9.0]))
    edges = np.array([1.0, 2.0, 3.0])
    hazards = np.array([[0.1, 0.2, 0.3]] * 4)
    expected = -np.mean([math.log(0.1), math.log(0.9), math.log(0.9 * 0.8 * 0.3), math.log(0.9 * 0.8 * 0.7)])
    logits = torch.logit(torch.tensor(hazards, dtype=torch.float32))
    assert float(logistic_hazard_loss(logits, *make_targets(outcome, edges))) == pytest.approx(expected, abs=1e-6)
    at_edge = make_targets(Outcome(np.array([False, False]), np.array([1.0, 3.0])), edges)
    np.testing.assert_array_equal(at_edge[0], [[1, 0, 0], [1, 1, 1]])
    curves = predict_survival(logits[:1], edges, np.array([0.0, 1.0, 2.0, 2.5, 3.0, 99.0]))
    np.testing.assert_allclose(curves[0], [1, 0.9, 0.72, 0.72 * 0.7**0.5, 0.504, 0.504], atol=1e-6)
    assert predict_risk(logits)[0] == pytest.approx(-math.log(0.504), abs=1e-6)


@pytest.mark.parametrize("kind", ["censored", "single", "ties", "one event"])
def test_odd_batches_give_finite_losses_and_gradients(kind: str) -> None:
    cases = {
        "censored": ([False] * 4, [1.0, 2.0, 3.0, 4.0]),
        "single": ([True], [2.0]),
        "ties": ([True, True, False, True], [2.0] * 4),
        "one event": ([False, False, True, False], [1.0, 2.0, 3.0, 4.0]),
    }
    event, time = cases[kind]
    network = RecordNetwork(3, 2)
    targets = make_targets(Outcome(np.array(event), np.array(time)), np.array([2.0, 3.0]))
    loss = logistic_hazard_loss(network(torch.randn(len(time), 3)), *targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())


def test_a_network_learns_what_was_planted_and_is_the_same_again() -> None:
    records = make_records(80)
    outcome = Outcome(np.array([r.event == SEEN for r in records]), np.array([r.time for r in records]))
    numbers, _ = fit_encoder(records, SCHEMA).encode(records)
    found = [train_record_network(numbers[:60], outcome.take(range(60)), range(12), 0) for _ in range(2)]
    with torch.no_grad():
        risks = [predict_risk(network(torch.from_numpy(numbers[60:]))) for network, _ in found]
    np.testing.assert_array_equal(*risks)
    assert pool([concordance(outcome.take(range(60, 80)), risks[0])])[0] > 0.75


@pytest.fixture(scope="module")
def study() -> Any:
    pytest.importorskip("sksurv")
    return run_study(make_records(), SCHEMA, Design(folds=3, seeds=(0,)))


def test_every_method_finds_a_planted_signal(study: Any) -> None:
    for name, scores in study.scores.items():
        interval = scores["Harrell's C"].interval
        if name == "Kaplan-Meier":
            assert scores["Harrell's C"].value == 0.5
            continue
        assert interval[0] > 0.6, name
        assert scores["integrated Brier"].value < study.scores["Kaplan-Meier"]["integrated Brier"].value
    assert study.differences["Kaplan-Meier"]["Harrell's C"].interval[0] > 0.1


def test_survival_curves_fall_and_follow_the_risk(study: Any) -> None:
    curves = np.array([one.survival for one in study.predictions if one.method == "logistic hazard"])
    assert (np.diff(curves, axis=1) <= 1e-9).all()
    assert ((curves >= 0) & (curves <= 1)).all()
    for fold in range(3):
        own = [one for one in study.predictions if one.method == "logistic hazard" and one.fold == fold]
        last = [one.survival[-1] for one in sorted(own, key=lambda one: one.risk)]
        assert np.corrcoef(range(len(last)), last)[0, 1] < -0.8


def test_held_out_patients_are_seen_by_nothing_that_is_fitted() -> None:
    pytest.importorskip("sksurv")
    from duplus_nnunet.survival.models.methods import METHODS, Task, forecast

    records = make_records(45)
    train, test = records[:30], records[30:]
    poisoned = [
        replace(record, time=record.time * 1000, event=CENSORED, values={**record.values, "age": 1e6 * place})
        for place, record in enumerate(test)
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
    found = run_study(few, SCHEMA, Design(seeds=(0, 1, 2), methods=("Cox", "Kaplan-Meier")))
    assert 0 <= found.scores["Cox"]["pooled AUC"].value <= 1
    with pytest.raises(DataError, match="only 1 are left to learn from"):
        run_study([replace(r, event=SEEN if n < 2 else CENSORED) for n, r in enumerate(few)], SCHEMA, Design(folds=2))


def test_a_fold_without_a_covariate_that_differs_foretells_the_same_for_all() -> None:
    pytest.importorskip("sksurv")
    same = [replace(r, values={"age": None, "sex": "m", "grade": None}) for r in make_records(40)]
    schema = SCHEMA.model_copy(update={"covariates": {"sex": SCHEMA.covariates["sex"]}})
    found = run_study(same, schema, Design(folds=3, seeds=(0,)))
    assert {scores["Harrell's C"].value for scores in found.scores.values()} == {0.5}
    assert "In a fold no covariate differs between training patients." in found.notes


@pytest.mark.parametrize("horizon", [0.5, 1.0])
def test_a_horizon_before_the_first_event_is_refused(horizon: float) -> None:
    pytest.importorskip("sksurv")
    records = [replace(record, time=record.time + 1) for record in make_records(30)]
    with pytest.raises(DataError, match="is not after the first event"):
        run_study(records, SCHEMA, Design(folds=3, seeds=(0,), horizons=(horizon,), methods=("Cox",)))


def test_late_entries_are_told() -> None:
    pytest.importorskip("sksurv")
    records = make_records(30)
    records[4] = replace(records[4], entry=records[4].time / 2)
    found = run_study(records, SCHEMA, Design(folds=3, seeds=(0,), methods=("Cox",)))
    assert "1 patient(s) entered late. Kaplan-Meier, the networks" in found.notes[0]


def test_a_horizon_beyond_the_follow_up_is_refused() -> None:
    pytest.importorskip("sksurv")
    with pytest.raises(DataError, match="lies beyond the follow-up"):
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
    found = run_study(records, SCHEMA, design)
    assert 50 < found.horizons[-1] < 79
    assert any("lie within the follow-up of every fold; the horizons are" in note for note in found.notes)
    usual = run_study(make_records(30), SCHEMA, Design(folds=3, seeds=(0,), methods=("Cox",)))
    assert not any("the horizons are" in note for note in usual.notes)


def test_chosen_horizons_are_quarters_of_the_events_before_the_end() -> None:
    outcome = Outcome(np.array([True, True, True, True, False]), np.array([1.0, 2.0, 3.0, 9.0, 9.0]))
    assert choose_horizons(outcome) == (1.75, 2.5, 4.5)
    assert choose_horizons(outcome, 4.0) == (1.75, 2.5)
    late = Outcome(np.array([True, True, *[True] * 8]), np.array([1.0, 2.0, *[9.0] * 8]))
    assert choose_horizons(late, 5.0) == (1.25, 1.5, 1.75)
    with pytest.raises(DataError, match="no time between them parts the events"):
        choose_horizons(late, 1.5)


@pytest.mark.parametrize("horizons", [(math.nan,), (math.inf,), (0.0, 5.0), (5.0, 5.0), (9.0, 5.0)])
def test_horizons_that_are_none_are_refused(horizons: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="expected days above 0, none of them twice, in ascending order"):
        Design(horizons=horizons)


def test_the_strongest_penalty_is_taken_if_too_few_are_left_to_choose_by() -> None:
    pytest.importorskip("sksurv")
    records = [replace(record, time=10.0 + n, event=SEEN) for n, record in enumerate(make_records(4))]
    found = methods.forecast("Coxnet", Task(records[:2], records[2:], SCHEMA, np.array([10.5]), 0))
    assert np.isfinite(found.risk).all()
    assert np.ptp(found.risk) == 0


@pytest.fixture
def by_age(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Add a method "age" whose risk is the age and which remembers its tasks."""
    tasks = []

    def foretell(task: Task) -> Forecast:
        tasks.append(task)
        risk = np.array([float(record.values["age"] or 0) for record in task.test])
        own = np.array([float(record.values["age"] or 0) for record in task.train])
        return Forecast(risk, np.exp(-np.outer(np.exp((risk - 60) / 5), task.times / 400)), cut=cut_risks(own))

    monkeypatch.setitem(methods.METHODS, "age", foretell)  # type: ignore[arg-type]
    return tasks


def run_age(records: list[Record], **options: Any) -> Study:
    pytest.importorskip("sksurv")
    return run_study(records, SCHEMA, Design(**{"seeds": (0,), "folds": 3, "methods": ("age",), **options}))


def test_risk_groups_are_cut_by_training_risks(by_age: list[Task]) -> None:
    records = make_records(31)
    ages = {record.patient: float(record.values["age"] or 0) for record in records}
    found = run_age(records)
    for one in found.predictions:
        held = {other.patient for other in found.predictions if other.fold == one.fold}
        cut = np.median([age for patient, age in ages.items() if patient not in held])
        assert one.group == ("high" if ages[one.patient] > cut else "low")
    (groups,) = found.risk_groups
    assert sum(len(group.outcome) for group in groups.groups) == 31
    assert groups.p is not None
    assert groups.p < 0.05


def test_the_order_of_held_out_patients_and_of_records_changes_nothing(by_age: list[Task]) -> None:
    records = make_records(30)
    folds = make_folds(records, 3, 5)
    turned = [Fold(fold.train[::-1], fold.test[::-1]) for fold in folds]
    back = [Fold(*(tuple(29 - place for place in part) for part in (f.train, f.test))) for f in folds]
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
    splits = [(names[10:], names[:10]), (names[:10] + names[20:], names[10:20])]
    found = run_age(records, given=(give_folds(records, splits),))
    assert [one.patient for one in found.predictions] == names[:20]
    assert [one.fold for one in found.predictions] == [0] * 10 + [1] * 10
    assert "10 patient(s) are held out in no fold, and are not foretold." in found.notes
    with pytest.raises(DataError, match="folds for 1 seed"):
        run_age(records, given=(give_folds(records, splits),), seeds=(0, 1))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([(["p000", "p001"], ["p001"])], "1 patient.s. are learned from and held out in the same fold: p001"),
        ([(["p000"], ["p001"]), (["p000"], ["p001"])], "1 patient.s. are held out more than once: p001"),
        ([(["p000"], ["q"])], "1 patient.s. of the folds have no record: q"),
        ([(["p000"], [])], "one without patients"),
        ([], "There is no fold"),
    ],
)
def test_folds_that_are_no_test_are_refused(splits: list[tuple[list[str], list[str]]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        give_folds(make_records(4), splits)
    with pytest.raises(DataError, match="has the place 9, and there are 4 records"):
        check_folds(make_records(4), [Fold((0,), (9,))])


def make_features(records: list[Record], names: tuple[str, ...] = ("x",)) -> FeatureTable:
    rows = {record.patient: np.array([record.row] * len(names), np.float32) for record in records}
    return FeatureTable(names, ("CT",) * len(names), ("pooled",) * len(names), rows)


def test_each_fold_gets_the_features_that_are_made_for_it(by_age: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    records = make_records(30)[::-1]
    monkeypatch.setattr(study_module, "IMAGE_METHODS", ("age",))
    calls = {}

    def find(seed: int, number: int, fold: Fold) -> FeatureTable:
        held = {records[place].patient for place in fold.test}
        return calls.setdefault((seed, number), (make_features(records), held))[0]

    design = Design(folds=3, seeds=(4, 7), methods=("age", "Kaplan-Meier"))
    run_study(records, SCHEMA, design, features=find)
    assert list(calls) == [(seed, number) for seed in (4, 7) for number in range(3)]
    for task, (table, held) in zip(by_age, calls.values(), strict=True):
        assert task.images is table
        assert held == {record.patient for record in task.test}
        assert not held & {record.patient for record in task.train}
    with pytest.raises(DataError, match="'age' needs images"):
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
    found = run_study(records, SCHEMA, design)
    assert set().union(*seen) == {record.patient for record in records}
    assert sum(map(len, seen)) == 40  # held-out patients alone, and no centre that was left out
    assert found.scores["oracle"]["Harrell's C"].value == 1
    difference = found.differences["oracle"]["Harrell's C"]
    assert difference.value == pytest.approx(found.scores["Cox"]["Harrell's C"].value - 1)
    assert "from elsewhere" in found.notes
    assert {one.group for one in found.predictions if one.method == "oracle"} == {"high", "low"}
    monkeypatch.setattr(study_module, "METHODS", {"Cox": methods.METHODS["Cox"]})
    assert run_study(records, SCHEMA, replace(design, methods=())).methods == ("Cox", "oracle")


@pytest.mark.parametrize(
    ("forecast", "message"),
    [
        (lambda task: Forecast(np.zeros(3), np.zeros((3, 2))), "risks and survival of shapes"),
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
    with pytest.raises(DataError, match="the name of another method"):
        run_study(make_records(30), SCHEMA, Design(forecasts={"Cox": methods.METHODS["Cox"]}))


def test_ours_is_the_one_that_others_are_compared_with() -> None:
    assert list_methods(has_images=False)[0] == "logistic hazard"
    assert not set(list_methods(has_images=False)) & set(study_module.IMAGE_METHODS)
    assert list_methods(has_images=True)[0] == "image and EHR"
    assert set(list_methods(has_images=True)) == {*methods.METHODS}


def test_centres_are_foretold_by_the_others_and_small_ones_are_named(by_age: list[Task]) -> None:
    few = [replace(r, centre=("C" if n < 4 else "AB"[n % 2])) for n, r in enumerate(make_records(60))]
    found = run_age(few, methods=("age", "Kaplan-Meier"))
    assert found.centres is not None
    assert [one.name for one in found.centres.centres] == ["A", "B"]
    assert any("The centre 'C' has" in note for note in found.notes)
    for task, centre in zip(by_age[-2:], "AB", strict=True):
        assert not {record.patient for record in task.test} & {record.patient for record in task.train}
        assert {record.patient for record in task.test} == {record.patient for record in few if record.centre == centre}
    own = found.centres.centres[0]
    assert own.patients == 28
    assert own.scores["age"]["Harrell's C"].value > 0.7
    assert found.centres.differences["Kaplan-Meier"]["Harrell's C"].value > 0.2


def test_one_centre_or_networks_that_saw_the_others_leave_none_out(
    by_age: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make_records(60)
    assert run_age([replace(record, centre="A") for record in records]).centres is None
    assert run_age([replace(record, centre="") for record in records]).centres is None
    monkeypatch.setattr(study_module, "IMAGE_METHODS", ("age",))
    design = Design(folds=3, seeds=(0,), methods=("age", "Kaplan-Meier"))
    table = make_features(records)
    found = run_study(records, SCHEMA, design, features=lambda *_: table)
    assert found.centres is not None
    assert set(found.centres.scores) == {"Kaplan-Meier"}
    asked = []
    find = replace(design, find_centre_features=lambda name, fold: asked.append((name, fold)) or table)
    found = run_study(records, SCHEMA, find, features=lambda *_: table)
    assert found.centres is not None
    assert set(found.centres.scores) == {"age", "Kaplan-Meier"}
    assert [name for name, _ in asked] == ["A", "B"]


def test_what_stands_out_in_a_patient_is_said() -> None:
    records = make_records(20)
    known = list_known(records, SCHEMA)
    assert find_warnings(records[3], known, SCHEMA) == ()
    strange = replace(records[0], values={"age": None, "sex": "x", "grade": 7.0})
    table = make_features(records, ("x", "y"))
    half = replace(table, contexts=("CT", "PET"), rows={"p000": np.array([1, np.nan], np.float32)})
    assert find_warnings(strange, known, SCHEMA, half) == (
        "'age' is missing, and was of nobody trained on",
        "'sex' is 'x', which nobody trained on has",
        "'grade' is 7, outside 0 to 2 of those trained on",
        "no image of 'PET'",
    )
    assert find_warnings(records[5], known, SCHEMA, half) == ("no image",)
    assert count_missing(strange, SCHEMA) == 1


def test_a_median_lies_where_the_curve_crosses_one_half() -> None:
    times = np.array([0.0, 10.0, 20.0])
    assert find_median(times, np.array([1.0, 0.6, 0.4])) == pytest.approx(15)
    assert find_median(times, np.array([1.0, 0.9, 0.6])) is None
    assert find_median(times, np.array([1.0, 0.5, 0.5])) == pytest.approx(10)
    assert find_median(times, np.array([0.4, 0.3, 0.2])) == 0


def test_all_events_of_one_kind_are_said_or_done(by_age: list[Task]) -> None:
    records = make_records(30)
    with pytest.raises(DataError, match="None of 30 patients has the event"):
        run_age([replace(record, event=CENSORED) for record in records])
    assert run_age([replace(record, event=SEEN) for record in records]).scores["age"]["pooled AUC"].value > 0.5


def test_pure_noise_is_chance() -> None:
    pytest.importorskip("sksurv")
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        records = [replace(r, values={**r.values, "age": rng.normal()}) for r in make_records(45, 0.0, seed)]
        design = Design(folds=3, seeds=(seed,), methods=("Cox",))
        found.append(run_study([replace(r, centre="") for r in records], SCHEMA, design).scores["Cox"]["Harrell's C"])
    values = np.array([one.value for one in found])
    half = 2.093 * values.std(ddof=1) / math.sqrt(20)  # Student's t of 19 degrees of freedom
    assert abs(values.mean() - 0.5) <= half
    assert sum(one.interval is not None and one.interval[0] <= 0.5 <= one.interval[1] for one in found) >= 16


def test_notes_that_list_names_are_merged() -> None:
    site = "'site' has values that were not trained on: {}."
    notes = [site.format("'b'"), "Another note: of 3, or 4.", site.format("'a', 'b'"), "Another note: of 3, or 4."]
    assert merge_notes(notes) == (site.format("'a', 'b'"), "Another note: of 3, or 4.")
    (merged,) = merge_notes([site.format(f"'{letter}'") for letter in "abcdefghij"])
    assert merged.endswith(": 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h' and 2 more.")


def test_notes_that_differ_in_numbers_are_said_once_but_names_with_numbers_are_told_apart() -> None:
    notes = [f"'ct_{name}' is missing in {count} of 24 patient(s)." for name, count in ((1, 3), (2, 5), (1, 4))]
    assert merge_notes(notes) == (f"{notes[0]} So it is in other folds, with other numbers.", notes[1])
    assert merge_notes([notes[0], notes[0]]) == (notes[0],)
