"""A text encoder that learns with the network: training, checkpoints, and prediction without it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import EncoderError, ModelError, PlansError, PromptError
from duplus_nnunet.networks import ConditionedUNet, Prompts, TextTable, condition
from duplus_nnunet.prompt_bank import PromptBank, encode_vector, measure_centre
from duplus_nnunet.prompt_registry import embed
from duplus_nnunet.prompt_registry.encoder import TextEncoder
from duplus_nnunet.settings import read_settings
from duplus_nnunet.trainers.schedule import GroupSchedule, always
from duplus_nnunet.trainers.seeding import Seeds
from duplus_nnunet.trainers.text_adaptation import open_texts

SENTENCES = {
    "liver": ["a computed tomography of liver", "liver of a computed tomography", "a liver"],
    "spleen": ["a computed tomography of spleen", "spleen of a computed tomography", "spleen"],
}
CONTEXTS = ["a computed tomography", "computed tomography"]


@pytest.fixture
def plans(bert: Path) -> dict[str, Any]:
    """Plans whose prompts a tiny BERT embedded, and which ask for it to be adapted."""
    kinds = {"context": CONTEXTS, "sentence": [text for many in SENTENCES.values() for text in many]}
    kinds["name"] = list(SENTENCES)
    texts = list(dict.fromkeys(text for many in kinds.values() for text in many))
    vectors, identity = embed(texts, bert)
    by_text = dict(zip(texts, vectors, strict=True))
    section = {
        "version": 1,
        "settings": {"text_adapter": {"enabled": True, "r": 2, "learning_rate_factor": 0.5}},
        "default_context": "ct",
        "contexts": {"ct": {"sentences": CONTEXTS, "target_prompts": SENTENCES}},
        "targets": [{"name": name, "label": name} for name in SENTENCES],
        "centres": {kind: measure_centre([by_text[text] for text in many]) for kind, many in kinds.items()},
        "embeddings": {text: encode_vector(vector) for text, vector in by_text.items()},
        "encoder": identity.to_dict(),
    }
    return {"plans_name": "Test", "duplus": section}


def switch_off(plans: dict[str, Any]) -> dict[str, Any]:
    return {**plans, "duplus": {**plans["duplus"], "settings": {}}}


def make_network(plans: Mapping[str, Any]) -> ConditionedUNet:
    """Build a network as the trainer does for nnU-Net: from the plans alone."""
    torch.manual_seed(0)
    unet = PlainConvUNet(
        1, 2, [4, 8], nn.Conv3d, 3, [1, 2], 1, 1, 1, True, nn.InstanceNorm3d, {"affine": True}, None, None,
        nn.LeakyReLU, {"inplace": True}, False,
    )  # fmt: skip
    bank = PromptBank(plans)
    adapted = read_settings(plans).text_adapter.enabled
    network = condition(unet, bank.embedding, texts=TextTable(bank.keys, bank.vectors) if adapted else None)
    nn.init.normal_(network.film.out.weight, std=0.1)
    network.bind(bank.draw())
    return network


def ask(bank: PromptBank) -> list[tuple[str, list[str]]]:
    """Ask two images for all targets, in the default context."""
    return [(bank.default_context, bank.names)] * 2


class Training:
    """nnU-Net's optimizer and schedule on a small network."""

    def __init__(self, plans: Mapping[str, Any]) -> None:
        self.bank = PromptBank(plans)
        self.texts = open_texts(self.bank, Seeds(0, 0))
        self.network = make_network(plans)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True
        )
        factors = [always(1), *self.texts.join(self.network, self.optimizer)]
        self.schedule = GroupSchedule(self.optimizer, PolyLRScheduler(self.optimizer, 1e-2, 10), factors)
        self.rng = np.random.default_rng(0)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The network's weights, copied."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def step(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network.train()
        self.network.bind(self.texts.draw(ask(self.bank), self.rng, 0.5))
        self.optimizer.zero_grad(set_to_none=True)
        (self.network(images()) - 1).square().mean().backward()
        self.optimizer.step()

    def save(self, file: Path) -> None:
        self.texts.refresh(self.network)
        torch.save({"network_weights": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}, file)


def images() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def predict(network: ConditionedUNet) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = network.eval()(images())
    return found


