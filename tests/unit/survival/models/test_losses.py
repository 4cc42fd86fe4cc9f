"""The survival losses equal other programs and the formulas, and are finite for all outcomes."""

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.settings import SURVIVAL_LOSSES
from duplus_nnunet.survival.models.breslow import fit_breslow_baseline, fit_log_baseline
from duplus_nnunet.survival.models.cox import Cox, log_partial_likelihood
from duplus_nnunet.survival.models.discrete import DeepHit, LogisticHazard, MultiTaskRegression
from duplus_nnunet.survival.models.losses import LOSSES, fit_loss, read_loss
from duplus_nnunet.survival.models.survival_loss import LossTargets, SurvivalLoss
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "survival_losses.json").read_text(encoding="utf-8"))
KINDS = (LogisticHazard, MultiTaskRegression, DeepHit)
NO_TORCHSURV = "torchsurv is not installed: pip install 'duplus-nnunet[survival]'"


@pytest.fixture
def torchsurv() -> None:
    """Skip without torchsurv, whose dependencies deprecate what they themselves use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torchsurv", reason=NO_TORCHSURV)


def make_outcome(count: int, seed: int, digits: int = 0) -> Outcome:
    rng = np.random.default_rng(seed)
    return Outcome(rng.random(count) < 0.6, np.ceil(rng.exponential(10, count) * 10**digits) / 10**digits)


def make_loss(name: str, outcome: Outcome, bins: int = 4) -> SurvivalLoss:
    return fit_loss(name, outcome, bins)[0]


@pytest.mark.parametrize("case", GOLDEN["bins"], ids=lambda case: case["name"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_discrete_losses_are_those_of_pycox(kind: Any, case: dict[str, Any]) -> None:
    logits = torch.tensor(case["logits"], dtype=torch.float64)
    targets = LossTargets(torch.tensor(case["places"]), torch.tensor(case["seen"]))
    found = kind(np.arange(1.0, logits.shape[1] + 1)).compute(logits, targets)
    assert float(found) == pytest.approx(case["losses"][kind.name], abs=1e-5)


@pytest.mark.parametrize("case", GOLDEN["cox"], ids=lambda case: case["name"])
@pytest.mark.usefixtures("torchsurv")
def test_the_partial_likelihood_is_that_of_lifelines(case: dict[str, Any]) -> None:
    ranks = torch.from_numpy(np.unique(case["times"], return_inverse=True)[1])
    found = log_partial_likelihood(torch.tensor(case["log_hazards"]), torch.tensor(case["seen"]), ranks)
    assert float(found) == pytest.approx(case["log_likelihood"], rel=1e-5)


def sum_by_formula(log_hazards: Numbers, outcome: Outcome) -> float:
    """Efron's partial likelihood, a risk set at a time."""
    total = 0.0
    for time in np.unique(outcome.time[outcome.event]):
        had = outcome.event & (outcome.time == time)
        at_risk = np.exp(log_hazards[outcome.time >= time]).sum()
        tied, count = np.exp(log_hazards[had]).sum(), int(had.sum())
        total += log_hazards[had].sum() - sum(math.log(at_risk - k / count * tied) for k in range(count))
    return total


@pytest.mark.parametrize("digits", [0, 3])
@pytest.mark.usefixtures("torchsurv")
def test_the_partial_likelihood_is_the_sum_over_risk_sets(digits: int) -> None:
    outcome = make_outcome(40, 1, digits)
    log_hazards = np.random.default_rng(2).normal(size=40)
    loss = Cox()
    found = loss.compute(torch.tensor(log_hazards[:, None]), loss.make_targets(outcome))
    assert float(found) == pytest.approx(-sum_by_formula(log_hazards, outcome) / outcome.event.sum(), rel=1e-5)


@pytest.mark.usefixtures("torchsurv")
def test_patients_censored_at_an_event_time_are_at_risk_whatever_the_order() -> None:
    event, time = np.array([False, True, False, True, False]), np.array([2.0, 2.0, 2.0, 3.0, 3.0])
    log_hazards = np.array([2.0, 0.1, 1.0, -0.5, 3.0])
    loss, expected = Cox(), -sum_by_formula(log_hazards, Outcome(event, time)) / 2
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0, 3, 4, 2]):
        targets = loss.make_targets(Outcome(event, time).take(order))
        found = loss.compute(torch.tensor(log_hazards[order, None]), targets)
        assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("torchsurv")
def test_the_held_out_loss_uses_risk_sets_of_all_patients() -> None:
    outcome, held = make_outcome(30, 3), [0, 4, 7, 9, 20]
    log_hazards = np.random.default_rng(4).normal(size=30)
    rest = np.setdiff1d(np.arange(30), held)
    expected = sum_by_formula(log_hazards[rest], outcome.take(rest)) - sum_by_formula(log_hazards, outcome)
    loss = Cox()
    found = loss.compute_held_out(torch.tensor(log_hazards[:, None]), loss.make_targets(outcome), torch.tensor(held))
    assert float(found) == pytest.approx(expected / outcome.event[held].sum(), rel=1e-4)


