"""Features are kept if they lower the loss of inner held-out patients."""

import numpy as np
import pytest
import torch

from duplus_nnunet.survival.models.hazard import logistic_hazard_loss, predict_survival
from duplus_nnunet.survival.records.table import CENSORED, SEEN
from duplus_nnunet.survival.training.lora import HazardTargets
from duplus_nnunet.survival.training.selection import is_gain, measure_curves

from .parts import make_record


def test_the_loss_of_curves_is_the_networks_own_loss() -> None:
    records = [make_record(str(n), 1.0 + n, SEEN if n % 2 else CENSORED) for n in range(8)]
    targets = HazardTargets.of(records, records, 4)
    logits = torch.randn(8, len(targets.edges))
    curves = predict_survival(logits, targets.edges, targets.edges)
    expected = float(logistic_hazard_loss(logits, targets.risk, targets.had))
    assert measure_curves(curves, targets, list("01234567")).mean() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("after", "gained"), [([0.8, 1.7, 2.9], True), ([0.2, 2.3, 3.3], False), ([1.2, 2.1, 3.3], False)]
)
def test_a_lora_is_kept_if_it_gains_more_than_one_standard_error(after: list[float], gained: bool) -> None:
    assert is_gain(np.array([1.0, 2.0, 3.0]), np.array(after)) is gained


def test_one_patient_is_not_enough_for_a_gain() -> None:
    assert is_gain(np.array([1.0]), np.array([0.1])) is False