def forbid_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise EncoderError("no encoder here")

    monkeypatch.setattr(TextEncoder, "__init__", refuse)


def test_before_training_the_table_holds_the_plans_embeddings(plans: dict[str, Any]) -> None:
    training = Training(plans)
    training.texts.refresh(training.network)
    torch.testing.assert_close(training.network.texts.table, training.bank.vectors, atol=2e-2, rtol=1e-3)


def test_the_adapter_learns_and_the_embeddings_follow(plans: dict[str, Any]) -> None:
    training = Training(plans)
    training.texts.refresh(training.network)
    before = training.weights
    for _ in range(3):
        training.step()
    assert all(weight.grad is not None for weight in training.network.texts.adapter.values())
    training.texts.refresh(training.network)
    now = training.weights
    adapter = [name for name in now if name.startswith("texts.adapter.")]
    assert len(adapter) == 8
    assert all(not torch.equal(before[name], now[name]) for name in adapter)
    assert (before["texts.table"] - now["texts.table"]).abs().amax(1).min() > 1e-5


def test_the_encoder_itself_is_frozen(plans: dict[str, Any]) -> None:
    training = Training(plans)
    model = training.texts.encoder._encoder.model  # type: ignore[attr-defined]
    frozen = {name: weight.clone() for name, weight in model.named_parameters() if "lora_" not in name}
    training.step()
    assert all(torch.equal(dict(model.named_parameters())[name], weight) for name, weight in frozen.items())


