"""Scores equal those of scikit-survival and of their definitions."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.cross_validation import find_median
from duplus_nnunet.survival.evaluation.metrics import (
    brier_score,
    concordance,
    cumulative_dynamic_auc,
    ipcw_weights,
    pool,
)
from duplus_nnunet.survival.records.outcome import Outcome

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "tied_scores.json").read_text(encoding="utf-8"))


def make_outcome(count: int, seed: int, ties: bool = True) -> tuple[Outcome, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    time = rng.exponential(10, count) + 0.5
    risk = rng.normal(size=count)
    if ties:
        time, risk = np.ceil(time), np.round(risk, 1)
    return Outcome(rng.random(count) < 0.6, time), risk


@pytest.mark.parametrize("seed", range(4))
def test_scores_without_ties_are_those_of_scikit_survival(seed: int) -> None:
    metrics = pytest.importorskip("sksurv.metrics")
    (train, _), (test, risk) = make_outcome(150, seed, False), make_outcome(80, seed + 100, False)
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
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    auc = metrics.cumulative_dynamic_auc(structured[0], shown.to_sksurv(), risk[keep], times)[0]
    for time, expected in zip(times, auc, strict=True):
        weights = ipcw_weights(train, shown, float(np.nextafter(time, np.inf)))
        assert pool([cumulative_dynamic_auc(shown, risk[keep], weights, time)]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_scores_with_ties_are_those_of_an_independent_program(case: dict[str, Any]) -> None:
    train, test = (
        Outcome(np.array([seen for _, seen in case[side]]), np.array([time for time, _ in case[side]]))
        for side in ("train", "test")
    )
    risk, times, survival = (np.array(case[name]) for name in ("risk", "times", "survival"))
    at_once = [pool([brier_score(train, test, survival[:, [i]], times[[i]])]) for i in range(len(times))]
    np.testing.assert_allclose(at_once, case["Brier"])
    np.testing.assert_allclose(pool([brier_score(train, test, survival, times)]), case["integrated Brier"])
    weights = ipcw_weights(train, test, case["tau"])
    np.testing.assert_allclose(pool([concordance(test, risk, weights**2)]), case["Uno's C"])
    weights = ipcw_weights(train, test, float(np.nextafter(case["tau"], np.inf)))
    aucs = [pool([cumulative_dynamic_auc(test, risk, weights, time)]) for time in times]
    np.testing.assert_allclose(aucs, case["AUC"])


def test_brier_score_of_shared_times_by_hand() -> None:
    """G is 1 just before 1 and 2/3 at 1: (0.5^2 / 1 + 0 + 2 * 0.5^2 / (2/3)) / 4."""
    outcome = Outcome(np.array([True, False, True, False]), np.array([1.0, 1.0, 2.0, 3.0]))
    assert pool([brier_score(outcome, outcome, np.full((4, 1), 0.5), np.array([1.5]))]) == pytest.approx(0.25)
    np.testing.assert_allclose(ipcw_weights(outcome, outcome, 2.5), [1, 0, 1.5, 0])


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_weights_of_tied_patients_add_up_to_their_number(seed: int) -> None:
    """Satten and Datta 2001: so Kaplan-Meier's own Brier score is S (1 - S)."""
    outcome, _ = make_outcome(30, seed)
    time = np.array([np.floor(np.median(outcome.time))])
    if time < outcome.time.max():
        assert pool([brier_score(outcome, outcome, np.full((30, 1), 0.5), time)]) == pytest.approx(0.25)


def test_no_weight_after_the_follow_up_of_the_training() -> None:
    train = Outcome(np.array([True, False]), np.array([1.0, 2.0]))
    for late in (2.5, 3.0):
        with pytest.raises(DataError):
            ipcw_weights(train, Outcome(np.array([True]), np.array([late])), 9.0)


@pytest.mark.parametrize("name", ["gbsg2", "whas500", "veterans_lung_cancer"])
def test_concordance_is_that_of_scikit_survival_on_its_datasets(name: str) -> None:
    datasets, metrics = pytest.importorskip("sksurv.datasets"), pytest.importorskip("sksurv.metrics")
    _, structured = getattr(datasets, f"load_{name}")()
    event, time = (structured[field] for field in structured.dtype.names)
    outcome = Outcome(event.astype(bool), time.astype(float))
    risk = np.round(np.random.default_rng(0).normal(size=len(outcome)), 1)
    expected = metrics.concordance_index_censored(outcome.event, outcome.time, risk)[0]
    assert pool([concordance(outcome, risk)]) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_only_the_order_of_risks_counts(seed: int) -> None:
    outcome, risk = make_outcome(20, seed, ties=False)
    assert pool([concordance(outcome, risk)]) == pytest.approx(pool([concordance(outcome, np.exp(3 * risk))]))
    reverse = pool([concordance(outcome, -risk)])
    assert pool([concordance(outcome, risk)]) == pytest.approx(1 - reverse, nan_ok=True)


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
@settings(deadline=None)
def test_counts_are_those_of_all_pairs(seed: int, late: bool, weighted: bool) -> None:
    """Each pair by itself, in a loop, with ties of times and risks, delayed entry and weights."""
    outcome, risk = make_outcome(15, seed)
    rng = np.random.default_rng(seed)
    if late:
        outcome = Outcome(outcome.event, outcome.time, outcome.time * rng.integers(0, 4, 15) / 4)
    weights = rng.random(15) if weighted else None
    top, bottom = np.zeros(15), np.zeros(15)
    for i, j in itertools.permutations(range(15), 2):
        after = outcome.time[j] > outcome.time[i] or (outcome.time[j] == outcome.time[i] and not outcome.event[j])
        entered = outcome.entry is None or outcome.entry[j] < outcome.time[i]
        if outcome.event[i] and after and entered:
            weight = 1.0 if weights is None else weights[i]
            bottom[[i, j]] += weight / 2
            top[[i, j]] += weight / 2 * (0.5 if risk[i] == risk[j] else risk[i] > risk[j])
    sums = concordance(outcome, risk, weights)
    np.testing.assert_allclose(sums.top, top, atol=1e-12)
    np.testing.assert_allclose(sums.bottom, bottom, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_tied_risks_and_times_are_those_of_scikit_survival(seed: int) -> None:
    metrics = pytest.importorskip("sksurv.metrics")
    outcome, risk = make_outcome(200, seed)
    expected = metrics.concordance_index_censored(outcome.event, outcome.time, risk)[0]
    assert pool([concordance(outcome, risk)]) == pytest.approx(expected, abs=1e-12)


def test_nothing_to_compare_has_no_score() -> None:
    outcome = Outcome(np.zeros(5, bool), np.arange(1.0, 6.0))
    assert np.isnan(pool([concordance(outcome, np.arange(5.0))]))


def test_a_median_lies_where_the_curve_crosses_one_half() -> None:
    times = np.array([0.0, 10.0, 20.0])
    assert find_median(times, np.array([1.0, 0.6, 0.4])) == pytest.approx(15)
    assert find_median(times, np.array([1.0, 0.9, 0.6])) is None
    assert find_median(times, np.array([1.0, 0.5, 0.5])) == pytest.approx(10)
    assert find_median(times, np.array([0.4, 0.3, 0.2])) == 0
