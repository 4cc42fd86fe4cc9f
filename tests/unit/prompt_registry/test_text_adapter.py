"""LoRA on a text encoder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry import EncoderIdentity, embed
from duplus_nnunet.prompt_registry.adapter import AdaptedEncoder
from duplus_nnunet.prompt_registry.encoder import TextEncoder
from duplus_nnunet.prompt_registry.encoder_folder import find_wheel
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER
from duplus_nnunet.settings import TextAdapterSettings

TEXTS = ["a liver", "left kidney of a computed tomography", "a spleen"]


def identify(folder: Path, pooling: str | None = None) -> EncoderIdentity:
    return TextEncoder(str(folder), pooling).identity


def adapt(folder: Path, pooling: str | None = None, **settings: object) -> AdaptedEncoder:
    return AdaptedEncoder(identify(folder, pooling), TextAdapterSettings(enabled=True, r=2, **settings))  # type: ignore[arg-type]


@pytest.fixture(params=["bert", "clip"])
def encoder(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.mark.parametrize("pooling", ["mean", "cls", "eos"])
def test_a_fresh_adapter_does_nothing(encoder: Path, pooling: str) -> None:
    stored = torch.from_numpy(embed(TEXTS, encoder, pooling)[0])
    torch.testing.assert_close(adapt(encoder, pooling).encode(TEXTS), stored, atol=1e-3, rtol=0)


def test_another_adapter_does_something(encoder: Path) -> None:
    adapted = adapt(encoder)
    before = adapted.encode(TEXTS)
    for weight in adapted.weights.values():
        torch.nn.init.normal_(weight)
    assert (adapted.encode(TEXTS) - before).abs().max() > 1e-2


def test_only_the_adapter_has_gradients(encoder: Path) -> None:
    adapted = adapt(encoder)
    adapted.encode(TEXTS)[:, 0].sum().backward()
    model = adapted._encoder.model
    assert all((weight.grad is not None) == ("lora_" in name) for name, weight in model.named_parameters())


def test_query_and_value_are_adapted_whatever_they_are_called(bert: Path, clip: Path) -> None:
    assert {name.rpartition(".")[2] for name in adapt(bert).layers} == {"query", "value"}
    assert {name.rpartition(".")[2] for name in adapt(clip).layers} == {"q_proj", "v_proj"}


def test_other_layers_are_adapted_on_request_but_never_the_pooler(bert: Path) -> None:
    layers = adapt(bert, target_modules=("dense", "key")).layers
    assert len(layers) == 8
    assert not [name for name in layers if "pooler" in name]


def test_an_unknown_layer_lists_those_there_are(bert: Path) -> None:
    with pytest.raises(EncoderError, match=r"'q_proj'; .*'dense', 'key', 'query', 'value'"):
        adapt(bert, target_modules=("value", "q_proj"))


def test_layers_that_no_embedding_depends_on_are_refused(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_first_layer(self: TextEncoder, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(texts, return_tensors="pt")
        states: torch.Tensor = self.model(**tokens, output_hidden_states=True).hidden_states[1]
        return states.mean(1)

    monkeypatch.setattr(TextEncoder, "run", run_first_layer)
    with pytest.raises(EncoderError, match=r"4 weights .*layer\.1\."):
        adapt(bert)


def test_the_adapters_dropout_is_at_work_only_when_asked_for(bert: Path) -> None:
    adapted = adapt(bert, lora_dropout=0.5)
    for weight in adapted.weights.values():
        torch.nn.init.normal_(weight)
    noisy = [adapted.encode(TEXTS, dropout=True) for _ in range(2)]
    quiet = [adapted.encode(TEXTS) for _ in range(2)]
    assert not torch.equal(*noisy)
    assert torch.equal(*quiet)


def test_an_encoder_with_other_weights_is_refused(tmp_path: Path, save_bert: Callable[..., Path]) -> None:
    expected = identify(save_bert(tmp_path / "own"))
    save_bert(tmp_path / "own", seed=1)
    with pytest.raises(EncoderError, match=r"found sha256 "):
        AdaptedEncoder(expected, TextAdapterSettings(enabled=True))


def test_an_encoder_of_another_dimension_is_refused(bert: Path) -> None:
    expected = EncoderIdentity(str(bert), "mean", identify(bert).sha256, 384)
    with pytest.raises(EncoderError, match=r"found dimension 16 instead of 384"):
        AdaptedEncoder(expected, TextAdapterSettings(enabled=True))


def test_a_missing_encoder_is_named(tmp_path: Path) -> None:
    expected = EncoderIdentity(str(tmp_path / "gone"), "mean", "0" * 64, 16)
    with pytest.raises(EncoderError, match=r"does not exist"):
        AdaptedEncoder(expected, TextAdapterSettings(enabled=True))


@pytest.mark.skipif(find_wheel() is None, reason="the extra 'offline' is not installed")
def test_the_default_encoder_reproduces_the_shipped_embeddings() -> None:
    texts = ["A computed tomography of spleen", "left kidney", "A magnetic resonance imaging of brain"]
    adapted = AdaptedEncoder(DEFAULT_ENCODER, TextAdapterSettings(enabled=True))
    assert len(adapted.layers) == 12
    torch.testing.assert_close(adapted.encode(texts), torch.from_numpy(embed(texts)[0]), atol=1e-3, rtol=0)
