"""The LoRA: what is trained, and how features are standardised."""

import numpy as np
import pytest
import torch

from duplus_nnunet.networks import Prompts
from duplus_nnunet.networks.adaptation import name_in_base
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.table import CENSORED, SEEN
from duplus_nnunet.survival.training.lora import (
    ADAPTER,
    HazardHead,
    HazardTargets,
    attach_lora,
    make_lora_spec,
)

from .parts import make_network, make_record

SETTINGS = SurvivalSettings(lora_r=4)


def test_the_encoder_alone_gives_the_bottleneck_that_the_network_has() -> None:
    network, image = make_network(), torch.randn(1, 1, 16, 16, 16)
    seen = list[torch.Tensor]()
    network.encoder.register_forward_hook(lambda *call: seen.append(call[2][-1]))
    network(image)
    assert torch.equal(network.encode(image), seen[0])
    other = network.encode(image, Prompts(torch.randn(1, 8), torch.randn(1, 8)))
    assert not torch.equal(other, seen[0])  # the context prompt steers it


def test_gradient_reaches_every_layer_of_the_lora_and_nothing_of_the_base() -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.randn(4, 1, 16, 16, 16)
    answer = network(image)
    weights = attach_lora(network, make_lora_spec(network, SETTINGS))
    head = HazardHead(8, 1, 3)
    records = [make_record(str(n), 1.0 + n, SEEN if n < 3 else CENSORED) for n in range(4)]
    targets = HazardTargets.of(records, records, 3)
    optimizer = torch.optim.AdamW([*weights, *head.parameters()], 1e-2)
    network.train()
    for _ in range(2):  # the second factor starts at 0, so that the first gets no gradient in the first step
        optimizer.zero_grad()
        network.default_adapter = ADAPTER
        pooled = network.encode(image).mean((2, 3, 4))
        network.default_adapter = ""
        targets.measure(head(pooled, torch.zeros(4, dtype=torch.int64)), list("0123")).backward()
        optimizer.step()
    assert weights
    assert all(weight.grad is not None and bool(weight.grad.abs().max() > 0) for weight in weights)
    own = {id(weight) for weight in weights}
    assert all(value.grad is None for value in network.parameters() if id(value) not in own)
    after = {name_in_base(name): value for name, value in network.state_dict().items() if name_in_base(name)}
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with torch.no_grad():
        assert torch.equal(network(image)[0], answer[0])


def test_features_are_standardised_by_the_context_of_training_patients_alone() -> None:
    rows = {"a": np.array([1.0, 10.0]), "b": np.array([3.0, np.nan]), "held": np.array([1e6, 1e6])}
    table = FeatureTable(("x", "y"), ("ct", "pet"), ("pooled", "pooled"),
                         {name: row.astype(np.float32) for name, row in rows.items()})  # fmt: skip
    head = HazardHead(1, 3, 2)
    head.start(table, ["ct", "pet", "mr"], ["a", "b"])
    assert head.mean[:, 0].tolist() == [2.0, 10.0, 0.0]
    assert head.scale[0, 0].item() == pytest.approx(1.0, rel=1e-4)


def test_a_modality_of_one_patient_is_not_scaled_up() -> None:
    rows = {"a": np.array([5.0], np.float32), "b": np.array([np.nan], np.float32)}
    head = HazardHead(1, 1, 2)
    head.start(FeatureTable(("x",), ("ct",), ("pooled",), rows), ["ct"], ["a", "b"])
    assert (head.mean.item(), head.scale.item()) == (5.0, 1.0)
    rows = {patient: np.array([1000 + 1e-4 * row], np.float32) for row, patient in enumerate("ab")}
    head.start(FeatureTable(("x",), ("ct",), ("pooled",), rows), ["ct"], ["a", "b"])
    assert head.scale.item() == 1.0


def test_a_rank_that_no_layer_has_is_refused() -> None:
    with pytest.raises(ValueError, match="lora_r is 64"):
        make_lora_spec(make_network(), SurvivalSettings(lora_r=64))
