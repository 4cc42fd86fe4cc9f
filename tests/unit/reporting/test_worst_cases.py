"""Ranking of cases by a score."""

import math

import pytest

from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.metrics import find_metrics
from duplus_nnunet.reporting.target_scores import TargetScore
from duplus_nnunet.reporting.worst_cases import format_worst, rank_cases


def make_case(value: float, name: str, source: str = "ct") -> CaseScore:
    scores = {"dice": math.nan, "nsd": math.nan} | {name: value}
    return CaseScore(source, "patient", (1.0, 1.0, 1.0), {"liver": TargetScore(present=True, predicted=True, **scores)})


@pytest.mark.parametrize(
    ("metric", "values", "order"),
    [
        ("dice", {"a": 0.9, "b": 0.1, "c": 0.5}, "bca"),
        ("hd95_mm", {"a": 0.9, "b": 0.1, "c": 0.5}, "acb"),
        ("volume_difference_ml", {"a": -9.0, "b": 1.0, "c": 5.0}, "acb"),
        ("dice", {"b": 0.5, "a": 0.5, "c": math.nan}, "ab"),
    ],
)
def test_the_worst_case_is_first(metric: str, values: dict[str, float], order: str) -> None:
    [found] = find_metrics([metric])
    ranked = rank_cases({name: make_case(value, metric) for name, value in values.items()}, found)
    assert [each.case for each in ranked["ct", "liver"]] == list(order)


def test_sources_are_ranked_apart() -> None:
    cases = {"a": make_case(0.5, "dice"), "b": make_case(0.25, "dice", "mr"), "c": make_case(0.75, "dice")}
    [dice] = find_metrics(["dice"])
    lines = [line.split() for line in format_worst(cases, dice, 1)][2:]
    assert lines == [["ct,", "liver", "a", "0.500"], ["mr,", "liver", "b", "0.250"]]