def test_breslows_baseline_is_a_sum_over_events() -> None:
    outcome = Outcome(np.array([True, False, True, True, True]), np.array([2.0, 2.0, 3.0, 3.0, 7.0]))
    log_hazards = np.log([1.0, 2.0, 3.0, 4.0, 5.0])
    times, hazards = fit_breslow_baseline(log_hazards, outcome)
    np.testing.assert_array_equal(times, [2, 3, 7])
    np.testing.assert_allclose(hazards, np.cumsum([1 / 15, 2 / 12, 1 / 5]))
    # With risks that are far apart, those of the last patients count as they are.
    far = np.array([300.0, 300.0, 0.0, 0.0, -300.0])
    np.testing.assert_allclose(fit_log_baseline(far, outcome)[1], [-300 - math.log(2), 0.0, 300.0], atol=1e-9)


def test_coxs_survival_falls_in_steps_from_breslows_baseline() -> None:
    outcome = Outcome(np.array([True, False, True]), np.array([2.0, 3.0, 5.0]))
    logits = torch.tensor([[0.3], [-0.2], [0.8]])
    loss = Cox().fit_baseline(logits, outcome)
    curves = loss.predict_survival(logits[:1], np.array([0.0, 1.9, 2.0, 4.0, 5.0, 99.0]))
    ratios = np.exp(logits[:, 0].double().numpy())
    steps = np.array([0, 0, 1 / ratios.sum(), 1 / ratios.sum(), 1 / ratios.sum() + 1 / ratios[2]])
    np.testing.assert_allclose(curves[0], np.exp(-ratios[0] * np.append(steps, steps[-1])), rtol=1e-6)
    assert loss.predict_risk(logits).mean() == pytest.approx(0, abs=1e-6)


def event_probabilities(loss: Any, logits: Numbers) -> Numbers:
    """Probabilities of the event in each bin and of none, (N, T + 1), from first principles."""
    if isinstance(loss, LogisticHazard):
        hazards = 1 / (1 + np.exp(-logits))
        alive = np.cumprod(np.hstack([np.ones((len(logits), 1)), 1 - hazards]), axis=1)
        return np.hstack([hazards * alive[:, :-1], alive[:, -1:]])
    scores = logits if isinstance(loss, DeepHit) else np.cumsum(logits[:, ::-1], axis=1)[:, ::-1]
    powers = np.exp(np.hstack([scores, np.zeros((len(logits), 1))]))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float64)


def rank_by_formula(probabilities: Numbers, places: list[int], seen: list[bool]) -> float:
    """DeepHit's ranking loss, over pairs in which one had the event in a bin that the other survived."""
    by_then, count, total = np.cumsum(probabilities, axis=1), len(places), 0.0
    for i in range(count):
        for j in range(count):
            if seen[i] and places[j] > places[i]:
                total += math.exp(-(by_then[i, places[i]] - by_then[j, places[i]]) / 0.1)
    return total / count**2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_discrete_losses_curves_and_risks_follow_from_the_probabilities(kind: Any) -> None:
    edges = np.array([1.0, 2.0, 4.0])
    outcome = Outcome(np.array([True, False, True, False, True, False]), np.array([1.0, 0.5, 3.0, 9.0, 5.0, 2.0]))
    loss = kind(edges)
    logits = np.random.default_rng(0).normal(size=(6, 3))
    probabilities = event_probabilities(loss, logits)
    # The first had the event in bin 0; the others are known to be free of it by the end of 0, 2, 3, 3 and 2 bins.
    places, seen = [0, 0, 2, 3, 3, 2], [True, False, True, False, False, False]
    likely = [
        probabilities[row, place] if had else probabilities[row, place:].sum()
        for row, (place, had) in enumerate(zip(places, seen, strict=True))
    ]
    likely[1] = probabilities[1, 1:].sum() ** 0.5  # it was free of the event in the first half of the first bin
    expected = -np.mean(np.log(likely))
    if kind is DeepHit:
        expected = 0.2 * expected + 0.8 * rank_by_formula(probabilities, places, seen)
    targets = loss.make_targets(outcome)
    assert (targets.places.tolist(), targets.seen.tolist()) == (places, seen)
    tensor = torch.from_numpy(logits)
    assert float(loss.compute(tensor, targets)) == pytest.approx(expected, abs=1e-6)
    free = 1 - np.cumsum(probabilities, axis=1)[:, :3]
    found = loss.predict_survival(tensor, np.array([0.0, 1.0, 2.0, 3.0, 4.0, 50.0]))
    middle = np.sqrt(free[:, 1] * free[:, 2])
    np.testing.assert_allclose(found, np.stack([free[:, 0] ** 0, *free[:, :2].T, middle, *free[:, [2, 2]].T], 1))
    np.testing.assert_allclose(loss.predict_risk(tensor), (1 - free).mean(1))


