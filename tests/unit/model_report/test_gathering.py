"""What is read of a model or dataset, and what is said of what is not there."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.model_report.drawn_shares import read_drawn_shares
from duplus_nnunet.model_report.fold_files import count_parameters, list_fold_folders, read_fold
from duplus_nnunet.model_report.gathering import read_report_source
from duplus_nnunet.model_report.summary import make_summary
from duplus_nnunet.model_report.training_curves import make_training_curves
from duplus_nnunet.trainers.monitoring import TensorBoardLogger

from .report_sources import find_chart, list_kind, make_fold, make_log, make_source

MODEL = Path(__file__).parents[2] / "compatibility" / "files" / "models" / "segmentation"
PAIRS = [("TinyCT", "tumour"), ("TinyCT", "left kidney"), ("TinyCT", "right kidney")]


@pytest.fixture(autouse=True)
def _no_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(name, raising=False)


def test_a_trained_model_is_read_with_the_reasons_for_what_it_lacks() -> None:
    source = read_report_source(MODEL)
    [fold] = source.folds
    assert source.dataset == "Dataset980_TinyCT"
    assert source.targets == ("tumour", "left kidney", "right kidney")
    assert fold.log is not None
    assert fold.log.epochs == 6
    assert list(fold.log.dice) == PAIRS
    assert {"raw", "table"} == set(source.missing)
    assert set(fold.missing) == {"scores"}
    assert [count.annotated for count in source.count_targets()] == [16, 16, 16]


def test_online_dice_is_not_named_by_the_wrong_targets() -> None:
    fold = read_fold("0", MODEL / "fold_0", PAIRS[:2])
    assert fold.log is not None
    assert fold.log.dice == {}
    assert "3" in fold.missing["dice"]
    assert "2 pairs" in fold.missing["dice"]


def test_debug_json_names_the_online_dice(tmp_path: Path) -> None:
    shutil.copytree(MODEL / "fold_0", tmp_path / "fold_0")
    names = {("S", "a"): 0, ("S", "b"): 2, ("S", "c"): 1}
    (tmp_path / "fold_0" / "debug.json").write_text(json.dumps({"_pairs": str(names)}))
    fold = read_fold("0", tmp_path / "fold_0", [])
    assert fold.log is not None
    assert list(fold.log.dice) == [("S", "a"), ("S", "c"), ("S", "b")]


@pytest.mark.parametrize("text", ["__import__('os')", "{(1, 2): 'x', (3, 4): 1}", "[", "7"])
def test_what_debug_json_should_not_hold_is_ignored(tmp_path: Path, text: str) -> None:
    shutil.copytree(MODEL / "fold_0", tmp_path / "fold_0")
    (tmp_path / "fold_0" / "debug.json").write_text(json.dumps({"_pairs": text}))
    fold = read_fold("0", tmp_path / "fold_0", PAIRS)
    assert fold.log is not None
    assert list(fold.log.dice) == PAIRS


def test_a_damaged_checkpoint_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model")
    file = tmp_path / "model" / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:1000])
    source = read_report_source(tmp_path / "model")
    assert source.folds[0].log is None
    assert "checkpoint_final.pth" in source.folds[0].missing["log"]


def test_an_unfinished_training_is_read_from_its_last_checkpoint(tmp_path: Path) -> None:
    shutil.copytree(MODEL / "fold_0", tmp_path / "fold_1")
    (tmp_path / "fold_1" / "checkpoint_final.pth").rename(tmp_path / "fold_1" / "checkpoint_latest.pth")
    fold = read_fold("1", tmp_path / "fold_1", PAIRS)
    assert fold.checkpoint == "checkpoint_latest.pth"
    assert "final" in fold.missing


def test_only_folders_of_folds_with_a_checkpoint_are_folds(tmp_path: Path) -> None:
    for name in ("fold_0", "fold_all", "fold_0_old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint_best.pth").touch()
    (tmp_path / "fold_1").mkdir()
    assert list(list_fold_folders(tmp_path)) == ["0", "all"]


def test_a_layer_under_two_names_is_counted_once() -> None:
    weight = torch.zeros(3, 4)
    weights = {
        "a.conv.weight": weight,
        "a.all_modules.0.weight": weight,
        "b": torch.zeros(5),
        "texts.table": weight + 1,
    }
    assert count_parameters(weights) == 17


def test_a_path_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a model folder"):
        read_report_source(tmp_path / "nothing")
    shutil.copytree(MODEL / "fold_0", tmp_path / "fold_0")
    with pytest.raises(ModelError, match=r"no plans\.json"):
        read_report_source(tmp_path)


def test_a_raw_dataset_is_read_by_name(write_raw: Callable[..., Path]) -> None:
    write_raw("Dataset007_Livers", {"case_0": np.zeros((4, 4, 4))})
    source = read_report_source("7")
    assert not source.is_model
    assert source.entry is not None
    assert source.bank is None
    assert {"plans", "folds", "table"} <= set(source.missing)
    [text] = list_kind(make_summary(source), "text")
    assert "1 training case." in text
    assert "source" not in text


def test_shares_follow_the_weights() -> None:
    assert [row.share for row in make_source().list_sources()] == [0.75, 0.25]


def test_cases_that_hold_a_target_are_counted_from_the_table_where_plans_do_not_say() -> None:
    counts = {(count.source, count.target): count.present for count in make_source().count_targets()}
    assert counts["A", "left kidney"] == 2
    assert counts["B", "liver"] == 0
    alone = make_source(table=None).count_targets()
    assert {count.present for count in alone} == {None}


def test_a_log_that_never_ended_has_no_date() -> None:
    fold = read_fold("0", MODEL / "fold_0", PAIRS)
    assert fold.log is not None
    assert not math.isnan(fold.log.ended)


def test_drawn_shares_are_read_from_tensorboards_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path / "tensorboard", 0)
    for epoch, share in enumerate((0.25, 0.5)):
        logger.log("sampling/A", share, epoch)
        logger.log("sampling/A/liver", share, epoch)
        logger.log("sampling/B", 1 - share, epoch)
        logger.log("epoch_end_timestamps", 1.0, epoch)
    found = read_drawn_shares(tmp_path, ["A", "B", "C"])
    assert found == {"A": [(1, 0.25), (2, 0.5)], "B": [(1, 0.75), (2, 0.5)]}
    assert read_drawn_shares(tmp_path / "other", ["A"]) == {}
    section = make_training_curves(make_source([make_fold(log=make_log(2), drawn=found)]))
    assert len(find_chart(section, "drawn_shares_fold_0").numbers) == 4
