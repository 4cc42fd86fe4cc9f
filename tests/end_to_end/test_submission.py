"""A training that is sent as a job, and signalled as at a time limit, is continued and finished by nnU-Net itself."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import DATASET, Project

pytest.importorskip("submitit")
pytestmark = pytest.mark.slow

EPOCHS = 12


@pytest.fixture
def planned(project: Project, tmp_path: Path) -> Project:
    """Planned and preprocessed phantoms without a model."""
    shutil.copytree(project.folder, tmp_path / "project")
    copied = Project(tmp_path / "project")
    shutil.rmtree(copied.model)
    return copied


def wait_for(ready: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.2)


def test_a_signalled_training_continues_to_its_end(planned: Project) -> None:
    planned.change_settings(epochs=EPOCHS, iterations_per_epoch=1, validation_iterations=1)
    words = ("submit", "folds", "998", "--folds", "0", "--executor", "local", "--gpus", "0", "-o", "jobs")
    planned.do("duplus", *words, "--", "-device", "cpu", nnUNet_n_proc_DA="0")
    jobs = planned.folder / "jobs"

    def read_row() -> dict[str, Any]:
        row: dict[str, Any] = json.loads(planned.run("duplus", "submit", "status", "jobs", "--json").stdout)[0]
        return row

    wait_for(lambda: (read_row()["epoch"] or 0) > 2)
    os.kill(json.loads((jobs / "tasks" / "task_0.json").read_text())["pid"], signal.SIGUSR2)
    wait_for(lambda: read_row()["state"] in ("finished", "failed", "lost"))
    row = read_row()
    assert (row["state"], row["epoch"]) == ("finished", EPOCHS)
    fold = planned.folder / "results" / DATASET / "DuPLUSTrainer__DuPLUSPlans__3d_fullres" / "fold_0"
    first, second = sorted(fold.glob("training_log_*.txt"))
    assert "Epoch 0" in first.read_text()
    assert "Epoch 0\n" not in second.read_text()
    assert (fold / "validation" / "summary.json").is_file()
    assert "trained already" in planned.do("duplus", *words[:-1], "again", "--", "-device", "cpu")
    assert not Path(planned.folder, "again").exists()
