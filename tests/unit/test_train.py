"""What duplus_nnunet.train refuses before it trains, and its help."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet import train
from duplus_nnunet.errors import HostError
from duplus_nnunet.nodes.place import TORCHRUN, Place

PLACE = Place(TORCHRUN, 0, 2, 0, "localhost", 29500)
ARGUMENTS: dict[str, Any] = {
    **{"dataset_name_or_id": "4", "configuration": "3d_fullres", "fold": "0", "trainer_class_name": "DuPLUSTrainer"},
    **{"plans_identifier": "DuPLUSPlans", "num_gpus": 1, "continue_training": False, "only_run_validation": False},
}


@pytest.fixture(autouse=True)
def _no_training_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    return


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_gpus": 4}, "-num_gpus 4"),
        ({"trainer_class_name": "nnUNetTrainer"}, "nnUNetTrainer"),
        ({"trainer_class_name": "DuPLUSSurvivalTrainer"}, "DuPLUSSurvivalTrainer"),
    ],
)
def test_what_cannot_be_trained_so_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(HostError, match=words):
        train.check_call({**ARGUMENTS, **changed}, PLACE)


def test_a_restart_without_continuing_is_refused() -> None:
    with pytest.raises(HostError, match="--c"):
        train.check_call(ARGUMENTS, Place(TORCHRUN, 0, 2, 0, "localhost", 29500, restart=1))


@pytest.mark.parametrize("minutes", ["0", "-1", "inf", "nan", "long"])
def test_a_timeout_is_a_positive_number(minutes: str) -> None:
    with pytest.raises(SystemExit):
        train.make_parser().parse_args(["--timeout", minutes])
    assert train.make_parser().parse_args(["--timeout", "2.5"]).timeout == 2.5


def test_help_is_ours_and_that_of_nnunet() -> None:
    environment = {**os.environ, "nnUNet_n_proc_DA": "1"}
    words = [sys.executable, "-m", "duplus_nnunet.train", "--help"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert "torchrun --nnodes 2" in done.stdout
    assert "-pretrained_weights" in done.stdout


def test_the_parser_needs_no_torch() -> None:
    program = "import sys; from duplus_nnunet import train; train.make_parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
