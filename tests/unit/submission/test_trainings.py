"""The command of each training, and what it continues from."""

from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.submission.trainings import Training, continue_command, leave_finished_out, read_further

TRAINING = Training("Dataset007_Test", "3d_fullres", "0", "DuPLUSTrainer", "DuPLUSPlans", ("--npz",))
WORDS = ["Dataset007_Test", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "--npz"]


@pytest.fixture(autouse=True)
def _results(raw: Path) -> None:
    """Sets nnU-Net's folders."""


def test_one_gpu_is_trained_by_the_command_of_nnunet() -> None:
    assert TRAINING.write_command(1, 1) == ["nnUNetv2_train", *WORDS]


def test_several_gpus_of_a_node_are_told_to_nnunet() -> None:
    assert TRAINING.write_command(4, 1) == ["nnUNetv2_train", *WORDS, "-num_gpus", "4"]


def test_several_nodes_are_trained_by_the_module_for_nodes() -> None:
    assert TRAINING.write_command(4, 2) == ["python", "-m", "duplus_nnunet.train", *WORDS]


@pytest.mark.parametrize("word", ["-tr", "-p", "-num_gpus", "--c", "--val", "--disable_checkpointing"])
def test_an_argument_that_is_set_or_contradicts_continuing_is_refused(word: str) -> None:
    with pytest.raises(DataError, match=word):
        read_further(["--npz", word, "x"])


def test_other_arguments_are_handed_on() -> None:
    assert read_further(["--npz", "-device", "cpu"]) == ("--npz", "-device", "cpu")


def test_a_training_always_continues(tmp_path: Path) -> None:
    assert continue_command(["nnUNetv2_train", "7"], tmp_path) == ["nnUNetv2_train", "7", "--c"]


def test_pretrained_weights_are_used_until_there_is_a_checkpoint(tmp_path: Path) -> None:
    words = ["nnUNetv2_train", "7", "-pretrained_weights", "base.pth", "--npz"]
    assert continue_command(words, tmp_path) == words
    (tmp_path / "checkpoint_latest.pth").touch()
    assert continue_command(words, tmp_path) == ["nnUNetv2_train", "7", "--npz", "--c"]


def test_a_training_that_was_validated_is_left_out() -> None:
    other = Training("Dataset007_Test", "3d_fullres", "1", "DuPLUSTrainer", "DuPLUSPlans")
    (TRAINING.output / "validation").mkdir(parents=True)
    (TRAINING.output / "checkpoint_final.pth").touch()
    assert leave_finished_out([TRAINING, other, TRAINING]) == ([TRAINING, other], [])
    (TRAINING.output / "validation" / "summary.json").touch()
    assert leave_finished_out([TRAINING, other]) == ([other], [TRAINING])
