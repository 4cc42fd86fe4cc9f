"""Networks of clinical records that are trained side by side."""

import numpy as np
import pytest
import torch

from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.models import record_training
from duplus_nnunet.survival.models.hazard import predict_risk, predict_survival
from duplus_nnunet.survival.models.record_training import train_record_networks
from duplus_nnunet.survival.records.encoding import fit_encoder
from duplus_nnunet.survival.records.folds import Fold, make_folds
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, read_outcome

from ..cohorts import SCHEMA, make_records


def predict(features: Numbers, outcome: Outcome, folds: list[Fold], test: Numbers, seed: int = 0) -> Numbers:
    """Return the mean risk of networks."""
    networks, _ = train_record_networks(features.astype(np.float32), outcome, folds, seed)
    with torch.no_grad():
        return np.mean([predict_risk(network(torch.from_numpy(test).float())) for network in networks], axis=0)


def draw(effect: str, patients: int = 300) -> tuple[Numbers, Outcome]:
    """Draw two covariates and outcomes whose log hazard depends on them."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(patients, 2))
    log_hazard = {"none": 0 * x[:, 0], "product": 1.5 * x[:, 0] * x[:, 1], "linear": 1.5 * x[:, 0]}[effect]
    event, censoring = rng.exponential(400 * np.exp(-log_hazard)), rng.exponential(1500, patients)
    return x, Outcome(event <= censoring, np.maximum(1.0, np.minimum(event, censoring)))


def split(count: int, parts: int = 5) -> list[Fold]:
    rows = range(count)
    return [Fold(tuple(row for row in rows if row % parts != part), tuple(rows[part::parts])) for part in range(parts)]


def test_networks_learn_a_planted_signal_reproducibly() -> None:
    records = make_records(80)
    outcome, (numbers, _) = read_outcome(records), fit_encoder(records, SCHEMA).encode(records)
    folds = make_folds(records[:60], 5, 0)
    first, second = (predict(numbers[:60], outcome.take(range(60)), folds, numbers[60:]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert pool([concordance(outcome.take(range(60, 80)), first)]) > 0.8


def test_an_interaction_is_learned_that_no_linear_model_sees() -> None:
    x, outcome = draw("product")
    risk = predict(x[:200], outcome.take(range(200)), split(200), x[200:])
    assert pool([concordance(outcome.take(range(200, 300)), risk)]) > 0.65


def test_without_an_effect_predictions_hardly_differ() -> None:
    x, outcome = draw("none")
    networks, edges = train_record_networks(x.astype(np.float32), outcome, split(300), 0)
    with torch.no_grad():
        logits = [network(torch.from_numpy(x)) for network in networks]
    curves = np.mean([predict_survival(own, edges, edges[[5]]) for own in logits], axis=0)
    assert curves.std() < 0.05


def test_the_weights_of_held_out_patients_do_not_matter_to_their_network() -> None:
    x, outcome = draw("linear", 60)
    folds = split(60, 2)
    networks, edges = train_record_networks(x.astype(np.float32), outcome, folds, 0)
    late = outcome.time.copy()
    late[list(folds[0].test)] = float(edges[-1])
    other = Outcome(outcome.event & ~np.isin(np.arange(60), folds[0].test), late)
    targets = [record_training.make_hazard_targets(one, edges) for one in (outcome, other)]
    held_out = torch.zeros(1, 60)
    held_out[0, list(folds[0].test)] = 1
    inputs = torch.from_numpy(x).float()
    trained = [
        record_training._train(inputs, record_training._Targets(*one), held_out, (0.3,), 0).linear.detach()
        for one in targets
    ]
    np.testing.assert_array_equal(*trained)
    assert len(networks) == 2 * len(folds)


def test_survival_is_right_on_average_where_many_are_censored_within_a_bin() -> None:
    rng = np.random.default_rng(0)
    event, censoring = rng.exponential(100, 400), rng.exponential(100, 400)
    outcome = Outcome(event <= censoring, np.minimum(event, censoring))
    x = rng.normal(size=(400, 1))
    networks, edges = train_record_networks(x.astype(np.float32), outcome, split(400), 0)
    time = np.array([150.0])
    with torch.no_grad():
        curves = [predict_survival(network(torch.from_numpy(x)), edges, time).mean() for network in networks]
    assert np.mean(curves) == pytest.approx(np.exp(-1.5), abs=0.04)


@pytest.mark.parametrize("entry", [None, 20.0])
def test_a_patient_who_enters_late_is_at_risk_in_a_part_of_the_first_bin(entry: float | None) -> None:
    x, outcome = draw("linear", 100)
    late = Outcome(outcome.event, outcome.time + 20.0, None if entry is None else np.full(100, entry))
    networks, edges = train_record_networks(x.astype(np.float32), late, split(100), 0)
    first = edges[0]
    with torch.no_grad():
        curves = np.mean([predict_survival(one(torch.from_numpy(x)), edges, np.array([first])) for one in networks], 0)
    had = (late.event & (late.time <= first)).mean()
    at_risk = 1 - (entry or 0.0) / first
    assert at_risk == 1 or at_risk < 0.7
    assert 1 - curves.mean() == pytest.approx(had / (had + (1 - had) * at_risk), abs=0.06)


def test_networks_are_trained_by_one_thread_and_the_number_of_threads_is_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, train = [], record_training._train

    def spy(*args: object) -> object:
        seen.append(torch.get_num_threads())
        return train(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(record_training, "_train", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        features, outcome = draw("linear", 60)
        predict(features, outcome, split(60), features)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
