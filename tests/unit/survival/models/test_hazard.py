"""The network on records: time bins, the hazard loss, and ranks."""

import math

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.models.hazard import (
    RecordNetwork,
    choose_bin_edges,
    choose_knots,
    logistic_hazard_loss,
    make_hazard_targets,
    predict_risk,
    predict_survival,
    rank_values,
)
from duplus_nnunet.survival.records.outcome import Outcome


def test_bins_are_cut_from_events_only() -> None:
    outcome = Outcome(np.array([True, False, True, True]), np.array([5.0, 50.0, 1.0, 9.0]))
    np.testing.assert_array_equal(choose_bin_edges(outcome, 10), [1, 5, 9])
    assert len(choose_bin_edges(outcome, 2)) == 2
    with pytest.raises(DataError, match="bins"):
        choose_bin_edges(Outcome(np.zeros(3, bool), np.ones(3)), 4)


def test_the_loss_is_the_likelihood_of_the_formula() -> None:
    outcome = Outcome(np.array([True, False, True, False]), np.array([1.0, 1.5, 3.0, 9.0]))
    edges = np.array([1.0, 2.0, 3.0])
    hazards = np.array([[0.1, 0.2, 0.3]] * 4)
    # The second patient is censored in the middle of the second bin.
    chances = [0.1, 0.9 * 0.8**0.5, 0.9 * 0.8 * 0.3, 0.9 * 0.8 * 0.7]
    expected = -np.mean(np.log(chances))
    logits = torch.logit(torch.tensor(hazards, dtype=torch.float32))
    loss = float(logistic_hazard_loss(logits, *make_hazard_targets(outcome, edges)))
    assert loss == pytest.approx(expected, abs=1e-6)
    at_edge = make_hazard_targets(Outcome(np.array([False, False]), np.array([1.0, 3.0])), edges)
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
    targets = make_hazard_targets(Outcome(np.array(event), np.array(time)), np.array([2.0, 3.0]))
    loss = logistic_hazard_loss(network(torch.randn(len(time), 3)), *targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())


def test_who_is_censored_within_a_bin_is_at_risk_in_it_until_then() -> None:
    outcome = Outcome(
        np.array([False, True, False, True, False]),
        np.array([12.5, 12.5, 40.0, 40.0, 10.0]),
        np.array([0.0, 0.0, 5.0, 15.0, 0.0]),
    )
    at_risk, event = make_hazard_targets(outcome, np.array([10.0, 20.0, 30.0]))
    expected = [[1, 0.25, 0], [1, 1, 0], [0.5, 1, 1], [0, 0.5, 1], [1, 0, 0]]
    np.testing.assert_allclose(at_risk, expected)
    np.testing.assert_array_equal(event.sum(1), [0, 1, 0, 0, 0])
    assert event[1, 1] == 1


def test_ranks_have_mean_0_and_spread_1_whatever_the_scale() -> None:
    values = torch.arange(1000.0)[:, None]
    columns = torch.cat([values, values * 7 - 3, (values / 100).exp()], 1).double()
    ranks = rank_values(columns, choose_knots(columns))
    np.testing.assert_allclose(ranks.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(ranks.std(0), 1, atol=0.01)
    np.testing.assert_allclose(ranks[:, 0], ranks[:, 1], atol=1e-6)
    assert (ranks.diff(dim=0) >= 0).all()


def test_tied_values_share_a_rank_and_far_values_take_that_of_the_last() -> None:
    half = torch.cat([torch.zeros(50), torch.arange(1.0, 51.0)])[:, None]
    knots = choose_knots(half)
    zero, low, high, higher = rank_values(torch.tensor([[0.0], [-9.0], [50.0], [1e9]]), knots)[:, 0]
    assert zero == low
    assert high == higher
    # Of 21 knots, the first 11 are 0: their mean is the 6th, and a quarter of the range.
    assert float(zero) == pytest.approx((0.25 - 0.5) * math.sqrt(12), abs=1e-6)
    assert float(high) == pytest.approx(0.5 * math.sqrt(12), abs=1e-6)


def test_columns_of_few_values_have_no_ranks() -> None:
    binary = torch.tensor([0.0, 1.0]).repeat(20)[:, None]
    constant = torch.zeros(40, 1)
    both = torch.cat([binary, constant], 1)
    np.testing.assert_array_equal(rank_values(both, choose_knots(both)), np.zeros((40, 2)))
