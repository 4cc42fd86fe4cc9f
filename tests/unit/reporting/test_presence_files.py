"""Presence in a validation, and in the files of a model."""

import contextlib
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, load_summary_json, save_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from duplus_nnunet.data.case_table import Case, CaseTable
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.reporting.case_scores import CaseScore, TargetScore
from duplus_nnunet.reporting.presence_files import (
    PEAK_LOGITS_NAME,
    calibrate_fold,
    gather_peak_logits,
    read_calibration,
    write_peak_logits,
)
from duplus_nnunet.trainers.cases import bind_each_case, score

from ..partial_plans import NAMES, make_plans, make_table

WRITTEN = f"validation/{PEAK_LOGITS_NAME}"


# On disk.


def make_score(**present: bool) -> CaseScore:
    """Make the score of a case in which these targets are annotated."""
    targets = {name: TargetScore(math.nan, math.nan, is_present, is_present) for name, is_present in present.items()}
    return CaseScore("one", "p", (1.0, 1.0, 1.0), targets)


def make_fold(model: Path, fold: int | str = 0, gap: float = 5.0, cases: int = 6, **options: Any) -> str:
    """Calibrate a fold; half of the cases have a spleen, its evidence that much above 0 or below."""
    folder = model / f"fold_{fold}" / "validation"
    folder.mkdir(parents=True)
    means = {1: {"Dice": 0.5}}
    save_summary_json({"metric_per_case": [], "mean": means, "foreground_mean": means[1]}, str(folder / "summary.json"))
    scores = {}
    for number in range(cases):
        write_peak_logits(folder, f"c{number}", {"spleen": gap if number % 2 else -gap, "liver": gap})
        scores[f"c{number}"] = make_score(spleen=bool(number % 2))
    held_out = options.get("held_out", scores)
    return calibrate_fold(folder, options.get("scores", scores), held_out, ["spleen", "liver"])


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_what_is_calibrated_is_read_back(tmp_path: Path) -> None:
    said = make_fold(tmp_path)
    calibration = read_calibration(tmp_path, [0])
    assert calibration.notes == ()
    present, absent = (calibration.predict_presence("spleen", evidence) for evidence in (5.0, -5.0))
    assert present == pytest.approx(0.8, abs=0.05)
    assert absent == pytest.approx(0.2, abs=0.05)
    assert re.search(r"\b6 .*\b3 present.*\b3 absent.*: spleen\.", said)


def test_nnunet_reads_its_summary_as_before(tmp_path: Path) -> None:
    make_fold(tmp_path)
    summary = load_summary_json(str(tmp_path / "fold_0/validation/summary.json"))
    assert summary["foreground_mean"] == {"Dice": 0.5}
    assert summary["mean"] == {1: {"Dice": 0.5}}
    assert summary["duplus"]["presence"]["absent"] == 3


def test_single_files_of_evidence_become_one(tmp_path: Path) -> None:
    make_fold(tmp_path)
    assert sorted(file.name for file in (tmp_path / "fold_0/validation").iterdir()) == [
        PEAK_LOGITS_NAME,
        "summary.json",
    ]
    assert read(tmp_path / "fold_0" / WRITTEN)["cases"]["c1"] == {"spleen": 5.0, "liver": 5.0}


def test_evidence_is_still_there_when_it_is_gathered_again(tmp_path: Path) -> None:
    write_peak_logits(tmp_path, "a.b", {"spleen": math.nan, "leber ü": 2.0})
    first = gather_peak_logits(tmp_path)
    assert first == {"a.b": {"spleen": None, "leber ü": 2.0}}
    assert gather_peak_logits(tmp_path) == first


def test_damaged_evidence_is_named_and_nothing_is_removed(tmp_path: Path) -> None:
    write_peak_logits(tmp_path, "a", {"spleen": 2.0})
    (tmp_path / "evidence" / "b.json").write_text('{"spleen": "much"}')
    with pytest.raises(DataError, match=r"b\.json"):
        gather_peak_logits(tmp_path)
    assert (tmp_path / "evidence" / "a.json").is_file()


def test_targets_that_are_not_annotated_do_not_count(tmp_path: Path) -> None:
    make_fold(tmp_path)
    note = read(tmp_path / "fold_0/validation/summary.json")["duplus"]["presence"]
    assert (note["present"], note["absent"]) == (3, 3)
    assert not note["targets"]["liver"]["own"]


