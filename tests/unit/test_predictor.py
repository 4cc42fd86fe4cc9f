"""Checkpoints are read with weights_only=True before nnU-Net reads them without."""

from pathlib import Path

import pytest
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.host import _check_checkpoints
from duplus_nnunet.inference.records import list_folds

FITTING = (8, 16)


@pytest.mark.parametrize("folds", [None, (0,), "0", 0])
def test_a_damaged_checkpoint_is_found_however_folds_are_named(tmp_path: Path, folds: object) -> None:
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_final.pth").write_bytes(b"cut off")
    names = list_folds(tmp_path, folds, "checkpoint_final.pth")
    with pytest.raises(ModelError, match="cannot be read"):
        _check_checkpoints(tmp_path, names, "checkpoint_final.pth", FITTING)


def test_a_missing_fold_lists_those_there(tmp_path: Path) -> None:
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "checkpoint_final.pth").write_bytes(b"")
    with pytest.raises(ModelError, match="fold_1"):
        _check_checkpoints(tmp_path, ("0",), "checkpoint_final.pth", FITTING)


def test_a_checkpoint_of_another_embedding_than_the_plans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fold_0").mkdir()
    weights = {"film.hidden.weight": torch.zeros(2, 8), "generator.from_target.weight": torch.zeros(2, 16)}
    torch.save({"network_weights": weights}, tmp_path / "fold_0" / "c.pth")
    _check_checkpoints(tmp_path, ("0",), "c.pth", FITTING)
    with pytest.raises(ModelError, match="embeddings of length 8; its plans hold some of length 12"):
        _check_checkpoints(tmp_path, ("0",), "c.pth", (12, 24))
