"""The scores of the demonstration and their criteria."""

import math

import numpy as np
import pytest

from duplus_nnunet.demo.scores import (
    Criterion,
    Results,
    Scores,
    describe_results,
    evaluate_criteria,
    mean_dice,
    measure_confusion,
    measure_dice,
    score_cases,
)

TRUTH = np.array([0, 1, 1, 2, 2, 0], dtype=np.uint8)


def test_dice_of_the_truth_is_one() -> None:
    assert measure_dice(TRUTH, TRUTH, 1) == 1.0


def test_dice_of_a_half_found_structure() -> None:
    assert measure_dice(np.array([0, 1, 0, 0, 0, 1]), TRUTH, 1) == 0.5


def test_dice_of_what_is_in_neither_is_one() -> None:
    assert measure_dice(TRUTH, TRUTH, 7) == 1.0


def test_dice_of_a_missed_structure_is_zero() -> None:
    assert measure_dice(np.zeros_like(TRUTH), TRUTH, 1) == 0.0


def test_exchanged_sides_are_full_confusion() -> None:
    exchanged = np.array([0, 2, 2, 1, 1, 0])
    assert measure_confusion(exchanged, TRUTH, 1, 2) == 1.0
    assert measure_confusion(TRUTH, TRUTH, 1, 2) == 0.0


def test_confusion_is_a_share_of_the_prediction() -> None:
    assert measure_confusion(np.array([1, 1, 1, 1, 0, 0]), TRUTH, 1, 2) == 0.25


def test_nothing_predicted_is_no_confusion() -> None:
    assert measure_confusion(np.zeros_like(TRUTH), TRUTH, 1, 2) == 0.0


def test_cases_are_scored_one_at_a_time() -> None:
    scores = score_cases([(TRUTH, TRUTH), (np.zeros_like(TRUTH), TRUTH)], {"a": 1, "b": 2})
    assert scores == {"a": [1.0, 0.0], "b": [1.0, 0.0]}


def test_mean_counts_every_target_alike() -> None:
    assert mean_dice({"a": [1.0, 1.0], "b": [0.0, 0.0]}) == 0.5


GOOD = {"CT": {"a": [0.9]}, "MR": {"b": [0.9]}}
BAD = {"CT": {"a": [0.1]}, "MR": {"b": [0.1]}}
ONE_BAD = {"CT": {"a": [0.1]}, "MR": {"b": [0.9]}}


def make_results(dice: Scores, target_prompts_exchanged: Scores, sides: float = 0.0) -> Results:
    transfer = {"CT": {"b": [0.3, 0.5]}, "MR": {}}
    return Results(dice, transfer, target_prompts_exchanged, context_prompts_exchanged=GOOD, confusion={"sides": sides})


def test_table_has_a_row_a_target_their_mean_and_what_was_never_annotated() -> None:
    dice = {"CT": {"liver": [0.9, 0.8], "spine": [0.7, 0.7]}}
    exchanged = {"CT": {"liver": [0.1, 0.0], "spine": [0.0, 0.0]}}
    table = describe_results(Results(dice, {"CT": {"aorta": [0.3, 0.5]}}, exchanged, dice, {}))
    rows = [line.split() for line in table.splitlines()]
    assert rows[1] == ["CT", "liver", "0.850", "0.050", "0.800", "0.900", "0.050", "0.850"]
    assert rows[3] == ["CT", "mean", "0.775", "0.025", "0.775"]
    assert rows[5] == ["CT", "aorta", "0.400", "0.100", "0.300", "0.500"]


@pytest.mark.parametrize(
    ("results", "missed"),
    [
        (make_results(GOOD, BAD), []),
        (make_results(ONE_BAD, BAD), ["mean Dice on unseen cases, CT"]),
        (make_results(GOOD, BAD, sides=0.5), ["sides"]),
        (make_results(GOOD, ONE_BAD), ["mean Dice with target prompts exchanged, MR"]),
    ],
)
def test_each_criterion_can_be_missed_alone(results: Results, missed: list[str]) -> None:
    assert [criterion.name for criterion in evaluate_criteria(results) if not criterion.is_met] == missed


def test_neither_transfer_nor_exchanged_contexts_have_a_criterion() -> None:
    assert len(evaluate_criteria(make_results(GOOD, BAD))) == 2 + 1 + 2


def test_limits_themselves_belong_to_the_better_side_only_for_the_dice() -> None:
    assert Criterion("dice", 0.8, 0.8, at_least=True).is_met
    assert not Criterion("control", 0.2, 0.2, at_least=False).is_met


@pytest.mark.parametrize("at_least", [True, False])
def test_a_value_that_is_no_number_clears_no_criterion(at_least: bool) -> None:
    assert not Criterion("dice", math.nan, 0.5, at_least=at_least).is_met


def test_missed_bar_says_what_was_wanted() -> None:
    assert Criterion("dice", 0.5, 0.8, at_least=True).describe().startswith("FAIL dice: 0.500 (")
