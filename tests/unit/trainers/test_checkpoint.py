"""Checkpoints: plain types, whole or not at all."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.trainers.checkpoint import collect_content, make_plain, write_content, write_safely
from duplus_nnunet.trainers.training_cases import TrainingCases, find_training_cases, write_training_cases


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


class Stock:
    """Saves as nnU-Net does."""

    def save_checkpoint(self, filename: str) -> None:
        torch.save({"network_weights": {"w": torch.ones(2)}, "_best_ema": np.float64(0.5)}, filename)


class Other:
    """Saves in another way."""

    def save_checkpoint(self, filename: str) -> None:
        Path(filename).write_text("mine")


def test_the_content_of_a_checkpoint_is_known_before_it_is_written(tmp_path: Path) -> None:
    content = collect_content(Stock().save_checkpoint, str(tmp_path / "c.pth"))
    assert content is not None
    assert content["_best_ema"] == 0.5
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_has_plain_types_checksums_and_its_training_cases(tmp_path: Path) -> None:
    cases = TrainingCases("Dataset001_A", "0", ("a", "b"), ("p",), None)
    trainer = SimpleNamespace(training_cases=cases)
    content = collect_content(Stock().save_checkpoint, "c.pth")
    write_content(trainer, content, str(tmp_path / "c.pth"))
    assert set(torch.load(tmp_path / "c.pth", weights_only=True)["duplus_checksums"]) == {
        "network_weights", "_best_ema", "duplus_training_cases",
    }  # fmt: skip
    assert find_training_cases(read_checkpoint(tmp_path / "c.pth"), tmp_path) == cases


def test_a_checkpoint_that_is_saved_in_another_way_is_left(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    write_content(None, collect_content(Other().save_checkpoint, str(file)), str(file))
    assert file.read_text() == "mine"


def test_training_cases_of_an_earlier_version_are_found_beside_the_checkpoint(tmp_path: Path) -> None:
    cases = TrainingCases("Dataset001_A", "0", ("a",), ("p",), "unknown")
    assert find_training_cases({}, tmp_path) == "unknown"
    write_training_cases(tmp_path, cases)
    assert find_training_cases({}, tmp_path) == cases
