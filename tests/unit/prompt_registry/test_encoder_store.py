"""Stored embeddings are read back; damaged ones and those of another encoder are refused."""

from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry import EncoderIdentity, embed
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER, is_default
from duplus_nnunet.prompt_registry.store import SHIPPED_FOLDER, key_of, read_store, store_name, user_folder, write_store

OTHER = EncoderIdentity("other", "mean", "f" * 64, 3)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUPLUS_EMBEDDINGS", str(tmp_path))
    return tmp_path


def put(folder: Path, texts: dict[str, list[float]], identity: EncoderIdentity = OTHER) -> Path:
    path = folder / store_name(identity)
    write_store(path, identity, {key_of(text): np.array(vector) for text, vector in texts.items()})
    return path


def test_a_stored_text_comes_back(own_folder: Path) -> None:
    store = read_store(put(own_folder, {"liver": [1, 0, 0], "spleen": [0, 0.6, 0.8]}))
    assert "liver" in store
    assert "heart" not in store
    np.testing.assert_allclose(store.take(["spleen", "liver"]), [[0, 0.6, 0.8], [1, 0, 0]], atol=1e-3)


def test_what_comes_back_has_length_one_and_single_precision(own_folder: Path) -> None:
    vectors = read_store(put(own_folder, {"liver": [0.3, 0.4, 0.5]})).take(["liver"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_same_texts_give_the_same_bytes(own_folder: Path) -> None:
    first = put(own_folder, {"a": [1, 0, 0], "b": [0, 1, 0]}).read_bytes()
    assert put(own_folder, {"b": [0, 1, 0], "a": [1, 0, 0]}).read_bytes() == first


@pytest.mark.parametrize("content", [b"", b"no store", b"PK\x03\x04 half a file"])
def test_a_damaged_store_is_refused_with_the_remedy(own_folder: Path, content: bytes) -> None:
    path = own_folder / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"\.npz .*duplus prompts embed"):
        read_store(path)


def test_a_store_without_its_vectors_is_refused(own_folder: Path) -> None:
    path = own_folder / "bad.npz"
    np.savez(path, keys=np.zeros(2, dtype=np.uint64))
    with pytest.raises(EncoderError, match=r"\.npz"):
        read_store(path)


def test_a_store_of_another_shape_is_refused(own_folder: Path) -> None:
    path = put(own_folder, {"liver": [1, 0, 0, 0]})
    with pytest.raises(EncoderError, match=r"\(1, 4\).*\(1, 3\)"):
        read_store(path)


def test_the_users_stores_have_a_folder_of_their_own(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_folder() == own_folder
    monkeypatch.delenv("DUPLUS_EMBEDDINGS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert user_folder() == Path("/cache/duplus/embeddings")


def test_the_shipped_store_is_of_the_default_encoder_and_small() -> None:
    (path,) = SHIPPED_FOLDER.glob("*.npz")
    assert read_store(path).identity == DEFAULT_ENCODER
    assert path.stat().st_size < 5_000_000


def test_known_texts_are_embedded_without_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duplus_nnunet.prompt_registry.embedding.TextEncoder", None)
    vectors, identity = embed(["A computed tomography of spleen", "spleen"])
    assert vectors.shape == (2, 384)
    assert identity == DEFAULT_ENCODER


def test_texts_come_in_the_order_asked_for_even_twice(own_folder: Path) -> None:
    put(own_folder, {"liver": [1, 0, 0], "spleen": [0, 1, 0]})
    vectors, identity = embed(["spleen", "liver", "spleen"], "other")
    np.testing.assert_allclose(vectors, [[0, 1, 0], [1, 0, 0], [0, 1, 0]])
    assert identity == OTHER


def test_a_store_of_the_users_serves_without_its_encoder(own_folder: Path) -> None:
    put(own_folder, {"liver": [1, 0, 0]})
    assert embed(["liver"], "other", expected=OTHER)[1] == OTHER


def test_an_expected_encoder_names_itself(own_folder: Path) -> None:
    put(own_folder, {"liver": [1, 0, 0]})
    assert embed(["liver"], expected=OTHER)[1] == OTHER


def test_default_embeddings_of_other_weights_are_refused() -> None:
    strange = EncoderIdentity(DEFAULT_ENCODER.name, "mean", "0" * 64, 384)
    with pytest.raises(EncoderError, match=r"found sha256 .*`duplus prompts embed"):
        embed(["spleen"], expected=strange)


def test_another_dimension_is_refused() -> None:
    wide = EncoderIdentity("other", "mean", "f" * 64, 768)
    with pytest.raises(EncoderError, match=r"checkpoint: found dimension 3 instead of 768"):
        wide.require_same(OTHER, "checkpoint")


def test_another_pooling_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"pooling 'mean' instead of 'cls'"):
        EncoderIdentity("other", "cls", "f" * 64, 3).require_same(OTHER, "here")


def test_a_folder_that_moved_is_the_same_encoder() -> None:
    EncoderIdentity("/elsewhere/other", "mean", "f" * 64, 3).require_same(OTHER, "here")


@pytest.mark.parametrize("texts", [[], [""], ["liver", "  "]])
def test_nothing_to_embed_is_an_error(texts: list[str]) -> None:
    with pytest.raises(EncoderError, match=r"embed"):
        embed(texts)


def test_an_identity_survives_json() -> None:
    assert EncoderIdentity.from_dict(OTHER.to_dict()) == OTHER


def test_an_identity_with_a_key_missing_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"found 'name'"):
        EncoderIdentity.from_dict({"name": "x"})


@pytest.mark.parametrize("name", [None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_default_goes_by_three_names(name: str | None) -> None:
    assert is_default(name)