@pytest.mark.parametrize("name", LOSSES)
def test_initial_outputs_predict_the_average_survival(name: str) -> None:
    outcome = make_outcome(400, 5)
    loss = make_loss(name, outcome)
    start = loss.initial_outputs(loss.make_targets(outcome)).repeat(400, 1)
    fitted = loss.fit_baseline(start, outcome)
    times = np.unique(outcome.time[outcome.event])
    alive = np.cumprod(
        [1 - np.mean(outcome.event[outcome.time >= t] & (outcome.time[outcome.time >= t] == t)) for t in times]
    )
    at = [2, 5, 9]
    found = fitted.predict_survival(start[:1], times[at])[0]
    np.testing.assert_allclose(found, alive[at], atol=0.07)


@pytest.mark.parametrize("kind", ["censored", "single", "single censored", "ties", "one event", "far apart"])
@pytest.mark.parametrize("name", LOSSES)
def test_odd_batches_give_finite_losses_and_gradients(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    if name == "cox":
        request.getfixturevalue("torchsurv")
    cases = {
        "censored": ([False] * 4, [1.0, 2.0, 3.0, 4.0]),
        "single": ([True], [2.0]),
        "single censored": ([False], [2.0]),
        "ties": ([True, True, False, True], [2.0] * 4),
        "one event": ([False, False, True, False], [1.0, 2.0, 3.0, 4.0]),
        "far apart": ([True, True, True, True], [1.0, 2.0, 3.0, 9.0]),
    }
    event, time = cases[kind]
    loss = make_loss(name, Outcome(np.array([True, True]), np.array([2.0, 3.0])))
    logits = torch.randn(len(time), loss.outputs, generator=torch.Generator().manual_seed(0))
    logits = (logits * (200 if kind == "far apart" else 1)).requires_grad_()
    found = loss.compute(logits, loss.make_targets(Outcome(np.array(event), np.array(time))))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_higher_outputs_are_a_higher_risk_and_a_lower_curve(name: str) -> None:
    outcome = make_outcome(50, 6)
    loss = make_loss(name, outcome)
    logits = torch.tensor([[-1.0], [0.0], [1.0]]).repeat(1, loss.outputs)
    loss = loss.fit_baseline(logits[:, : loss.outputs].repeat(17, 1)[:50], outcome)
    risk = loss.predict_risk(logits)
    assert (risk.diff() > 0).all()
    curves = loss.predict_survival(logits, np.array([5.0, 10.0]))
    assert (np.diff(curves, axis=0) < 0).all()
    assert (np.diff(curves, axis=1) <= 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reads_back_from_json(name: str) -> None:
    outcome = make_outcome(20, 7)
    loss = make_loss(name, outcome)
    logits = torch.randn(20, loss.outputs, generator=torch.Generator().manual_seed(1))
    loss = loss.fit_baseline(logits, outcome)
    again = read_loss(json.loads(json.dumps(loss.to_plain())))
    times = np.array([1.0, 5.0, 40.0])
    np.testing.assert_array_equal(again.predict_survival(logits, times), loss.predict_survival(logits, times))
    np.testing.assert_array_equal(again.predict_risk(logits), loss.predict_risk(logits))


@pytest.mark.parametrize(
    "plain", [{}, {"name": "hinge"}, {"name": "mtlr"}, {"name": "cox", "times": ["a"], "hazards": []}]
)
def test_an_invalid_stored_loss_is_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="stored loss"):
        read_loss(plain)


def test_settings_list_all_losses() -> None:
    assert set(LOSSES) == set(SURVIVAL_LOSSES)
    with pytest.raises(ModelError, match=r"'mtl'.*'mtlr'"):
        fit_loss("mtl", make_outcome(9, 0), 3)


def test_fewer_events_than_bins_give_fewer_bins_and_a_note() -> None:
    outcome = Outcome(np.array([True, False, True, True]), np.array([5.0, 50.0, 1.0, 5.0]))
    loss, notes = fit_loss("mtlr", outcome, 10)
    assert loss.outputs == 2
    assert len(notes) == 1
    assert "2 time bin(s)" in notes[0]
    assert "10" in notes[0]
    assert not fit_loss("mtlr", make_outcome(60, 0, digits=3), 10)[1]


def test_cox_without_torchsurv_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchsurv.loss", None)
    monkeypatch.setitem(sys.modules, "torchsurv", None)
    loss = Cox()
    with pytest.raises(DataError, match=r"pip install 'duplus-nnunet\[survival\]'"):
        loss.compute(torch.zeros(3, 1), loss.make_targets(make_outcome(3, 0)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_who_is_censored_within_a_bin_counts_until_then(kind: Any) -> None:
    # Of one bin of 10 days, 20 patients have the event and 60 are censored after 5 days. With a constant hazard, the
    # most likely survival s fulfils 20 s / (1 - s) = 60 / 2.
    outcome = Outcome(np.arange(80) < 20, np.where(np.arange(80) < 20, 8.0, 5.0))
    loss = kind(np.array([10.0]))
    targets, logit = loss.make_targets(outcome), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        found: torch.Tensor = loss.compute(logit.expand(80, 1), targets)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(step)
    survival = loss.predict_survival(logit.detach()[None], np.array([10.0]))[0, 0]
    assert survival == pytest.approx(0.6, abs=1e-3)
    start = loss.predict_survival(loss.initial_outputs(targets)[None], np.array([10.0]))[0, 0]
    assert start == pytest.approx(0.6, abs=0.01)
