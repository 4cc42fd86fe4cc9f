"""Two processes with gloo: nnU-Net's own DDP insists on CUDA and NCCL, so our network and loss are driven directly."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from duplus_nnunet.networks.adaptation import name_in_base


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what both ranks found, in all settings."""
    folder, script = tmp_path_factory.mktemp("ranks"), str(Path(__file__).with_name("ddp_rank.py"))
    ranks = [subprocess.Popen([sys.executable, script, str(rank), str(folder)], cwd=folder) for rank in range(2)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    return folder


@pytest.mark.parametrize(("batch_dice", "adapted"), [(False, False), (True, False), (False, True), (True, True)])
def test_ranks_stay_equal_and_a_rank_without_targets_does_not_hang(
    results: Path, batch_dice: bool, adapted: bool
) -> None:
    files = [results / f"{rank}_{batch_dice}_{adapted}.pth" for rank in range(2)]
    first, second = (torch.load(file, weights_only=True) for file in files)
    assert first["kept"]
    assert second["kept"]
    names = list(first["start"])
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in names)
    changed = [name for name in names if not torch.equal(first["weights"][name], first["start"][name])]
    assert changed
    assert not adapted or not any(name_in_base(name) for name in changed)