def test_each_text_of_a_step_is_encoded_once(plans: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    training, calls = Training(plans), []
    run = TextEncoder.run
    monkeypatch.setattr(TextEncoder, "run", lambda self, texts: calls.append(texts) or run(self, texts))
    training.network.bind(training.texts.draw(ask(training.bank), training.rng, 0.0))
    assert calls == [[CONTEXTS[0], SENTENCES["liver"][0], "liver", SENTENCES["spleen"][0], "spleen"]]
    calls.clear()
    training.texts.draw(ask(training.bank), training.rng, 1.0)
    assert len(calls) == 1
    assert len(calls[0]) == len(set(calls[0]))


def test_the_table_is_filled_with_one_encoding_a_text_and_only_after_steps(
    plans: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training, calls = Training(plans), []
    run = TextEncoder.run
    monkeypatch.setattr(TextEncoder, "run", lambda self, texts: calls.extend(texts) or run(self, texts))
    for _ in range(3):
        training.texts.refresh(training.network)
    assert sorted(calls) == sorted(plans["duplus"]["embeddings"])


def test_a_checkpoint_holds_the_adapter_and_the_table_but_no_encoder(plans: dict[str, Any], tmp_path: Path) -> None:
    training = Training(plans)
    training.save(tmp_path / "c.pth")
    found = set(read_checkpoint(tmp_path / "c.pth")["network_weights"])
    added = {name for name in found if name.startswith("texts.")}
    assert found - added == set(make_network(switch_off(plans)).state_dict())
    assert {"texts.keys", "texts.table"} < added
    assert all("lora_" in name for name in added - {"texts.keys", "texts.table"})


def test_prediction_needs_no_encoder_and_is_that_of_the_training(
    plans: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(plans)
    for _ in range(2):
        training.step()
    training.save(tmp_path / "c.pth")
    training.network.bind(training.bank.draw())
    forbid_encoders(monkeypatch)
    network = make_network(plans)
    network.load_state_dict(read_checkpoint(tmp_path / "c.pth")["network_weights"])
    assert torch.equal(predict(network), predict(training.network))


def test_each_fold_predicts_with_its_own_embeddings(plans: dict[str, Any]) -> None:
    training = Training(plans)
    folds, expected = [], []
    for _ in range(2):
        training.step()
        training.texts.refresh(training.network)
        training.network.bind(training.bank.draw())
        folds.append(training.weights)
        expected.append(predict(training.network))
    network = make_network(plans)
    network.bind(training.bank.draw(targets=["spleen"]))
    for weights, whole in zip(folds, expected, strict=True):
        network.load_state_dict(weights)
        assert torch.equal(predict(network), whole[:, 1:])


def test_a_training_goes_on_exactly_where_it_was(plans: dict[str, Any], tmp_path: Path) -> None:
    first = Training(plans)
    first.step()
    first.save(tmp_path / "c.pth")
    second = Training(plans)
    found = torch.load(tmp_path / "c.pth", weights_only=True)
    second.network.load_state_dict(found["network_weights"])
    second.optimizer.load_state_dict(found["optimizer"])
    second.rng = np.random.default_rng(1)
    first.rng = np.random.default_rng(1)
    for training in (first, second):
        training.step()
        training.texts.refresh(training.network)
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())


def test_switched_off_nothing_is_added_and_no_encoder_is_loaded(
    plans: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_encoders(monkeypatch)
    training = Training(switch_off(plans))
    training.step()
    training.texts.refresh(training.network)
    assert not [name for name in training.network.state_dict() if name.startswith("texts")]
    assert len(training.optimizer.param_groups) == 1


def test_the_adapter_follows_the_schedule_at_its_own_rate(plans: dict[str, Any]) -> None:
    training = Training(plans)
    for epoch in (0, 5):
        training.schedule.step(epoch)
        network, adapter = (group["lr"] for group in training.optimizer.param_groups)
        assert network == pytest.approx(1e-2 * (1 - epoch / 10) ** 0.9)
        assert adapter == pytest.approx(network / 2)


def test_a_text_that_is_not_in_the_table_is_refused_outside_of_training(plans: dict[str, Any]) -> None:
    network = make_network(plans).eval()
    with pytest.raises(PromptError, match="text encoder"):
        network(images(), Prompts(network.prompts.context, network.prompts.targets))


def test_a_checkpoint_of_other_texts_is_refused(plans: dict[str, Any]) -> None:
    other = make_network(plans).state_dict()
    other["texts.keys"] = other["texts.keys"][1:]
    with pytest.raises(ModelError, match=r"\b9 other texts.*\b10 texts"):
        make_network(plans).load_state_dict(other)


def test_a_checkpoint_without_table_is_refused(plans: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="table of embeddings"):
        make_network(plans).load_state_dict(make_network(switch_off(plans)).state_dict())


def test_pretrained_weights_bring_their_adapter_but_not_their_table(plans: dict[str, Any]) -> None:
    old, new = Training(plans), Training(plans)
    old.step()
    old.texts.refresh(old.network)
    table = new.network.texts.table.clone()
    fresh = new.network.load_pretrained(old.weights)
    assert fresh == ["texts.keys", "texts.table"]
    assert torch.equal(new.network.texts.table, table)
    new.texts.refresh(new.network)
    assert torch.equal(new.network.texts.table, old.network.texts.table)


def test_an_encoder_that_is_gone_stops_before_training(plans: dict[str, Any], tmp_path: Path) -> None:
    plans["duplus"]["encoder"]["name"] = str(tmp_path / "gone")
    with pytest.raises(EncoderError, match="gone"):
        open_texts(PromptBank(plans), Seeds(0, 0))


def test_plans_that_do_not_name_their_encoder_are_refused(plans: dict[str, Any]) -> None:
    del plans["duplus"]["encoder"]
    with pytest.raises(PlansError, match=r"'Test'.*'encoder'"):
        open_texts(PromptBank(plans), Seeds(0, 0))


def test_ranks_learn_alike_and_one_may_have_nothing_to_validate(tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("ddp_text_rank.py"))
    ranks = [subprocess.Popen([sys.executable, script, str(rank), str(tmp_path)], cwd=tmp_path) for rank in range(2)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert not torch.equal(first["start"], first["weights"]["texts.adapter.layer/lora_B"])


def draw_adapter(plans: Mapping[str, Any], seeds: Seeds) -> torch.Tensor:
    """Return the initial weights of a training's adapter in one vector."""
    texts = open_texts(PromptBank(plans), seeds)
    return torch.cat([weight.detach().flatten() for weight in texts.encoder.weights.values()])  # type: ignore[attr-defined]


def test_initial_weights_of_the_adapter_depend_on_seed_and_fold_alone(plans: dict[str, Any]) -> None:
    first = draw_adapter(plans, Seeds(1, 0))
    torch.rand(3)
    assert torch.equal(draw_adapter(plans, Seeds(1, 0)), first)
    assert not torch.equal(draw_adapter(plans, Seeds(2, 0)), first)
    assert not torch.equal(draw_adapter(plans, Seeds(1, 1)), first)