def test_cases_that_were_trained_on_do_not_count(tmp_path: Path) -> None:
    make_fold(tmp_path, held_out={"c0", "c1", "c2"})
    note = read(tmp_path / "fold_0/validation/summary.json")["duplus"]["presence"]
    assert (note["cases"], note["present"], note["absent"]) == (3, 1, 2)


def test_a_fold_that_trained_on_everything_is_not_calibrated(tmp_path: Path) -> None:
    assert "held-out" in make_fold(tmp_path, "all", held_out=())
    calibration = read_calibration(tmp_path, ["all"])
    assert calibration.predict_presence("spleen", 5.0) is None
    assert calibration.notes[0].startswith("Fold all: ")


@pytest.mark.parametrize("present", [True, False])
def test_targets_that_are_in_every_case_or_in_none_are_not_calibrated(tmp_path: Path, present: bool) -> None:
    said = make_fold(tmp_path, scores={f"c{number}": make_score(spleen=present) for number in range(6)})
    assert re.search(rf"\b6 .*\b{6 * present} .*present.*\b{6 * (not present)} absent", said)
    assert read_calibration(tmp_path, [0]).predict_presence("spleen", 5.0) is None


def test_two_folds_are_averaged(tmp_path: Path) -> None:
    make_fold(tmp_path, 0, gap=2.0)
    make_fold(tmp_path, 1, gap=8.0)
    calibrations = [read_calibration(tmp_path, folds) for folds in ([0], [1], [0, 1])]
    probabilities = [calibration.predict_presence("spleen", 1.0) for calibration in calibrations]
    odds = [math.log(value / (1 - value)) for value in probabilities if value is not None]
    assert odds[2] == pytest.approx((odds[0] + odds[1]) / 2)
    assert odds[0] != pytest.approx(odds[1])


def test_a_fold_without_a_validation_is_left_out_and_named(tmp_path: Path) -> None:
    make_fold(tmp_path)
    calibration = read_calibration(tmp_path, [0, 3])
    assert calibration.predict_presence("spleen", 5.0) == read_calibration(tmp_path, [0]).predict_presence(
        "spleen", 5.0
    )
    assert len(calibration.notes) == 1
    assert calibration.notes[0].startswith("Fold 3: ")
    assert "--val" in calibration.notes[0]


CURVE = {"slope": 1.0, "offset": 0.0, "least": 0.1, "most": 0.9, "own": True}
DAMAGED = {
    "no json": "{",
    "a list": "[]",
    "ours is no mapping": '{"duplus": 3}',
    "an older model": "{}",
    "another version": '{"duplus": {"presence": {"version": 99}}}',
    "no curves": '{"duplus": {"presence": {"version": 1}}}',
    **{
        f"{name} is {value}": json.dumps(
            {"duplus": {"presence": {"version": 1, "targets": {"spleen": {**CURVE, name: value}}}}}
        )
        for name, value in {"slope": -1.0, "offset": math.nan, "most": 1.0, "least": 0, "more": 1}.items()
    },
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_cannot_be_read_is_a_note_and_no_answer(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fold_0" / "validation" / "summary.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    calibration = read_calibration(tmp_path, [0])
    assert calibration.predict_presence("spleen", 5.0) is None
    assert "summary.json" in calibration.notes[0]
    assert "--val" in calibration.notes[0]


def test_a_summary_that_cannot_be_read_stays(tmp_path: Path) -> None:
    make_fold(tmp_path)
    file = tmp_path / "fold_0" / "validation" / "summary.json"
    file.write_text("{")
    with pytest.raises(DataError, match=r"summary\.json"):
        calibrate_fold(file.parent, {}, (), [])
    assert file.read_text() == "{"


# In a validation.


class Dataset:
    def load_case(self, identifier: str) -> str:
        return identifier


def make_trainer(folder: Path, **changes: Any) -> Any:
    """Make what `bind_each_case` and `score` need of a trainer."""
    plans = make_plans()
    labels = {"background": 0, **{name.title(): value for value, name in enumerate(NAMES, 1)}}
    return SimpleNamespace(
        output_folder=str(folder / "fold_0"),
        preprocessed_dataset_folder_base=str(folder / "preprocessed"),
        bank=PromptBank(plans),
        table=make_table(),
        plans_manager=SimpleNamespace(
            plans=plans, image_reader_writer_class=SimpleITKIO, dataset_name="Dataset001_Toy"
        ),
        configuration_manager=ConfigurationManager({"architecture": {}, "spacing": [5.0, 2.0, 2.0]}),
        dataset_json={"labels": labels, "file_ending": ".nii.gz"},
        dataset_class=Dataset,
        bind=lambda context: None,
        network=SimpleNamespace(on_image_logits=None),
        logger=MetaLogger(str(folder), False),
        **changes,
    )


def predict(trainer: Any, logits: dict[str, torch.Tensor]) -> None:
    """Walk through cases as nnU-Net's validation does."""
    with bind_each_case(trainer):
        dataset = trainer.dataset_class()
        for case, values in logits.items():
            dataset.load_case(case)
            trainer.network.on_image_logits(values)


def test_validation_writes_the_evidence_of_each_case_for_the_targets_of_its_context(tmp_path: Path) -> None:
    logits = torch.zeros(3, 4, 4, 4)
    logits[1, 0, 0, :], logits[1, 1, 0, 0] = 5.0, 10.0
    predict(make_trainer(tmp_path), {"a_0": logits, "b_0": logits[:1] - 7})
    assert gather_peak_logits(tmp_path / "fold_0" / "validation") == {
        "a_0": {"liver": 0.0, "left kidney": 6.0, "right kidney": 0.0},
        "b_0": {"liver": -7.0},
    }


def test_ranks_that_share_the_cases_and_runs_that_come_again_fill_one_file(tmp_path: Path) -> None:
    for case, value in (("a_1", 1.0), ("b_0", 2.0), ("b_0", 3.0)):
        predict(make_trainer(tmp_path), {case: torch.full((1 if case == "b_0" else 3, 4, 4, 4), value)})
    found = gather_peak_logits(tmp_path / "fold_0" / "validation")
    assert [(case, targets["liver"]) for case, targets in found.items()] == [("a_1", 1.0), ("b_0", 3.0)]


def test_logits_are_observed_during_the_validation_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with contextlib.suppress(ValueError), bind_each_case(trainer):
        assert trainer.network.on_image_logits is not None
        raise ValueError
    assert trainer.network.on_image_logits is None


def save(file: Path, *values: int) -> str:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels.flat[: len(values)] = values
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), file)
    return str(file)


