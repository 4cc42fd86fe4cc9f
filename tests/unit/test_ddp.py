"""Two processes with gloo: nnU-Net's own DDP insists on CUDA and NCCL, so our network and loss are driven directly."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.parametrize("batch_dice", [False, True])
def test_ranks_stay_equal_and_a_rank_without_targets_does_not_hang(tmp_path: Path, batch_dice: bool) -> None:
    script = str(Path(__file__).with_name("ddp_rank.py"))
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), str(tmp_path), str(batch_dice)], cwd=tmp_path)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    assert first["kept"]
    assert second["kept"]
    names = list(first["start"])
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in names)
    assert any(not torch.equal(first["weights"][name], first["start"][name]) for name in names)
