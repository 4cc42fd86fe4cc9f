"""Text encoders: the default one where its package is installed, and tiny random ones."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry import EncoderIdentity, embed
from duplus_nnunet.prompt_registry.embedding import fill_store
from duplus_nnunet.prompt_registry.encoder import TextEncoder
from duplus_nnunet.prompt_registry.encoder_folder import find_wheel
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER
from duplus_nnunet.prompt_registry.store import SHIPPED_FOLDER, read_store

SaveBert = Callable[..., Path]
TEXTS = ["a liver", "left kidney of a computed tomography", "a spleen"]
needs_wheel = pytest.mark.skipif(find_wheel() is None, reason="the extra 'offline' is not installed")


@pytest.fixture(autouse=True)
def own_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUPLUS_EMBEDDINGS", str(tmp_path / "stores"))
    return tmp_path / "stores"


def test_importing_the_registry_loads_no_torch_and_no_transformers() -> None:
    code = (
        "import sys, duplus_nnunet.prompt_registry; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


def test_embedding_known_texts_loads_no_torch() -> None:
    code = "import sys; from duplus_nnunet.prompt_registry import embed; embed(['spleen'])"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("pooling", "chosen"), [(None, "mean"), ("mean", "mean"), ("cls", "cls"), ("eos", "eos")])
def test_a_local_folder_is_an_encoder(bert: Path, pooling: str | None, chosen: str) -> None:
    vectors, identity = embed(TEXTS, bert, pooling)
    assert vectors.shape == (3, 16)
    assert (identity.name, identity.pooling, identity.dimension) == (str(bert), chosen, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_poolings_differ(bert: Path) -> None:
    mean, cls, eos = (embed(TEXTS, bert, pooling)[0] for pooling in ("mean", "cls", "eos"))
    assert not np.allclose(mean, cls, atol=1e-2)
    assert not np.allclose(cls, eos, atol=1e-2)


@pytest.mark.parametrize("pooling", ["mean", "cls", "eos"])
def test_an_embedding_does_not_depend_on_its_neighbours(bert: Path, pooling: str) -> None:
    together = embed(TEXTS, bert, pooling)[0]
    alone = np.concatenate([embed([text], bert, pooling)[0] for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=2e-3)


def test_clip_is_read_at_its_last_token(clip: Path, words: list[str]) -> None:
    from transformers import CLIPTextModel

    vectors, identity = embed(["a liver"], clip)
    model = CLIPTextModel.from_pretrained(clip).eval()
    tokens = torch.tensor([[2, words.index("a"), words.index("liver"), 3]])
    expected = model(input_ids=tokens).pooler_output[0].detach().numpy()
    assert identity.pooling == "eos"
    np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), atol=2e-3)


def test_sentence_encoders_say_their_own_pooling(tmp_path: Path, save_bert: SaveBert) -> None:
    folder = save_bert(tmp_path / "sentence")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert TextEncoder(str(folder)).identity.pooling == "cls"


def test_an_unknown_pooling_lists_the_valid_ones(bert: Path) -> None:
    with pytest.raises(EncoderError, match=r"'max'.*'mean', 'cls', 'eos'"):
        embed(TEXTS, bert, "max")


def test_a_prompt_that_is_cut_warns(bert: Path) -> None:
    with pytest.warns(UserWarning, match=r"12 tokens; .* 32 .*'liver liver"):
        embed(["liver " * 30], bert)


def test_a_prompt_that_fits_does_not_warn(bert: Path) -> None:
    embed(["liver " * 10], bert)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path, save_bert: SaveBert) -> None:
    folder = save_bert(tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"has no tokenizer"):
        embed(TEXTS, folder)


def test_weights_of_another_architecture_are_refused(tmp_path: Path, clip: Path, save_bert: SaveBert) -> None:
    folder = save_bert(tmp_path / "mixed")
    (folder / "model.safetensors").write_bytes((clip / "model.safetensors").read_bytes())
    with pytest.raises(EncoderError, match=r"config\.json"):
        embed(TEXTS, folder)


@pytest.mark.parametrize("config", ["{}", "{", '{"model_type": "no such type"}'])
def test_a_config_that_transformers_does_not_know_is_refused(tmp_path: Path, save_bert: SaveBert, config: str) -> None:
    folder = save_bert(tmp_path / "odd")
    (folder / "config.json").write_text(config)
    with pytest.raises(EncoderError, match=r"cannot be loaded: "):
        embed(TEXTS, folder)


def test_remote_code_is_not_run(tmp_path: Path, save_bert: SaveBert) -> None:
    folder = save_bert(tmp_path / "remote")
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    (folder / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}')
    with pytest.raises(EncoderError, match=r"Python code \(evil.Config.*DUPLUS_TRUST_REMOTE_CODE="):
        embed(TEXTS, folder)


def give_own_code(folder: Path) -> Path:
    """Turn a BERT into an encoder whose classes no package has."""
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own_bert", "auto_map": own}))
    (folder / "own.py").write_text(
        "from transformers import BertConfig, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own_bert'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    return folder


def test_own_code_is_run_only_for_the_encoder_that_is_named(
    tmp_path: Path, bert: Path, save_bert: SaveBert, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = give_own_code(save_bert(tmp_path / "own"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("DUPLUS_TRUST_REMOTE_CODE", f"other, {folder}x")
    with pytest.raises(EncoderError, match="DUPLUS_TRUST_REMOTE_CODE="):
        embed(TEXTS, folder)
    monkeypatch.setenv("DUPLUS_TRUST_REMOTE_CODE", f"other, {folder}")
    np.testing.assert_allclose(embed(TEXTS, folder)[0], embed(TEXTS, bert)[0], atol=1e-3)


def test_an_encoder_of_another_dimension_than_expected_is_refused(bert: Path) -> None:
    expected = EncoderIdentity(str(bert), "mean", "0" * 64, 384)
    with pytest.raises(EncoderError, match=r"found dimension 16 instead of 384"):
        embed(TEXTS, bert, expected=expected)


def test_filling_a_store_makes_the_encoder_superfluous(bert: Path, own_stores: Path, tmp_path: Path) -> None:
    done = fill_store(TEXTS, TextEncoder(str(bert)), own_stores)
    fresh, _ = embed([*TEXTS, "a kidney"], bert)
    bert.rename(tmp_path / "gone")
    try:
        stored, identity = embed(TEXTS, bert)
    finally:
        (tmp_path / "gone").rename(bert)
    assert (done.added, done.known) == (3, 0)
    assert identity == done.identity
    np.testing.assert_array_equal(stored, fresh[:3])


def test_filling_again_adds_only_what_is_new(bert: Path, own_stores: Path) -> None:
    model, seen = TextEncoder(str(bert)), []
    fill_store(TEXTS, model, own_stores)
    done = fill_store([*TEXTS, "a kidney", "a kidney"], model, own_stores, report=seen.append)
    assert (done.added, done.known, seen) == (1, 3, [1])


@pytest.fixture
def retrained(tmp_path: Path, own_stores: Path, save_bert: SaveBert) -> TextEncoder:
    """An encoder whose folder got other weights after a store was filled."""
    fill_store(TEXTS, TextEncoder(str(save_bert(tmp_path / "own"))), own_stores)
    return TextEncoder(str(save_bert(tmp_path / "own", seed=1)))


def test_a_store_by_other_weights_is_not_added_to(retrained: TextEncoder, own_stores: Path) -> None:
    with pytest.raises(EncoderError, match=r"\.npz .*other weights .*--overwrite"):
        fill_store(TEXTS, retrained, own_stores)


def test_overwriting_replaces_a_store_by_other_weights(retrained: TextEncoder, own_stores: Path) -> None:
    done = fill_store(TEXTS, retrained, own_stores, overwrite=True)
    assert list(own_stores.glob("*.npz")) == [done.path]


@pytest.mark.usefixtures("retrained")
def test_old_and_new_weights_are_never_mixed(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"found sha256 .*--overwrite"):
        embed([*TEXTS, "a kidney"], tmp_path / "own")


@needs_wheel
def test_the_shipped_store_agrees_with_a_fresh_encoding() -> None:
    texts = ["A computed tomography of spleen", "left kidney", "A magnetic resonance imaging of brain"]
    (path,) = SHIPPED_FOLDER.glob("*.npz")
    model = TextEncoder(None)
    assert model.identity == DEFAULT_ENCODER
    np.testing.assert_allclose(read_store(path).take(texts), model.encode(texts), atol=2e-4)


@needs_wheel
def test_known_and_new_texts_mix_with_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    encode = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, texts: asked.extend(texts) or encode(self, texts))
    vectors, identity = embed(["spleen", "A computed tomography of the renal pelvis"])
    assert asked == ["A computed tomography of the renal pelvis"]
    assert (vectors.shape, identity) == ((2, 384), DEFAULT_ENCODER)


@needs_wheel
def test_left_and_right_are_distinguished() -> None:
    vectors, _ = embed(["left kidney", "right kidney", "liver"])
    assert vectors[0] @ vectors[1] < 0.95
    assert vectors[0] @ vectors[2] < vectors[0] @ vectors[1]
