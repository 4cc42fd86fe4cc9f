"""Predictions into one folder at the same time."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference import output_lock
from duplus_nnunet.inference.output_lock import hold_output

_HOLD = (
    "import sys; from pathlib import Path; from duplus_nnunet.inference.output_lock import hold_output\n"
    "with hold_output(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))): print('held', flush=True); input()"
)


@contextmanager
def held_by_another_process(folder: Path, part: tuple[int, int]) -> Iterator[int]:
    command = [sys.executable, "-c", _HOLD, str(folder), *map(str, part)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other.pid
        other.communicate("\n")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_lock, "_PATIENCE", 0.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 1), (0, 1)), ((0, 1), (1, 2)), ((1, 2), (0, 1)), ((1, 2), (1, 2)), ((0, 2), (1, 3))],
    ids=["twice", "part beside whole", "whole beside part", "same part", "parts of different numbers"],
)
def test_predictions_that_may_write_the_same_file_exclude_each_other(
    first: tuple[int, int], second: tuple[int, int], tmp_path: Path
) -> None:
    with (
        held_by_another_process(tmp_path, first) as holder,
        pytest.raises(DataError, match=rf"\b{holder}\b"),
        hold_output(tmp_path, second),
    ):
        pass


def test_parts_of_one_prediction_run_side_by_side(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path, (0, 3)), hold_output(tmp_path, (1, 3)), hold_output(tmp_path, (2, 3)):
        assert len(list(tmp_path.glob(".duplus_lock_part_*.json"))) == 3
    assert list(tmp_path.iterdir()) == []


def test_killed_part_is_not_in_the_way(tmp_path: Path) -> None:
    killed = _HOLD.replace("input()", "import os; os._exit(1)")
    subprocess.run([sys.executable, "-c", killed, str(tmp_path), "0", "2"], check=False)
    assert list(tmp_path.iterdir())
    with hold_output(tmp_path, (0, 1)):
        pass
    assert list(tmp_path.iterdir()) == []
