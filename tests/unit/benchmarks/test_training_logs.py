"""Online Dice in training logs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LOG = """
2026-11-28 18:13:02: Pseudo dice is of: liver (CT); spleen (MR)
2026-11-28 18:13:03: Epoch 0
2026-11-28 18:13:04: Pseudo dice [np.float64(0.6), np.float32(0.0)]
2026-11-28 18:13:05: Epoch 1
2026-11-28 18:13:06: Pseudo dice [0.7, nan]
2026-11-28 18:13:07: Epoch 1
2026-11-28 18:13:08: Pseudo dice [np.float64(0.55), np.float64(0.8)]
"""


def test_log_is_read_by_target_and_a_repeated_epoch_counts_once(load: Callable[[str], Any]) -> None:
    online = load("training_logs").parse_log(LOG)
    assert online.names == ("liver (CT)", "spleen (MR)")
    assert online.rows == ((0.6, 0.0), (0.55, 0.8))


def test_start_is_the_end_of_the_first_epoch_above_the_threshold(load: Callable[[str], Any]) -> None:
    online = load("training_logs").parse_log(LOG)
    assert online.find_start(0.5, 50) == 100
    assert online.find_start(0.7, 50) == -1
    assert online.list_starts(0.5, 50) == {"liver (CT)": 50, "spleen (MR)": 100}


def test_log_without_names_numbers_its_targets(load: Callable[[str], Any]) -> None:
    logs = load("training_logs")
    assert logs.parse_log("Epoch 0\nPseudo dice [0.1, 0.2]").names == ("1", "2")
    assert logs.parse_log("").find_start(0.5, 50) == -1


def test_target_without_voxels_has_not_started(load: Callable[[str], Any]) -> None:
    assert load("training_logs").parse_log("Epoch 0\nPseudo dice [0.9, np.float64(nan)]").find_start(0.5, 50) == -1


def test_logs_are_joined_in_the_order_of_their_dates(load: Callable[[str], Any], tmp_path: Path) -> None:
    for name, value in (("2026_9_30_01_00_00", 0.1), ("2026_10_1_01_00_00", 0.9)):
        (tmp_path / f"training_log_{name}.txt").write_text(f"Epoch 0 \nPseudo dice [{value}]\n")
    assert load("training_logs").read_fold(tmp_path).rows == ((0.9,),)


@pytest.mark.parametrize(
    ("starts", "median", "never"), [([50, 100, 400], 100, 0), ([50, -1, -1], -1, 2), ([50, 150], 100, 0)]
)
def test_starts_are_summarised(load: Callable[[str], Any], starts: list[int], median: int, never: int) -> None:
    row = load("training_logs").summarise(starts)
    assert (row["median"], row["never"]) == (median, never)
