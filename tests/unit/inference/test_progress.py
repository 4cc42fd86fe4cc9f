"""Progress of a folder, and the hint on cheaper settings."""

from dataclasses import replace

import pytest

from duplus_nnunet.inference import progress
from duplus_nnunet.inference.pace import Cost, Pace
from duplus_nnunet.inference.progress import Progress, describe_duration

DEAR = Cost(folds=5, mirror_images=8, step_size=0.5, bfloat16_unused=True)
CHEAP = Cost(folds=1, mirror_images=1, step_size=1.0, bfloat16_unused=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the time that the progress sees, in s."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_time_left_is_that_of_the_cases_so_far(clock: list[float]) -> None:
    run = Progress(_started=0.0)
    run.expect(10, 2)
    clock[0] = 60.0
    run.failed += 1
    assert run.report("a", 12.34) == "case 2 of 10: a, 12.3 s, about 4 min left"


def test_last_case_has_no_time_left(clock: list[float]) -> None:
    run = Progress(_started=0.0)
    run.expect(1, 0)
    clock[0] = 5.0
    assert run.report("a", 5.0) == "case 1 of 1: a, 5.0 s"


def test_unknown_number_of_cases_is_left_out(clock: list[float]) -> None:
    clock[0] = 5.0
    assert Progress(_started=0.0).report("a", 5.0) == "case 1: a, 5.0 s"


def test_what_is_complete_and_missing_is_counted() -> None:
    run = Progress(total=5, kept=2, complete=1, failed=1)
    assert [int(word) for word in run.describe_rest().split() if word.isdecimal()] == [3, 4]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.1, "1 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (7380, "2 h 3 min")]
)
def test_durations_are_rounded(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text


def hint(cost: Cost, seconds: float = 2.0) -> list[str]:
    pace = Pace(cost, windows=200)
    return [pace.add(seconds) for _ in range(4)]


def test_hint_is_given_once_after_the_second_window() -> None:
    first, second, *others = hint(DEAR)
    assert (first, others) == ("", ["", ""])
    assert all(
        word in second for word in ("33 min", "200", "--disable_tta", "1/8", "-step_size", "30%", "1/5", "bfloat16")
    )


def test_hint_names_only_what_would_help() -> None:
    assert "--disable_tta" not in hint(replace(DEAR, mirror_images=1))[1]
    assert all(word not in hint(CHEAP)[1] for word in ("--disable_tta", "-step_size", "-f", "bfloat16"))


def test_short_prediction_needs_no_hint() -> None:
    assert hint(DEAR, seconds=0.1) == [""] * 4
