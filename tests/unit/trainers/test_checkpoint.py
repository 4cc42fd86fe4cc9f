"""Checkpoints: plain types, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.trainers.checkpoint import make_plain, write_safely


def test_plain_content_loads_with_weights_only(tmp_path: Path) -> None:
    content = {
        "network_weights": {"w": torch.ones(2)},
        "a": [np.float64(1.5), (np.int64(2),)],
        "d": torch.device("cpu"),
    }
    torch.save(make_plain(content), tmp_path / "c.pth")
    found = read_checkpoint(tmp_path / "c.pth")
    assert found["a"] == [1.5, (2,)]
    assert found["d"] == "cpu"


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_latest.pth"
    torch.save({"network_weights": {"w": torch.ones(1000)}}, file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"checkpoint_latest\.pth"):
        read_checkpoint(file)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"network_weights": {}, "x": Path("harmless")}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"c\.pth"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    file.write_text("previous")

    def fill(name: str) -> None:
        Path(name).write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="No space left"):
        write_safely(file, fill)
    assert file.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [file]


def test_where_torch_hides_the_reason_the_free_space_is_told(tmp_path: Path) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 2")

    with pytest.raises(ModelError, match=r"c\.pth.*[\d.]+ MB.*unexpected pos"):
        write_safely(tmp_path / "c.pth", fail)
