"""Sections on the model, its training and its scores: their numbers, and what they say of gaps."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.model_report.blocks import Chart, Paragraph, Section, Table
from duplus_nnunet.model_report.drawing import MOST_ROWS
from duplus_nnunet.model_report.report import choose_title
from duplus_nnunet.model_report.scores import find_missing, find_worst, make_scores
from duplus_nnunet.model_report.sections import SectionOptions, make_sections
from duplus_nnunet.model_report.summary import list_commands, make_manifest, make_summary
from duplus_nnunet.model_report.training_curves import average, make_training_curves
from duplus_nnunet.reporting.aggregate import aggregate
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.score_files import Tolerances, write_scores
from duplus_nnunet.trainers.training_cases import TrainingCases

from .report_sources import (
    find_chart,
    find_table,
    list_charts,
    list_kind,
    make_bank,
    make_case,
    make_fold,
    make_log,
    make_score,
    make_source,
)

TWO = {"a_0": make_case("A", "p0", liver=0.9, left_kidney=0.1), "b_0": make_case("B", "p2", liver=0.5)}


def test_a_model_folder_called_model_is_named_by_its_dataset() -> None:
    assert choose_title(make_source(folder=Path("home/model"))) == "Report on the model of Dataset501_Two"
    assert choose_title(make_source(folder=Path("home/liver"))) == "Report on the model liver"
    assert choose_title(make_source(is_model=False)) == "Report on the dataset Dataset501_Two"


def test_targets_without_synonyms_have_none() -> None:
    assert {row[4] for row in find_table(make_summary(make_source()), "targets").rows} == {"none"}


def test_targets_are_counted_by_modality_the_most_frequent_first() -> None:
    chart = find_chart(make_summary(make_source()), "targets_by_modality")
    labels = [text.get_text() for text in chart.figure.axes[0].get_yticklabels()]
    assert labels == ["liver", "left kidney", "right kidney"]
    assert sum(int(row["annotated cases"] or 0) for row in chart.numbers if row["target"] == "liver") == 35


def test_modalities_differ_by_more_than_colour() -> None:
    chart = find_chart(make_summary(make_source()), "targets_by_modality")
    assert len({bar.get_hatch() for bars in chart.figure.axes[0].containers for bar in bars}) == 2


def test_imbalance_is_said() -> None:
    few = {"A": {"context": "ct", "weight": 1.0, "cases": 30, "targets": {"liver": 30, "left kidney": 2}}}
    chart = find_chart(make_summary(make_source(bank=make_bank(few))), "targets_by_modality")
    assert "imbalanced" in chart.caption


def test_targets_without_any_annotated_case_are_named() -> None:
    few = {"A": {"context": "ct", "weight": 1.0, "cases": 3, "targets": {"liver": 3}}}
    section = make_summary(make_source(bank=make_bank(few), table=None))
    assert any("left kidney, right kidney" in text for text in list_kind(section, "text"))


def test_a_dataset_without_counts_says_so() -> None:
    section = make_summary(make_source(bank=make_bank({}), table=None, missing={"table": "No table."}))
    assert any("No table." in text for text in list_kind(section, "absent"))
    assert list_charts(section) == []


def test_commands_are_those_of_the_folders_name() -> None:
    lines = list_commands(make_source([make_fold("0"), make_fold("3")]))
    assert lines[1:] == [
        f"nnUNetv2_train Dataset501_Two 3d_fullres {fold} -tr DuPLUSTrainer -p DuPLUSPlans" for fold in (0, 3)
    ]
    assert list_commands(make_source(folder=Path("renamed"))) == []


def test_the_manifest_has_seed_and_dates() -> None:
    rows = dict(find_table(make_manifest(make_source([make_fold(log=make_log())])), "manifest").rows)  # type: ignore[arg-type]
    assert rows["seed of the training"] == 0
    assert rows["fold 0: training ended"] == "2001-09-09T01:46:40+00:00"
    assert rows["fold 0: hours of training"] == 0.1


def test_means_over_targets_leave_out_what_was_not_in_an_epoch() -> None:
    found = average([[1.0, math.nan, math.nan], [0.0, 0.5, math.nan]])
    assert found[:2] == [0.5, 0.5]
    assert math.isnan(found[2])


def test_training_curves_have_numbers_and_the_lowest_target_first() -> None:
    section = make_training_curves(make_source([make_fold(log=make_log())]))
    assert list_charts(section)[:4] == [
        "loss_fold_0", "online_dice_by_source_fold_0", "online_dice_fold_0", "learning_rate_fold_0",
    ]  # fmt: skip
    last = find_chart(section, "online_dice_fold_0").numbers[-1]
    assert list(last) == ["epoch", "liver (B)", "left kidney (A)", "liver (A)"]
    assert last["left kidney (A)"] is None
    shares = {row["source"]: row["share of drawn"] for row in find_chart(section, "sampling_shares").numbers[:2]}
    assert shares == {"A": 0.75, "B": 0.25}


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_short_training_is_drawn(epochs: int) -> None:
    section = make_training_curves(make_source([make_fold(log=make_log(epochs))]))
    assert len(find_chart(section, "loss_fold_0").numbers) == epochs


def test_a_model_that_was_not_validated_has_no_scores_but_the_reason() -> None:
    section = make_scores(make_source([make_fold(missing={"scores": "Fold 0 was not validated."})]))
    assert list_kind(section, "absent") == ["Fold 0 was not validated."]
    assert list_charts(section) == []


def test_scores_are_those_of_the_aggregate() -> None:
    section = make_scores(make_source([make_fold(scores=TWO)]))
    rows = {(row["source"], row["target"]): row["Dice"] for row in find_chart(section, "dice").numbers}
    assert rows == {("A", "left kidney"): 0.1, ("A", "liver"): 0.9, ("B", "liver"): 0.5}
    assert [row["Dice"] for row in find_chart(section, "dice").numbers] == [0.1, 0.5, 0.9]


def test_the_worst_case_comes_first_and_once() -> None:
    held_out = make_source([make_fold(scores=TWO)]).held_out
    assert [(each.case, each.target) for each in find_worst(held_out, 5)] == [
        ("a_0", "left kidney"),
        ("b_0", "liver"),
    ]
    assert len(find_worst(held_out, 1)) == 1
    assert find_worst({}, 3) == []


def test_missed_targets_and_false_positives_are_told_apart() -> None:
    targets = {"liver": make_score(0.0, predicted=False), "left kidney": make_score(0.0, present=False)}
    source = make_source([make_fold(scores={"a_0": CaseScore("A", "p0", (1, 1, 1), targets)})])
    remarks = {row[2]: row[5] for row in find_table(make_scores(source), "worst_cases").rows}
    assert remarks == {"liver": "missed", "left kidney": "false positive"}


def test_cases_in_which_all_targets_are_absent_have_no_dice() -> None:
    absent = make_score(math.nan, present=False, predicted=False)
    scores = {"a_0": CaseScore("A", "p0", (1, 1, 1), {"liver": absent})}
    section = make_scores(make_source([make_fold(scores=scores)]))
    assert list_charts(section) == []
    assert any("no Dice" in text for text in list_kind(section, "absent"))
    assert find_table(section, "scores").rows[0][:6] == ("A", "liver", 1, 0, 0, 0)


def test_one_case_has_no_interval_and_the_report_says_why() -> None:
    section = make_scores(make_source([make_fold(scores={"a_0": TWO["a_0"]})]))
    assert {row["low"] for row in find_chart(section, "dice").numbers} == {None}
    assert any("one patient" in text for text in list_kind(section, "warning"))


def test_a_source_of_one_patient_is_named_although_means_have_intervals() -> None:
    scores = {**TWO, "a_1": make_case("A", "p1", liver=0.7)}
    warnings = list_kind(make_scores(make_source([make_fold(scores=scores)])), "warning")
    assert any("of B:" in text for text in warnings)


def test_missing_cases_are_listed() -> None:
    source = make_source([make_fold(scores={"a_0": TWO["a_0"]}, trained=["a_1"])])
    assert find_missing(source) == ["b_0"]
    assert any("b_0" in text for text in list_kind(make_scores(source), "warning"))


def test_scores_of_cases_that_were_trained_on_are_doubted() -> None:
    section = make_scores(make_source([make_fold(scores=TWO, trained=["a_0"])]))
    assert any("a_0" in text and "used in training" in text for text in list_kind(section, "warning"))


def test_cases_that_the_starting_weights_were_trained_on_are_doubted_too() -> None:
    base = TrainingCases("Dataset501_Two", "0", ("b_0",), ("p2",))
    trained = TrainingCases("Dataset501_Two", "0", ("a_1",), ("p1",), base)
    fold = make_fold(scores=TWO)
    section = make_scores(make_source([type(fold)("0", fold.folder, scores=TWO, training_cases=trained)]))
    assert any("b_0" in text and "used in training" in text for text in list_kind(section, "warning"))


def test_fold_all_is_not_scored_on_its_training_cases() -> None:
    section = make_scores(make_source([make_fold("all", TWO)]))
    assert list_charts(section) == []
    assert any('"all"' in text for text in list_kind(section, "absent"))


def test_labels_that_are_not_the_models_are_named() -> None:
    section = make_scores(make_source([make_fold(scores={"a_0": make_case("A", "p0", appendix=0.5)})]))
    assert any("appendix" in text for text in list_kind(section, "warning"))


def test_folds_are_compared() -> None:
    folds = [make_fold("0", {"a_0": TWO["a_0"]}), make_fold("1", {"b_0": TWO["b_0"]})]
    section = make_scores(make_source(folds))
    assert [row[:3] for row in find_table(section, "folds").rows] == [("0", 1, "0.500"), ("1", 1, "0.500")]
    other = make_fold("1", {"b_0": TWO["b_0"]}, tolerances=Tolerances(1.0))
    assert any("tolerances" in text for text in list_kind(make_scores(make_source([folds[0], other])), "warning"))


def test_scores_of_a_file_are_shown_in_place_of_the_validation(tmp_path: Path) -> None:
    write_scores(aggregate({"t_0": make_case("A", "p9", liver=0.25)}, 2.0), tmp_path)
    section = make_scores(make_source([make_fold(scores=TWO)]), tmp_path / "scores.json")
    assert [row["Dice"] for row in find_chart(section, "dice").numbers] == [0.25]
    with pytest.raises(DataError):
        make_scores(make_source(), tmp_path / "none.json")


def make_large(count: int) -> dict[str, Any]:
    names = [f"structure {number:03d}" for number in range(count)]
    scores = {
        f"case_{case}": CaseScore("A", f"p{case}", (1, 1, 1), {name: make_score(case / 4) for name in names})
        for case in range(3)
    }
    log = make_log(3)
    dice = {("A", name): [0.1, 0.2, 0.3] for name in names}
    fold = make_fold(scores=scores, log=type(log)(log.training_loss, log.validation_loss, log.learning_rate, dice))
    return {"folds": [fold], "names": names}


def test_of_400_targets_charts_show_some_and_files_have_all() -> None:
    large = make_large(400)
    source = make_source(large["folds"])
    scores, training = make_scores(source), make_training_curves(source)
    chart = find_chart(scores, "dice")
    assert len(chart.figure.axes[0].get_yticks()) == MOST_ROWS
    assert "370 more targets" in chart.caption
    assert len(chart.numbers) == 400
    assert len(find_chart(training, "online_dice_fold_0").figure.axes[0].get_yticks()) == MOST_ROWS
    assert len(find_table(scores, "worst_cases").rows) == 1200


def test_names_are_drawn_as_they_are_and_not_as_formulas() -> None:
    scores = {"a_0": CaseScore("A", "p0", (1, 1, 1), {"cost $x_1$ <b>": make_score(0.5)})}
    chart = find_chart(make_scores(make_source([make_fold(scores=scores)])), "dice")
    chart.figure.draw_without_rendering()
    assert chart.figure.axes[0].get_yticklabels()[0].get_text() == r"cost \$x_1\$ <b>"


def check(section: Section) -> None:
    names = [block.name for block in section.blocks if isinstance(block, (Chart, Table))]
    assert len(names) == len(set(names))
    for block in section.blocks:
        if isinstance(block, Chart):
            assert block.description
            assert block.caption
            assert len({tuple(row) for row in block.numbers}) == 1
            json.dumps(list(block.numbers), allow_nan=False)
        elif isinstance(block, Table):
            assert {len(row) for row in block.rows} <= {len(block.headings)}
            json.dumps(list(block.rows), allow_nan=False)
        else:
            assert isinstance(block, Paragraph)
            assert block.kind in {"text", "warning", "absent"}


@pytest.mark.parametrize("is_model", [True, False])
def test_all_sections_are_whole(is_model: bool) -> None:
    source = make_source([make_fold(scores=TWO, log=make_log())], is_model=is_model)
    sections = make_sections(source, SectionOptions())
    anchors = [section.anchor for section in sections]
    assert anchors[0] == "summary"
    assert anchors[-1] == "manifest"
    assert ("scores" in anchors) == is_model
    assert len(anchors) == len(set(anchors))
    for section in sections:
        check(section)
