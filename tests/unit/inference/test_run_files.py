"""Manifest and tables of a run: written often enough, not too often, and whole at the end."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from duplus_nnunet.inference import run_files
from duplus_nnunet.inference.case_list import PredictionCall
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.run_files import RunFiles
from duplus_nnunet.outputs.manifest import COMPLETE, CaseRecord, Manifest, RunRecord

RUN = RunRecord("model", {}, ("0",), {}, {}, versions={})
BOUND: Any = SimpleNamespace(options=Options(), questions={})
DONE = CaseRecord(COMPLETE)


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_files, "time", clock)
    monkeypatch.setattr(run_files, "describe_run", lambda bound: RUN)
    monkeypatch.setattr(run_files, "list_idle_options", lambda bound: ())
    return clock


def make(folder: Path, overwrite: bool = True) -> RunFiles:
    return RunFiles(PredictionCall(str(folder), str(folder), overwrite=overwrite))


def read_cases(folder: Path) -> list[str]:
    manifest = Manifest.read(folder)
    return [] if manifest is None else list(manifest.cases)


def test_writing_takes_a_small_part_of_the_time(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes, original = list[float](), Manifest.write

    def write(self: Manifest, folder: Path) -> Path:
        writes.append(clock.now)
        clock.now += 2.0
        return original(self, folder)

    monkeypatch.setattr(Manifest, "write", write)
    files, began = make(tmp_path), clock.now
    for number in range(500):
        files.add_record(BOUND, f"case{number}", DONE)
        clock.now += 1.0
    assert len(writes) > 5
    assert 2.0 * len(writes) <= (clock.now - began) / 10


def test_a_manifest_that_is_written_at_once_is_written_after_each_case(clock: Clock, tmp_path: Path) -> None:
    files = make(tmp_path)
    for number in range(3):
        files.add_record(BOUND, f"case{number}", DONE)
        assert len(read_cases(tmp_path)) == number + 1


def test_what_was_held_back_is_written_at_the_end(clock: Clock, tmp_path: Path) -> None:
    files = make(tmp_path)
    files.add_record(BOUND, "a", DONE)
    files._next = clock.now + 100.0
    files.add_record(BOUND, "b", DONE)
    assert read_cases(tmp_path) == ["a"]
    files.save()
    assert read_cases(tmp_path) == ["a", "b"]


def test_cases_stand_in_the_order_in_which_they_were_asked_for(clock: Clock, tmp_path: Path) -> None:
    Manifest(RUN, {"z": DONE, "b": DONE}).write(tmp_path)
    files = make(tmp_path, overwrite=False)
    for case in ("d", "b", "c"):
        files.add_record(BOUND, case, DONE)
    files.sort(["b", "c", "d"])
    files.save()
    assert read_cases(tmp_path) == ["z", "b", "c", "d"]
