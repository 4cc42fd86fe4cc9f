"""Delayed entry (left truncation): estimates are not biased by patients who come under observation late."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.survival.evaluation.calibration import observe_survival, observe_with_interval
from duplus_nnunet.survival.evaluation.cross_validation import HeldOut
from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.evaluation.risk_groups import split_by_risk
from duplus_nnunet.survival.models.baselines import predict_kaplan_meier
from duplus_nnunet.survival.models.discrete import DeepHit, LogisticHazard, MultiTaskRegression
from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.models.hazard import choose_bin_edges, logistic_hazard_loss, make_hazard_targets
from duplus_nnunet.survival.models.losses import fit_loss
from duplus_nnunet.survival.models.methods import forecast
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record
from duplus_nnunet.survival.report.figures import GroupCurve

EDGES = np.array([1.0, 2.0, 4.0])
# The last two patients leave in the bin in which they enter.
OUTCOME = Outcome(
    np.array([True, False, True, False, True, False, True]),
    np.array([1.0, 2.5, 3.0, 9.0, 5.0, 1.9, 1.9]),
    np.array([0.0, 0.5, 1.5, 3.0, 2.0, 1.2, 1.2]),
)
PLACES, SEEN_IN_A_BIN = [0, 2, 2, 3, 3, 1, 1], [True, False, True, False, False, False, True]
ENDED = [1.0, 2.25, 2.5, 3.0, 3.0, 1.9, 1.9]
ENTERED = [0.0, 0.5, 1.5, 2.5, 2.0, 1.2, 1.2]
SCHEMA = ClinicalSchema.model_validate({
    "patient": "id", "time": {"column": "time"}, "event": {"column": "event", "seen": ["1"], "censored": ["0"]},
    "covariates": {"age": {"type": "numeric"}},
})  # fmt: skip
# Times to the event of which a quarter, half and three quarters are shorter.
MEAN = 10.0
TIMES = -MEAN * np.log([0.75, 0.5, 0.25])


def draw_late_patients(count: int = 4000, seed: int = 0) -> list[Record]:
    """Draw patients with the same hazard; only those who are event-free at their entry are observed."""
    rng = np.random.default_rng(seed)
    event, entry, censoring = rng.exponential(MEAN, count), rng.uniform(0, 10, count), rng.uniform(5, 40, count)
    time = np.minimum(event, censoring)
    return [
        Record(row, f"p{row}", "", float(time[row]), SEEN if event[row] <= censoring[row] else CENSORED,
               float(entry[row]), {"age": 50.0})
        for row in np.flatnonzero(entry < time)
    ]  # fmt: skip


def give_chances(loss: Any, logits: torch.Tensor) -> Numbers:
    """Return the probability of the event in each bin, and of no event."""
    if isinstance(loss, LogisticHazard):
        hazards = torch.sigmoid(logits).numpy()
        alive = np.cumprod(np.hstack([np.ones((len(hazards), 1)), 1 - hazards]), axis=1)
        return np.hstack([hazards * alive[:, :-1], alive[:, -1:]])
    return np.asarray(loss.log_probabilities(logits).exp().numpy())


def rank(chances: Numbers) -> float:
    by_then, total = np.cumsum(chances, axis=1), 0.0
    for i, place in enumerate(PLACES):
        for j, other in enumerate(PLACES):
            if SEEN_IN_A_BIN[i] and other > place and ENTERED[j] <= place:
                total += math.exp(-(by_then[i, place] - by_then[j, place]) / 0.1)
    return total / len(PLACES) ** 2


def condition(chances: Numbers, kind: Any) -> list[float]:
    """Return the likelihood of each patient, conditional on being event-free at entry."""
    knots = np.hstack([np.zeros((len(chances), 1)), -np.log(1 - np.cumsum(chances, axis=1)[:, :-1])])
    rows, found = zip(knots, chances, PLACES, SEEN_IN_A_BIN, ENTERED, ENDED, strict=True), []
    for hazards, own, place, had, entered, ended in rows:
        free, last = (math.exp(-np.interp(bins, range(4), hazards)) for bins in (entered, ended))
        if not had:
            found.append(last / free)
        elif place > int(entered):
            found.append(own[place] / free)
        elif kind is LogisticHazard:  # the probability of the whole bin, which differs by a near-constant factor
            found.append(own[place] / own[place:].sum())
        else:
            found.append(1 - math.exp(-hazards[place + 1]) / free)
    return found


@pytest.mark.parametrize("kind", [LogisticHazard, MultiTaskRegression, DeepHit], ids=lambda kind: kind.name)
def test_the_likelihood_is_that_of_those_who_were_free_at_their_entry(kind: Any) -> None:
    loss = kind(EDGES)
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 3)))
    chances, targets = give_chances(loss, logits), loss.make_targets(OUTCOME)
    assert targets.entered.tolist() == pytest.approx(ENTERED)
    assert targets.ended.tolist() == pytest.approx(ENDED)
    assert (targets.places.tolist(), targets.seen.tolist()) == (PLACES, SEEN_IN_A_BIN)
    expected = -np.mean(np.log(condition(chances, kind)))
    if kind is DeepHit:
        expected = 0.2 * expected + 0.8 * rank(chances)
    assert float(loss.compute(logits, targets)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", [LogisticHazard.name, MultiTaskRegression.name, DeepHit.name])
@pytest.mark.parametrize("size", [0.0, 60.0])
def test_losses_and_gradients_are_finite(name: str, size: float) -> None:
    loss = fit_loss(name, OUTCOME, 3)[0]
    logits = (size * torch.randn(7, loss.outputs, generator=torch.manual_seed(0))).requires_grad_()
    found = loss.compute(logits, loss.make_targets(OUTCOME))
    found.backward()
    assert torch.isfinite(found)
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("kind", [LogisticHazard, MultiTaskRegression, DeepHit], ids=lambda kind: kind.name)
def test_subsets_keep_the_entries_of_patients(kind: Any) -> None:
    loss, rows = kind(EDGES), torch.tensor([4, 2, 6])
    logits = torch.from_numpy(np.random.default_rng(2).normal(size=(7, 3)))
    found = loss.compute(logits[rows], loss.make_targets(OUTCOME).take(rows))
    assert float(found) == pytest.approx(
        float(loss.compute(logits[rows], loss.make_targets(OUTCOME.take(rows.numpy()))))
    )


def test_both_logistic_hazards_are_the_same() -> None:
    logits = torch.from_numpy(np.random.default_rng(3).normal(size=(7, 3)))
    found = logistic_hazard_loss(logits, *make_hazard_targets(OUTCOME, EDGES))
    loss = LogisticHazard(EDGES)
    assert float(found) == pytest.approx(float(loss.compute(logits, loss.make_targets(OUTCOME))), abs=1e-6)


def test_entries_at_the_start_change_nothing() -> None:
    outcome = Outcome(OUTCOME.event, OUTCOME.time, np.zeros(7))
    for one in (LogisticHazard(EDGES), MultiTaskRegression(EDGES), DeepHit(EDGES)):
        logits = torch.from_numpy(np.random.default_rng(4).normal(size=(7, 3)))
        plain = one.compute(logits, one.make_targets(Outcome(OUTCOME.event, OUTCOME.time)))
        assert float(one.compute(logits, one.make_targets(outcome))) == pytest.approx(float(plain), abs=1e-9)


def test_patients_who_had_not_entered_are_not_compared() -> None:
    outcome = Outcome(np.array([True, True, False]), np.array([2.0, 5.0, 9.0]), np.array([0.0, 3.0, 1.0]))
    # At time 2 the second patient has not entered; the pairs are (0, 2) and (1, 2).
    assert concordance(outcome, np.zeros(3)).bottom.tolist() == [0.5, 0.5, 1]
    assert pool([concordance(outcome, np.array([1.0, 9.0, 2.0]))]) == pytest.approx(0.5)


@pytest.mark.parametrize("horizon", [4.0, 8.0, 16.0])
def test_observed_survival_is_kaplan_meier_of_scikit_survival(horizon: float) -> None:
    nonparametric = pytest.importorskip("sksurv.nonparametric")
    outcome = read_outcome(draw_late_patients(400, 5))
    times, curve = nonparametric.kaplan_meier_estimator(outcome.event, outcome.time, outcome.entry)
    expected = curve[np.searchsorted(times, horizon, side="right") - 1]
    assert observe_survival(outcome, horizon)[0] == pytest.approx(expected, abs=1e-12)
    assert observe_with_interval(outcome, horizon)[0] == pytest.approx(expected, abs=1e-12)


def test_kaplan_meier_is_unbiased_where_ignoring_entries_is_not() -> None:
    pytest.importorskip("sksurv")
    records = draw_late_patients()
    found = predict_kaplan_meier(Task(records, records[:1], SCHEMA, TIMES, 0)).survival[0]
    np.testing.assert_allclose(found, [0.75, 0.5, 0.25], atol=0.04)
    outcome = read_outcome(records)
    naive = observe_survival(Outcome(outcome.event, outcome.time), TIMES[1])[0]
    assert naive > 0.6


@pytest.mark.parametrize("name", [LogisticHazard.name, MultiTaskRegression.name, DeepHit.name])
def test_a_network_starts_from_the_truth(name: str) -> None:
    outcome = read_outcome(draw_late_patients())
    loss, notes = fit_loss(name, outcome, 20)
    assert notes == []
    start = loss.initial_outputs(loss.make_targets(outcome))[None]
    np.testing.assert_allclose(loss.predict_survival(start, TIMES)[0], [0.75, 0.5, 0.25], atol=0.06)


def test_the_network_of_records_finds_the_truth() -> None:
    pytest.importorskip("sksurv")
    rng = np.random.default_rng(6)
    records = [replace(record, values={"age": rng.normal(50, 10)}) for record in draw_late_patients(1200)]
    found = forecast("logistic hazard", Task(records, records[:200], SCHEMA, TIMES, 0))
    np.testing.assert_allclose(found.survival.mean(0), [0.75, 0.5, 0.25], atol=0.08)


def test_entries_do_not_change_the_bins_and_cox_notes_that_it_ignores_them() -> None:
    outcome = read_outcome(draw_late_patients(200))
    without_entries = Outcome(outcome.event, outcome.time)
    np.testing.assert_array_equal(choose_bin_edges(outcome, 5), choose_bin_edges(without_entries, 5))
    (note,) = fit_loss("cox", outcome, 5)[1]
    assert "'cox'" in note
    assert fit_loss("cox", Outcome(outcome.event, outcome.time), 5)[1] == []


def test_numbers_at_risk_exclude_patients_before_their_entry() -> None:
    none, followed = np.zeros(0), np.array([5.0, 8.0, 9.0])
    curve = GroupCurve("low", none, none, none, none, followed, none, np.array([0.0, 0.0, 6.0]))
    assert [curve.count_at_risk(time) for time in (0.0, 5.0, 6.0, 8.5)] == [2, 2, 2, 1]


def test_there_is_no_log_rank_test() -> None:
    pytest.importorskip("sksurv")
    held = [HeldOut("Cox", 0, 0, f"p{n}", 0.0, (0.5,), group="low" if n < 4 else "high") for n in range(8)]
    event, time = np.ones(8, bool), np.arange(1.0, 9.0)
    assert split_by_risk(0, held, Outcome(event, time), (3.0,)).p is not None
    assert split_by_risk(0, held, Outcome(event, time, np.full(8, 0.5)), (3.0,)).p is None


def test_without_delayed_entry_outcomes_have_no_entries() -> None:
    records = [Record(1, "a", "", 3.0, SEEN), Record(2, "b", "", 4.0, CENSORED)]
    assert read_outcome(records).entry is None
