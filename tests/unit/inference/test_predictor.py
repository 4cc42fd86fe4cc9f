"""Checkpoints are read with weights_only=True before nnU-Net reads them without."""

from pathlib import Path

import pytest
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.host import _check_checkpoints
from duplus_nnunet.inference.records import list_folds

FITTING, FINAL = (8, 16), "checkpoint_final.pth"


@pytest.mark.parametrize("folds", [None, (0,), "0", 0])
def test_a_damaged_checkpoint_is_found_however_folds_are_named(tmp_path: Path, folds: object) -> None:
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / FINAL).write_bytes(b"cut off")
    files = [tmp_path / f"fold_{name}" / FINAL for name in list_folds(tmp_path, folds, FINAL)]
    with pytest.raises(ModelError, match="cannot be read"):
        _check_checkpoints(files, FITTING, True)


def test_a_missing_fold_lists_those_there(tmp_path: Path) -> None:
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / FINAL).write_bytes(b"")
    with pytest.raises(ModelError, match="fold_1"):
        _check_checkpoints([tmp_path / "fold_0" / FINAL], FITTING, True)


def test_a_checkpoint_of_another_embedding_than_the_plans_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "fold_0" / "c.pth"
    file.parent.mkdir()
    weights = {"film.hidden.weight": torch.zeros(2, 8), "generator.from_target.weight": torch.zeros(2, 16)}
    torch.save({"network_weights": weights}, file)
    _check_checkpoints([file], FITTING, True)
    with pytest.raises(ModelError, match=r"c\.pth.*\b8\b.*\b12\b"):
        _check_checkpoints([file], (12, 24), True)


def test_a_network_whose_decoder_never_learned_gives_no_masks(tmp_path: Path) -> None:
    file = tmp_path / FINAL
    torch.save({"network_weights": {}, "duplus_survival": {"encoder": "scratch"}}, file)
    _check_checkpoints([file], FITTING, False)
    with pytest.raises(ModelError, match="cannot segment: its encoder was trained from scratch"):
        _check_checkpoints([file], FITTING, True)
    torch.save({"network_weights": {}, "duplus_survival": {"encoder": "pretrained"}}, file)
    _check_checkpoints([file], FITTING, True)
