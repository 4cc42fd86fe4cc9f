"""Checkpoints are read with weights_only=True before nnU-Net reads them without."""

from pathlib import Path

import pytest
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.model_folder import Folds, ModelFiles, check_checkpoints

FITTING, FINAL = (8, 16), "checkpoint_final.pth"


@pytest.mark.parametrize("folds", [None, (0,), "0", 0])
def test_a_damaged_checkpoint_is_found_however_folds_are_named(tmp_path: Path, folds: Folds) -> None:
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / FINAL).write_bytes(b"cut off")
    with pytest.raises(ModelError, match=FINAL):
        check_checkpoints(ModelFiles(tmp_path, folds), FITTING, True)


def test_a_missing_fold_lists_those_there(tmp_path: Path) -> None:
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / FINAL).write_bytes(b"")
    with pytest.raises(ModelError, match="fold_1"):
        check_checkpoints(ModelFiles(tmp_path, "0"), FITTING, True)


def test_a_checkpoint_of_another_embedding_than_the_plans_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "fold_0" / "c.pth"
    file.parent.mkdir()
    weights = {"film.hidden.weight": torch.zeros(2, 8), "generator.from_target.weight": torch.zeros(2, 16)}
    torch.save({"network_weights": weights}, file)
    files = ModelFiles(tmp_path, "0", "c.pth")
    check_checkpoints(files, FITTING, True)
    with pytest.raises(ModelError, match=r"context prompts of length 8, .* 12; of target prompts of length 16, .* 24"):
        check_checkpoints(files, (12, 24), True)


def test_a_network_whose_decoder_never_learned_gives_no_masks(tmp_path: Path) -> None:
    files, file = ModelFiles(tmp_path, "0"), tmp_path / "fold_0" / FINAL
    file.parent.mkdir()
    torch.save({"network_weights": {}, "duplus_survival": {"encoder": "scratch"}}, file)
    check_checkpoints(files, FITTING, False)
    with pytest.raises(ModelError, match=f"{FINAL}.*scratch"):
        check_checkpoints(files, FITTING, True)
    torch.save({"network_weights": {}, "duplus_survival": {"encoder": "pretrained"}}, file)
    check_checkpoints(files, FITTING, True)
