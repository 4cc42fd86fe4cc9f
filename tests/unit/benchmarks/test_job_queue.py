"""Jobs side by side, within a time limit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def make_job(load: Callable[[str], Any], tmp_path: Path) -> Callable[..., Any]:
    """Give what makes a job of a line of Python, for which one minute is expected."""

    def make(name: str, code: str, needs: tuple[str, ...] = (), **options: Any) -> Any:
        (tmp_path / f"{name}.py").write_text(code)
        options = {"minutes": 1.0, "kind": "short", **options}
        return load("job_queue").Job(name, (str(tmp_path / f"{name}.py"),), needs=needs, **options)

    return make


@pytest.fixture
def run_jobs(load: Callable[[str], Any], tmp_path: Path) -> Callable[..., Any]:
    """Give what runs jobs in a folder, and returns the queue."""

    def run(*jobs: Any, minutes: float | None = None, in_parts: bool = False) -> Any:
        queue = load("job_queue").JobQueue(tmp_path / "folder", jobs, 2, minutes, in_parts)
        queue.run()
        return queue

    return run


def read_result(folder: Path, name: str) -> Any:
    return json.loads((folder / "folder" / "results" / f"{name}.json").read_text())["result"]


def test_jobs_are_run_in_order_and_once(make_job: Any, run_jobs: Any, tmp_path: Path) -> None:
    first = make_job("first", "open('made', 'a').write('x')")
    second = make_job("second", "import json; print(json.dumps(open('made').read()))", needs=("first",))
    for _ in range(2):
        run_jobs(second, first)
    assert read_result(tmp_path, "second") == "x"
    assert (tmp_path / "folder" / "made").read_text() == "x"


def test_failed_job_holds_back_those_that_need_it(make_job: Any, run_jobs: Any) -> None:
    jobs = [make_job("bad", "raise SystemExit(3)"), make_job("next", "", needs=("bad",)), make_job("other", "")]
    queue = run_jobs(*jobs)
    assert list(queue.failed) == ["bad"]
    assert [queue.is_done(job) for job in jobs] == [False, False, True]


def test_job_that_does_not_fit_is_not_started(make_job: Any, run_jobs: Any, tmp_path: Path) -> None:
    long, short = make_job("long", "", minutes=5.0, kind="long"), make_job("short", "")
    queue = run_jobs(long, short, minutes=2.0)
    assert [queue.is_done(long), queue.is_done(short)] == [False, True]
    assert not (tmp_path / "folder" / "logs" / "long.log").exists()


def test_measured_minutes_replace_the_expected_ones(make_job: Any, run_jobs: Any) -> None:
    queue = run_jobs(make_job("first", ""))
    assert queue.estimate(make_job("second", "", minutes=5.0)) < 1
    assert queue.estimate(make_job("third", "", minutes=5.0, kind="other")) == 5


def test_training_in_parts_is_ended_at_the_limit_and_lacks_less(make_job: Any, run_jobs: Any) -> None:
    job = make_job("training", "import time; time.sleep(600)", minutes=9.0, resumable=True)
    queue = run_jobs(job, minutes=0.01, in_parts=True)
    assert queue.interrupted == {"training"}
    assert 8 < queue.estimate(job) < 9


def test_lines_of_json_become_a_list(make_job: Any, run_jobs: Any, tmp_path: Path) -> None:
    run_jobs(make_job("lines", "print('{\"a\": 1}'); print('{\"a\": 2}')"))
    assert read_result(tmp_path, "lines") == [{"a": 1}, {"a": 2}]
