"""Two processes do not train one fold at the same time."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.trainers.ending import hold_fold

HOLD = """
import sys
from types import SimpleNamespace
from duplus_nnunet.trainers.ending import hold_fold
with hold_fold(SimpleNamespace(output_folder=sys.argv[1], local_rank=int(sys.argv[2])), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def start(folder: Path, rank: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, str(rank)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    trainer = SimpleNamespace(output_folder=str(tmp_path / "fold_0"), local_rank=0)
    process = start(tmp_path / "fold_0", 0)
    with pytest.raises(DataError, match=str(process.pid)), hold_fold(trainer, "validating"):
        pass
    process.communicate()
    with hold_fold(trainer, "training"):
        pass


def test_further_ranks_hold_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, 1)
    with hold_fold(SimpleNamespace(output_folder=str(tmp_path), local_rank=0), "training"):
        pass
    process.communicate()
