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
from duplus_nnunet.survival.encoding import fit_encoder
from duplus_nnunet.survival.folds import make_folds
from duplus_nnunet.survival.hazard import (
    RecordNetwork,
    cut_bins,
    logistic_hazard_loss,
    make_targets,
    predict_risk,
    predict_survival,
    train_record_network,
)
from duplus_nnunet.survival.schema import ClinicalSchema
from duplus_nnunet.survival.scores import Outcome, compare_at, compare_pairs, pool, sum_brier, weigh_events
from duplus_nnunet.survival.study import Design, run_study
from duplus_nnunet.survival.table import CENSORED, SEEN, Record

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
        pool([compare_pairs(test, risk)]),
        pool([compare_pairs(test, risk, weigh_events(train, test, tau) ** 2)]),
        pool([sum_brier(train, test, curves, times)]),
    ]
    structured = train.to_sksurv(), test.to_sksurv()
    theirs = [
        metrics.concordance_index_censored(test.event, test.time, risk)[0],
        metrics.concordance_index_ipcw(*structured, risk, tau=tau)[0],
    ]
    keep = test.time < train.time.max()
    shown = test.take(np.flatnonzero(keep))
    theirs.append(metrics.integrated_brier_score(structured[0], shown.to_sksurv(), curves[keep], times))
    ours[2] = pool([sum_brier(train, shown, curves[keep], times)])
    np.testing.assert_allclose([one[0] for one in ours], theirs, atol=1e-6)
    auc = metrics.cumulative_dynamic_auc(structured[0], shown.to_sksurv(), risk[keep], times)[0]
    for time, expected in zip(times, auc, strict=True):
        weights = weigh_events(train, shown, float(np.nextafter(time, np.inf)))
        assert pool([compare_at(shown, risk[keep], weights, time)])[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["gbsg2", "whas500", "veterans_lung_cancer"])
def test_concordance_is_that_of_scikit_survival_on_its_datasets(name: str) -> None:
    datasets, metrics = pytest.importorskip("sksurv.datasets"), pytest.importorskip("sksurv.metrics")
    _, found = getattr(datasets, f"load_{name}")()
    event, time = (found[field] for field in found.dtype.names)
    outcome = Outcome(event.astype(bool), time.astype(float))
    risk = np.round(np.random.default_rng(0).normal(size=len(outcome)), 1)
    expected = metrics.concordance_index_censored(outcome.event, outcome.time, risk)[0]
    assert pool([compare_pairs(outcome, risk)])[0] == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_only_the_order_of_risks_counts(seed: int) -> None:
    outcome, risk = make_outcome(20, seed, ties=False)
    assert pool([compare_pairs(outcome, risk)]) == pytest.approx(pool([compare_pairs(outcome, np.exp(3 * risk))]))
    reverse = pool([compare_pairs(outcome, -risk)])
    assert pool([compare_pairs(outcome, risk)]) == pytest.approx(1 - reverse, nan_ok=True)


def test_a_patient_that_was_drawn_twice_counts_as_two() -> None:
    outcome, risk = make_outcome(12, 3)
    counts = np.array([[2.0, 0.0, *[1.0] * 10]])
    repeated = [0, 0, *range(2, 12)]
    expected = pool([compare_pairs(outcome.take(repeated), risk[repeated])])
    assert pool([compare_pairs(outcome, risk)], [counts]) == pytest.approx(expected, abs=1e-12)


def test_nothing_to_compare_has_no_score() -> None:
    outcome = Outcome(np.zeros(5, bool), np.arange(1.0, 6.0))
    assert np.isnan(pool([compare_pairs(outcome, np.arange(5.0))])[0])


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
    assert pool([compare_pairs(outcome.take(range(60, 80)), risks[0])])[0] > 0.75


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
    from duplus_nnunet.survival.methods import METHODS, Task, forecast

    records = make_records(45)
    train, test = records[:30], records[30:]
    poisoned = [
        replace(record, time=record.time * 1000, event=CENSORED, values={**record.values, "age": 1e6 * place})
        for place, record in enumerate(test)
    ]
    times = np.array([100.0, 300.0])
    for method in METHODS:
        alone = forecast(method, Task(train, test[:1], SCHEMA, times, 0))
        own = replace(test[0], time=9.0, event=CENSORED if test[0].event == SEEN else SEEN)
        among = forecast(method, Task(train, [own, *poisoned[1:]], SCHEMA, times, 0))
        np.testing.assert_allclose(alone.risk, among.risk[:1], rtol=1e-5, atol=1e-6, err_msg=method)
        np.testing.assert_allclose(alone.survival, among.survival[:1], rtol=1e-5, atol=1e-6, err_msg=method)


def test_the_order_of_rows_changes_no_score() -> None:
    pytest.importorskip("sksurv")
    records, design = make_records(30), Design(folds=3, seeds=(0,), methods=("Cox", "logistic hazard"))
    one, other = run_study(records, SCHEMA, design), run_study(records[::-1], SCHEMA, design)
    assert one.scores == other.scores


def test_fewer_events_than_folds_can_share_still_have_scores() -> None:
    pytest.importorskip("sksurv")
    few = [replace(r, event=SEEN if n % 4 == 0 else CENSORED) for n, r in enumerate(make_records(40))]
    found = run_study(few, SCHEMA, Design(seeds=(0, 1, 2), methods=("Cox", "Kaplan-Meier")))
    assert 0 <= found.scores["Cox"]["AUC"].value <= 1
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
    assert "1 patient(s) entered late. No method here uses entry times" in found.notes[0]


def test_a_horizon_beyond_the_follow_up_is_refused() -> None:
    pytest.importorskip("sksurv")
    with pytest.raises(DataError, match="lies beyond the follow-up"):
        run_study(make_records(30), SCHEMA, Design(folds=3, seeds=(0,), horizons=(1e6,), methods=("Cox",)))
