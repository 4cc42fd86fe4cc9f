"""The network on records: time bins, the hazard loss, and a planted signal."""

import math

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.metrics import (
    concordance,
    pool,
)
from duplus_nnunet.survival.models.hazard import (
    RecordNetwork,
    choose_bin_edges,
    logistic_hazard_loss,
    make_hazard_targets,
    predict_risk,
    predict_survival,
    train_record_network,
)
from duplus_nnunet.survival.records.encoding import fit_encoder
from duplus_nnunet.survival.records.outcome import Outcome
from duplus_nnunet.survival.records.table import SEEN

from ..cohorts import SCHEMA, make_records


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
    expected = -np.mean([math.log(0.1), math.log(0.9), math.log(0.9 * 0.8 * 0.3), math.log(0.9 * 0.8 * 0.7)])
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


def test_a_network_learns_a_planted_signal_reproducibly() -> None:
    records = make_records(80)
    outcome = Outcome(np.array([r.event == SEEN for r in records]), np.array([r.time for r in records]))
    numbers, _ = fit_encoder(records, SCHEMA).encode(records)
    found = [train_record_network(numbers[:60], outcome.take(range(60)), range(12), 0) for _ in range(2)]
    with torch.no_grad():
        risks = [predict_risk(network(torch.from_numpy(numbers[60:]))) for network, _ in found]
    np.testing.assert_array_equal(*risks)
    assert pool([concordance(outcome.take(range(60, 80)), risks[0])]) > 0.75
