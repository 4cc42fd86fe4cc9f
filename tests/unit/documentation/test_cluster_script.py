"""The scripts for SLURM train what they are asked to, and refuse to run without a dataset or outside of a job."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from duplus_nnunet import train
from duplus_nnunet.trainers import DuPLUSTrainer

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="there is no bash")


def run(folder: Path, *words: str, script: str = "train", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script with a stand-in for srun that prints what it is to run."""
    stand_in = folder / "srun"
    stand_in.write_text('#!/bin/bash\necho "$@" "$nnUNet_n_proc_DA"\n')
    stand_in.chmod(0o755)
    path = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(BASH), str(EXAMPLES / f"{script}.slurm"), *words],
        env={**path, **variables},
        capture_output=True,
        text=True,
        check=False,
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


def test_a_job_of_several_nodes_trains_one_fold_by_all_its_tasks(tmp_path: Path) -> None:
    done = run(tmp_path, "4", "1", script="train_nodes", SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="6")
    expected = f"python -m {train.__name__} 4 3d_fullres 1 -tr {DuPLUSTrainer.__name__} -p DuPLUSPlans --c 6"
    assert done.stdout.strip() == f"--cpus-per-task=6 --kill-on-bad-exit=1 {expected}"


@pytest.mark.parametrize(
    ("words", "variables"), [((), {"SLURM_JOB_ID": "7"}), (("4",), {"SLURM_JOB_ID": "7"}), (("4", "1"), {})]
)
def test_what_is_missing_in_a_job_of_several_nodes_is_named(
    tmp_path: Path, words: tuple[str, ...], variables: dict[str, str]
) -> None:
    done = run(tmp_path, *words, script="train_nodes", **variables)
    assert done.returncode != 0
    assert done.stdout == ""
