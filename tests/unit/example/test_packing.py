"""A packed model is what was trained, in half precision; a damaged file is refused."""

from pathlib import Path

import pytest
import torch

from duplus_nnunet.checkpoint_files import read_checkpoint, save_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.example.packing import CHECKPOINT, MEMBERS, pack_model, unpack_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "fold_0").mkdir(parents=True)
    for name in MEMBERS:
        (folder / name).write_text(f'{{"name": "{name}"}}')
    shared = torch.arange(12.0).reshape(3, 4) / 7
    weights = {"encoder.weight": shared, "decoder.encoder.weight": shared, "head.weight": torch.ones(2)}
    content = {"network_weights": weights, "optimizer_state": {"step": 7}, "trainer_name": "DuPLUSTrainer"}
    save_checkpoint(content, folder / CHECKPOINT)
    return folder


def test_unpacked_weights_are_those_of_the_model_in_half_precision(model: Path, tmp_path: Path) -> None:
    pack_model(model, tmp_path / "model.zip")
    unpack_model(tmp_path / "model.zip", tmp_path / "again")
    checkpoint = read_checkpoint(tmp_path / "again" / CHECKPOINT)
    expected = (torch.arange(12.0).reshape(3, 4) / 7).half()
    assert torch.equal(checkpoint["network_weights"]["encoder.weight"], expected)
    assert checkpoint["trainer_name"] == "DuPLUSTrainer"
    assert "optimizer_state" not in checkpoint


def test_tensors_that_share_memory_are_packed_once(model: Path, tmp_path: Path) -> None:
    pack_model(model, tmp_path / "model.zip")
    unpack_model(tmp_path / "model.zip", tmp_path / "again")
    weights = read_checkpoint(tmp_path / "again" / CHECKPOINT)["network_weights"]
    assert weights["encoder.weight"].data_ptr() == weights["decoder.encoder.weight"].data_ptr()
    assert weights["encoder.weight"].data_ptr() != weights["head.weight"].data_ptr()


def test_other_files_are_unpacked_unchanged(model: Path, tmp_path: Path) -> None:
    pack_model(model, tmp_path / "model.zip")
    unpack_model(tmp_path / "model.zip", tmp_path / "again")
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes()


def test_packing_twice_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    pack_model(model, tmp_path / "model.zip")
    first = (tmp_path / "model.zip").read_bytes()
    pack_model(model, tmp_path / "model.zip")
    assert (tmp_path / "model.zip").read_bytes() == first


@pytest.mark.parametrize("content", [b"", b"no zip file"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.zip"):
        unpack_model(tmp_path / "model.zip", tmp_path / "again")
    assert not (tmp_path / "again").exists()
