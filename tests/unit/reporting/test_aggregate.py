"""Means over cases, targets and sources, and the files that they are written to."""

import csv
import json
import math
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.aggregate import aggregate
from duplus_nnunet.reporting.case_scores import CaseScore, TargetScore
from duplus_nnunet.reporting.score_files import read_case_scores, write_scores

REJECTED = TargetScore(math.nan, math.nan, present=False, predicted=False)
FALSE_POSITIVE = TargetScore(0.0, 0.0, present=False, predicted=True)


def make_score(dice: float) -> TargetScore:
    return TargetScore(dice, dice / 2, present=True, predicted=True)


def make_cases() -> dict[str, CaseScore]:
    """Make two sources: five cases of four patients, and one case."""
    spacing = (1.0, 1.0, 1.0)
    return {
        "a1": CaseScore("ct", "a", spacing, {"liver": make_score(0.9), "spleen": make_score(0.8)}),
        "a2": CaseScore("ct", "a", spacing, {"liver": make_score(0.7)}),
        "b": CaseScore("ct", "b", spacing, {"liver": make_score(0.8), "spleen": REJECTED}),
        "c": CaseScore("ct", "c", spacing, {"liver": make_score(0.6), "spleen": FALSE_POSITIVE}),
        "d": CaseScore("ct", "d", spacing, {"gallbladder": REJECTED}),
        "e": CaseScore("mr", "e", spacing, {"liver": make_score(0.5)}),
    }


def test_rows_count_annotated_cases_only() -> None:
    rows = {(row.source, row.target): row for row in aggregate(make_cases(), 2.0).rows}
    spleen = rows["ct", "spleen"]
    assert (spleen.annotated, spleen.present, spleen.false_positives, spleen.correct_rejections) == (3, 1, 1, 1)
    assert rows["ct", "liver"].dice.value == pytest.approx(0.75)
    assert rows["ct", "liver"].nsd.value == pytest.approx(0.375)


def test_false_positive_scores_zero_and_a_rejection_has_no_score() -> None:
    rows = {(row.source, row.target): row for row in aggregate(make_cases(), 2.0).rows}
    assert rows["ct", "spleen"].dice.value == pytest.approx(0.4)


def test_targets_weigh_the_same_and_so_do_sources() -> None:
    scores = aggregate(make_cases(), 2.0)
    assert scores.sources["ct"]["dice"].value == pytest.approx((0.75 + 0.4) / 2)
    assert scores.mean["dice"].value == pytest.approx((0.575 + 0.5) / 2)
    assert scores.over_targets["dice"].value == pytest.approx((0.75 + 0.4 + 0.5) / 3)


def test_target_that_was_only_rejected_has_no_mean_and_spoils_none() -> None:
    scores = aggregate(make_cases(), 2.0)
    gallbladder = next(row for row in scores.rows if row.target == "gallbladder")
    assert math.isnan(gallbladder.dice.value)
    assert gallbladder.dice.interval is None
    assert not math.isnan(scores.mean["nsd"].value)


def test_interval_holds_its_mean_and_needs_two_patients() -> None:
    scores = aggregate(make_cases(), 2.0)
    low, high = next(row for row in scores.rows if row.target == "liver").dice.interval
    assert low < 0.75 < high
    assert scores.sources["mr"]["dice"].interval is None


def test_scores_come_out_the_same_every_time() -> None:
    first, second = aggregate(make_cases(), 2.0), aggregate(make_cases(), 2.0)
    assert first.mean == second.mean


def test_json_holds_everything_as_standard_json(tmp_path: Path) -> None:
    write_scores(aggregate(make_cases(), 2.0), tmp_path)
    content = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    spleen = content["sources"]["ct"]["targets"]["spleen"]
    assert (spleen["annotated"], spleen["present"], spleen["false_positives"]) == (3, 1, 1)
    assert content["sources"]["ct"]["targets"]["gallbladder"]["dice"] is None
    assert content["cases"]["b"]["targets"]["spleen"]["dice"] is None
    assert content["nsd_tolerance_mm"] == 2.0


def test_csv_has_a_row_a_target_and_the_means(tmp_path: Path) -> None:
    write_scores(aggregate(make_cases(), 2.0), tmp_path)
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["source"], row["target"]) for row in rows] == [
        ("ct", "gallbladder"),
        ("ct", "liver"),
        ("ct", "spleen"),
        ("mr", "liver"),
        ("ct", "(mean over targets)"),
        ("mr", "(mean over targets)"),
        ("(mean over sources)", "(mean over targets)"),
        ("(all sources)", "(mean over targets)"),
    ]
    assert rows[0]["dice"] == ""
    assert float(rows[1]["dice_low"]) < float(rows[1]["dice"]) < float(rows[1]["dice_high"])


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    write_scores(aggregate(make_cases(), 2.0), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["scores.csv", "scores.json"]


def test_scores_of_cases_can_be_read_again(tmp_path: Path) -> None:
    write_scores(aggregate(make_cases(), 3.0), tmp_path)
    cases, tolerances = read_case_scores(tmp_path / "scores.json")
    assert (tolerances.mm, tolerances.by_target) == (3.0, {})
    assert repr(cases) == repr(make_cases())


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("no json", r"scores\.json"),
        ("[]", r"scores\.json .*version None.*\b1\b"),
        ('{"version": 1}', r"scores\.json.*'cases'"),
        ('{"version": 1, "nsd_tolerance_mm": 2, "cases": {"a": {"targets": {"liver": {}}}}}', r"scores\.json.*'dice'"),
    ],
)
def test_another_file_is_refused(text: str, pattern: str, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(DataError, match=pattern):
        read_case_scores(tmp_path / "scores.json")
