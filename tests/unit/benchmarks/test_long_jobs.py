"""The jobs of the long benchmarks, and the help of all benchmarks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.py") if "\ndef main(" in file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_what_can_be_run(name: str, load: Callable[[str], Any], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        load(name).main()
    assert end.value.code == 0
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


def test_long_versions_are_named_apart_and_need_what_is_there(load: Callable[[str], Any], tmp_path: Path) -> None:
    long = load("long")
    jobs = {job.name: job for part in long.PARTS.values() for job in part.list_jobs(long.Plan(tmp_path, (1, 2)))}
    assert len({job.words for job in jobs.values()}) == len(jobs)
    assert {name for job in jobs.values() for name in job.needs} <= set(jobs)


def test_part_without_its_datasets_is_left_out(load: Callable[[str], Any], tmp_path: Path) -> None:
    long = load("long")
    jobs, left_out = long.list_jobs(long.Plan(tmp_path, (1,)), ["conditioning", "parity"], tmp_path)
    assert [job.name for job in jobs] == ["conditioning"]
    assert list(left_out) == ["parity"]


def test_only_the_cost_of_conditioning_is_measured_alone(load: Callable[[str], Any], tmp_path: Path) -> None:
    long = load("long")
    alone = [job for part in long.PARTS.values() for job in part.list_jobs(long.Plan(tmp_path, (1,))) if job.alone]
    assert [job.name for job in alone] == ["conditioning"]
