"""The values of a training in TensorBoard's files, as TensorBoard's own reader finds them."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.errors import HostError
from duplus_nnunet.reporting.aggregate import Mean, ScoreRow
from duplus_nnunet.trainers.monitoring import (
    FOLDER,
    VARIABLE,
    DrawnImages,
    TensorBoardLogger,
    is_wanted,
    log_concordance,
    log_epoch,
    log_final_scores,
    open_logs,
)

Curves = dict[str, list[tuple[int, float]]]


def read(folder: Path) -> Curves:
    """Read step and value of all scalars."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = accumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def make_trainer(folder: Path, rank: int = 0, epoch: int = 0) -> Any:
    logger = MetaLogger(str(folder), False)
    return SimpleNamespace(
        output_folder=str(folder), local_rank=rank, current_epoch=epoch, logger=logger, print_to_log_file=print
    )


def log_epochs(trainer: Any, *losses: float) -> None:
    for loss in losses:
        trainer.logger.log("train_losses", loss, trainer.current_epoch)
        trainer.logger.log("epoch_start_timestamps", 100.0, trainer.current_epoch)
        trainer.logger.log("epoch_end_timestamps", 103.5, trainer.current_epoch)
        trainer.current_epoch += 1


@pytest.fixture(name="wanted")
def _set_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv(VARIABLE, "1")


@pytest.mark.usefixtures("wanted")
def test_values_are_read_back_by_epoch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    open_logs(trainer)
    log_epochs(trainer, 0.5, -0.25)
    assert read(tmp_path / FOLDER) == {
        "train_losses": [(0, 0.5), (1, -0.25)],
        "epoch_duration": [(0, 3.5), (1, 3.5)],
    }


@pytest.mark.usefixtures("wanted")
def test_a_training_that_is_continued_supersedes_the_epochs_that_it_repeats(tmp_path: Path) -> None:
    for epoch, losses in ((0, (1.0, 2.0, 3.0)), (1, (5.0,))):
        trainer = make_trainer(tmp_path, epoch=epoch)
        trainer.logger.local_logger.my_fantastic_logging = {key: [0.0] * epoch for key in (
            "train_losses", "epoch_start_timestamps", "epoch_end_timestamps"
        )}  # fmt: skip
        open_logs(trainer)
        log_epochs(trainer, *losses)
    assert read(tmp_path / FOLDER)["train_losses"] == [(0, 1.0), (1, 5.0)]


@pytest.mark.usefixtures("wanted")
def test_dice_is_logged_by_source_and_target_and_nan_is_left_out(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    open_logs(trainer)
    trainer.logger.log("mean_fg_dice", 0.75, 0)
    trainer.logger.log("dice_per_class_or_region", [0.75, math.nan], 0)
    log_epoch(trainer, [("CT", "left kidney"), ("MR", "liver")], {("CT",): 1.0, ("CT", "left kidney"): 0.5})
    log_epochs(trainer, math.nan)
    curves = read(tmp_path / FOLDER)
    del curves["epoch_duration"]
    assert curves == {
        "mean_fg_dice": [(0, 0.75)], "ema_fg_dice": [(0, 0.75)], "dice/CT/left kidney": [(0, 0.75)],
        "sampling/CT": [(0, 1.0)], "sampling/CT/left kidney": [(0, 0.5)],
    }  # fmt: skip


@pytest.mark.usefixtures("wanted")
def test_a_concordance_index_is_not_called_dice(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    open_logs(trainer)
    log_concordance(trainer, 0.625)
    log_epochs(trainer, 1.0)
    assert trainer.logger.get_value("mean_fg_dice", 0) == 0.625
    assert trainer.logger.get_value("ema_fg_dice", 0) == 0.625
    curves = read(tmp_path / FOLDER)
    assert curves["concordance_index"] == [(0, 0.625)]
    assert set(curves) == {"concordance_index", "train_losses", "epoch_duration"}


@pytest.mark.usefixtures("wanted")
def test_final_scores_are_those_of_annotated_targets(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    open_logs(trainer)
    log_epochs(trainer, 1.0, 1.0)
    trainer.logger.log_summary("final_val/class_1_dice", 0.1)
    means = {"liver": Mean(0.5, None), "spleen": Mean(math.nan, None)}
    log_final_scores(
        trainer, [ScoreRow("CT", name, 2, 2, 0, 0, 0, {"dice": mean, "nsd": mean}) for name, mean in means.items()]
    )
    curves = read(tmp_path / FOLDER)
    assert {tag: curve for tag, curve in curves.items() if "final" in tag} == {"final_dice/CT/liver": [(1, 0.5)]}


@pytest.mark.parametrize(("value", "wanted", "rank"), [("1", True, 1), ("0", False, 0), ("", False, 0)])
def test_nothing_is_written_unless_asked_for_and_by_one_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, wanted: bool, rank: int
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert is_wanted() == wanted
    trainer = make_trainer(tmp_path, rank)
    open_logs(trainer)
    log_epochs(trainer, 1.0)
    assert trainer.logger.loggers == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["yes", "2", " 1"])
def test_another_value_of_the_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(HostError, match=repr(value)):
        open_logs(make_trainer(tmp_path))


def test_a_missing_package_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(HostError, match=r"duplus-nnunet\[monitoring\]"):
        TensorBoardLogger(tmp_path, 0)


def test_shares_are_of_all_images_of_an_epoch_by_source_and_annotated_target() -> None:
    sources = {
        "CT": Source("D1", "ct", ("liver", "spleen"), ("CT",)),
        "MR": Source("D2", "mr", ("liver",), ("MR",)),
        "PET": Source("D3", "pet", ("tumour",), ("PET",)),
    }
    both, liver = Case("CT", "a", ("liver", "spleen"), ()), Case("CT", "b", ("liver",), ())
    drawn = DrawnImages(CaseTable(sources, {"a": both, "b": liver, "c": Case("MR", "c", ("liver",), ())}))
    drawn.count(["a", "b"])
    drawn.count(["b", "c"])
    assert drawn.take() == {
        ("CT",): 0.75, ("CT", "liver"): 0.75, ("CT", "spleen"): 0.25, ("MR",): 0.25, ("MR", "liver"): 0.25,
        ("PET",): 0.0, ("PET", "tumour"): 0.0,
    }  # fmt: skip
    assert drawn.take() == {}
    drawn.count(["c"])
    assert drawn.take()["MR",] == 1.0
