"""Training from scratch: what is trained, which epoch is kept, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.records.table import CENSORED, SEEN
from duplus_nnunet.survival.training.base import check_base, require_base
from duplus_nnunet.survival.training.checkpoint import VERSION, take_checkpoint
from duplus_nnunet.survival.training.lora import HazardHead, HazardTargets
from duplus_nnunet.survival.training.scratch import BestEpoch, learn_encoder, require_split
from duplus_nnunet.trainers import DuPLUSSurvivalTrainer
from duplus_nnunet.trainers.checkpoint import SURVIVAL_KEY

from .parts import make_network, make_record


def test_from_scratch_the_encoder_and_its_conditioning_are_trained_and_the_decoder_is_not() -> None:
    network = make_network()
    network.requires_grad_(False)
    weights = learn_encoder(network)
    head = HazardHead(8, 1, 3)
    records = [make_record(str(n), 1.0 + n, SEEN if n < 3 else CENSORED) for n in range(4)]
    pooled = network.train().encode(torch.randn(4, 1, 16, 16, 16)).mean((2, 3, 4))
    logits = head(pooled, torch.zeros(4, dtype=torch.int64))
    HazardTargets.of(records, records, 3).measure(logits, list("0123")).backward()  # type: ignore[no-untyped-call]
    own = {id(weight) for weight in weights}
    norms = [module for module in network.encoder.modules() if isinstance(module, nn.InstanceNorm3d)]
    kernels = [module.weight for module in network.encoder.modules() if isinstance(module, nn.Conv3d)]
    learned = [*kernels, *(norm.weight for norm in norms), *network.film.parameters()]
    assert own >= {id(weight) for weight in learned}
    assert all(weight.grad is not None and bool(weight.grad.abs().max() > 0) for weight in learned)
    assert not any(value.requires_grad for value in network.parameters() if id(value) not in own)


def test_from_scratch_needs_an_inner_split_and_refuses_a_base() -> None:
    with pytest.raises(DataError, match=r"settings\.survival\.encoder to 'pretrained'"):
        require_split(None)
    with pytest.raises(ModelError, match=r"base\.pth .*-pretrained_weights.* 'scratch'"):
        DuPLUSSurvivalTrainer.meet_base(SimpleNamespace(scratch=True), {}, "base.pth")  # type: ignore[arg-type]


def test_without_a_base_the_message_names_both_options() -> None:
    with pytest.raises(ModelError, match=r"-pretrained_weights .* to 'scratch'"):
        require_base(None)


def test_an_encoder_from_scratch_is_no_base() -> None:
    with pytest.raises(ModelError, match=r"c\.pth.*DuPLUSTrainer"):
        check_base({"network_weights": {}, SURVIVAL_KEY: {"encoder": "scratch"}}, "c.pth", make_network(), {})


def test_the_best_epoch_comes_back_from_a_checkpoint_and_leaves_the_decoder_alone(tmp_path: Path) -> None:
    network, best = make_network(), BestEpoch()
    network.requires_grad_(False)
    learned = {id(weight) for weight in learn_encoder(network)}
    best.offer(network, 2.0, 0)
    kept = {name: value.detach().clone() for name, value in network.named_parameters()}
    with torch.no_grad():
        for value in network.parameters():
            value.add_(1)
    best.offer(network, 3.0, 1)
    best.offer(network, float("nan"), 2)
    torch.save(best.to_plain(True), tmp_path / "best.pth")
    BestEpoch(**torch.load(tmp_path / "best.pth", weights_only=True)).put_back(network)
    for name, value in network.named_parameters():
        assert torch.equal(value, kept[name] if id(value) in learned else kept[name] + 1)
    assert best.to_plain(False) == {"loss": 2.0, "epoch": 0, "weights": {}}


def test_a_training_from_scratch_is_not_continued_with_another_encoder_setting(tmp_path: Path) -> None:
    torch.save({"network_weights": {}, SURVIVAL_KEY: {"version": VERSION, "encoder": "scratch"}}, tmp_path / "c.pth")
    settings = SimpleNamespace(survival=SurvivalSettings())
    with pytest.raises(ModelError, match=r"'scratch'.* 'pretrained'"):
        take_checkpoint(SimpleNamespace(bank=SimpleNamespace(embedding=(8, 8)), settings=settings), tmp_path / "c.pth")
