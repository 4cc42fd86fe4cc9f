"""`duplus predict -m` uses the folds that a model folder has."""

from pathlib import Path

import pytest

from duplus_nnunet.commands.predict import _choose_folds


@pytest.mark.parametrize(
    ("folds", "chosen"),
    [(["0"], ["-f", "0"]), (["2", "0"], ["-f", "0", "2"]), (["all"], ["-f", "all"]), (["all", "1"], ["-f", "1"])],
)
def test_folds_of_the_folder_are_named(folds: list[str], chosen: list[str], tmp_path: Path) -> None:
    for fold in folds:
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "checkpoint_final.pth").touch()
    (tmp_path / "fold_3").mkdir()  # of an unfinished training
    options = ["-m", str(tmp_path), "-o", "out"]
    assert _choose_folds(options) == [*options, *chosen]


def test_named_folds_and_all_five_are_left_as_they_are(tmp_path: Path) -> None:
    for fold in range(5):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "checkpoint_final.pth").touch()
    for options in (["-m", str(tmp_path), "-f", "0"], ["-m", str(tmp_path)], ["-d", "4"], ["-m"]):
        assert _choose_folds(options) == options


def test_folds_of_the_chosen_checkpoint_are_named(tmp_path: Path) -> None:
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "checkpoint_best.pth").touch()
    options = ["-m", str(tmp_path), "-chk", "checkpoint_best.pth"]
    assert _choose_folds(options) == [*options, "-f", "1"]
