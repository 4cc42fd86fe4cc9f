"""Checkpoints are read with weights_only=True before nnU-Net reads them without."""

from pathlib import Path

import pytest

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.host import _check_checkpoints


@pytest.mark.parametrize("folds", [None, (0,), "0", 0])
def test_a_damaged_checkpoint_is_found_however_folds_are_named(tmp_path: Path, folds: object) -> None:
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_final.pth").write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot be read"):
        _check_checkpoints(tmp_path, folds, "checkpoint_final.pth")


def test_a_missing_fold_lists_those_there(tmp_path: Path) -> None:
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "checkpoint_final.pth").write_bytes(b"")
    with pytest.raises(ModelError, match="fold_1"):
        _check_checkpoints(tmp_path, (0,), "checkpoint_final.pth")