def validate(folder: Path, training: list[str]) -> str:
    """Predict and score three cases: all organs, the left kidney annotated alone, no liver."""
    table = make_table()
    table = CaseTable(table.sources, {**table.cases, "trained": Case("A", "p9", NAMES, ())})
    trainer = make_trainer(folder, do_split=lambda: (training, ["a_0", "a_1", "b_0"]))
    trainer.table = table
    truth = {"a_0": (1, 2, 3), "a_1": (2,), "b_0": (), "trained": ()}
    results = [
        compute_metrics(
            save(folder / "preprocessed" / "gt_segmentations" / f"{case}.nii.gz", *values),
            save(folder / "fold_0" / "validation" / f"{case}.nii.gz", *values),
            SimpleITKIO(),
            [1, 2, 3],
        )
        for case, values in truth.items()
    ]
    empty = {label: dict.fromkeys(results[0]["metrics"][1], math.nan) for label in (1, 2, 3)}
    for result in results:
        recursive_fix_for_json_export(result)
    summary = {"metric_per_case": results, "mean": empty, "foreground_mean": empty[1]}
    save_summary_json(summary, str(folder / "fold_0" / "validation" / "summary.json"))
    three = torch.ones(3, 4, 4, 4)
    predict(trainer, {"a_0": 9 * three, "a_1": 9 * three, "b_0": -9 * three[:1], "trained": 9 * three})
    return score(trainer)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duplus_nnunet.trainers.cases.default_num_processes", 1)


@pytest.mark.usefixtures("one_process")
def test_scoring_calibrates_presence_on_annotated_targets_of_held_out_cases(tmp_path: Path) -> None:
    said = validate(tmp_path, ["trained"])
    assert re.search(r"\b3 .*\b4 present.*\b1 absent", said)
    calibration = read_calibration(tmp_path, [0])
    present, absent = (calibration.predict_presence("right kidney", evidence) for evidence in (9.0, -9.0))
    assert present is not None
    assert absent is not None
    assert absent < 0.5 < present


@pytest.mark.usefixtures("one_process")
def test_scoring_a_fold_that_trained_on_its_validation_calibrates_nothing(tmp_path: Path) -> None:
    assert "not calibrated" in validate(tmp_path, ["a_0", "a_1", "b_0"])
    assert read_calibration(tmp_path, [0]).predict_presence("liver", 9.0) is None
