"""The script for SLURM trains the fold of its task, and refuses to run without a dataset or outside of an array."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from duplus_nnunet.trainers import DuPLUSTrainer

SCRIPT = Path(__file__).parents[3] / "docs" / "examples" / "train.slurm"
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="there is no bash")


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a stand-in for srun that prints what it is to run."""
    stand_in = folder / "srun"
    stand_in.write_text('#!/bin/bash\necho "$@" "$nnUNet_n_proc_DA"\n')
    stand_in.chmod(0o755)
    path = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(BASH), str(SCRIPT), *words], env={**path, **variables}, capture_output=True, text=True, check=False
    )


def test_a_task_trains_its_fold(tmp_path: Path) -> None:
    done = run(tmp_path, "4", SLURM_ARRAY_TASK_ID="3", SLURM_CPUS_PER_TASK="6")
    expected = f"nnUNetv2_train 4 3d_fullres 3 -tr {DuPLUSTrainer.__name__} -p DuPLUSPlans --c 6"
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(("words", "variables"), [((), {"SLURM_ARRAY_TASK_ID": "0"}), (("4",), {})])
def test_what_is_missing_is_named(tmp_path: Path, words: tuple[str, ...], variables: dict[str, str]) -> None:
    done = run(tmp_path, *words, **variables)
    assert done.returncode != 0
    assert done.stdout == ""
