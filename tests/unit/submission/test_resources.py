"""What jobs ask for is read and checked."""

from typing import Any

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.submission.resources import (
    Resources,
    choose_fold_numbers,
    read_minutes,
    read_slurm_options,
)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("24:00:00", 1440), ("2-01:30:00", 2970), ("00:00:01", 1), ("36h", 2160), ("2d", 2880), ("15m", 15)],
)
def test_time_limits_are_read_as_slurm_writes_them(text: str, minutes: int) -> None:
    assert read_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "00:00", "soon", "-5", "1.5h", "1:2:3:4"])
def test_other_texts_are_no_time_limits(text: str) -> None:
    with pytest.raises(DataError):
        read_minutes(text)


@pytest.mark.parametrize(
    "changes", [{"gpus": -1}, {"nodes": 0}, {"cpus": 0}, {"memory_gb": 0.0}, {"parallel": -1}, {"nodes": 2, "gpus": 0}]
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Resources("slurm", **changes)


def test_this_machine_is_one_node() -> None:
    with pytest.raises(DataError, match="torchrun"):
        Resources("local", nodes=2)


def test_options_of_sbatch_are_read() -> None:
    assert read_slurm_options(["--mail_user=a@b.org", "hint=x=y"]) == (("mail-user", "a@b.org"), ("hint", "x=y"))


@pytest.mark.parametrize("pair", ["time=3", "cpus_per_task=2", "=3", "a b=3", "signal=USR1"])
def test_options_that_are_set_elsewhere_are_refused(pair: str) -> None:
    with pytest.raises(DataError, match="--"):
        read_slurm_options([pair])


def test_folds_are_numbers_or_all() -> None:
    assert choose_fold_numbers([], range(5)) == ["0", "1", "2", "3", "4"]
    assert choose_fold_numbers(["03", "all"], [0]) == ["3", "all"]
    with pytest.raises(DataError, match="first"):
        choose_fold_numbers(["first"], range(5))
