"""Predictions by workers of Ray: the files of the plain prediction, also when workers are lost."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.inference import cluster_run
from duplus_nnunet.inference.cluster_worker import CaseWorker, Outcome
from duplus_nnunet.inference.reading import InputCase
from duplus_nnunet.inference.selection import Selection

from .in_process import start

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

STORED = Path(__file__).parents[1] / "compatibility" / "files"
(IMAGE,) = (STORED / "images" / "ct").glob("*_0000.nii.gz")
PREDICT = ("-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "-step_size", "1", "--disable_tta")
ONE = ("--ray", "--ray-workers", "1", "--cpus-per-worker", "1")
TWO = ("--ray", "--ray-workers", "2", "--cpus-per-worker", "1")
CASES = "abcdef"
BY_RUN = ("seconds", "finished")
# The devices and threads of a run may differ, nothing else.
HARDWARE = ("device", "threads")

pytestmark = [
    pytest.mark.slow,
    # Ray's own: sockets and processes that it leaves to the end of the process, and its advice for coming versions.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*", "ignore::DeprecationWarning:ray.*"),
]

Predict = Callable[..., int]


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """One Ray for all tests of the file: a prediction uses the one that is there."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_worker_niceness", "0"), ("OMP_NUM_THREADS", "1")):
            patch.setenv(name, value)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
        yield
        ray.shutdown()
    # Ray leaves its handler, by which processes that later tests fork would not end.
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def predict(_cluster: None, tmp_path: Path) -> Predict:
    (tmp_path / "in").mkdir()
    for number, case in enumerate(CASES):
        shutil.copy(IMAGE, tmp_path / "in" / f"{case}_0000.nii.gz")
        if number == 0:
            (tmp_path / "in" / f"{case}_0000.nii.gz").write_bytes(b"no image")

    def run(out: str | Path, *options: str | Path) -> int:
        source = () if "--jobs" in options else ("-i", tmp_path / "in")
        model = ("-m", STORED / "models" / "segmentation")
        return start("predict", *source, *model, "-o", out, *PREDICT, "--statistics", *options)

    return run


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def strip(manifest: bytes) -> dict[str, Any]:
    """Take out of a manifest what differs between two runs of the same prediction."""
    content: dict[str, Any] = json.loads(manifest)
    for name in HARDWARE:
        del content["run"][name]
    for record in content["cases"].values():
        for name in BY_RUN:
            del record[name]
        for output in record["outputs"]:
            del output["modified"]
    return content


def require_equal(first: Path, second: Path) -> None:
    """Compare two folders of predictions file by file, the manifests up to times and hardware, in the same order."""
    one, other = read_files(first), read_files(second)
    assert one.keys() == other.keys()
    manifests = strip(one.pop("manifest.json")), strip(other.pop("manifest.json"))
    assert manifests[0] == manifests[1]
    assert list(manifests[0]["cases"]) == list(manifests[1]["cases"])
    for content in (one, other):
        del content["predict_from_raw_data_args.json"]  # it names the folder
    assert {name for name in one if one[name] != other[name]} == set()


def test_files_are_those_of_the_plain_prediction_and_continued(
    predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(tmp_path / "plain", "--split", "--probabilities") == 1
    assert predict(tmp_path / "ray", "--split", "--probabilities", *TWO) == 1
    require_equal(tmp_path / "plain", tmp_path / "ray")
    shutil.copy(IMAGE, tmp_path / "in" / "a_0000.nii.gz")
    (tmp_path / "ray" / "c.nii.gz").unlink()
    (tmp_path / "plain" / "c.nii.gz").unlink()
    capsys.readouterr()
    for out, options in (("plain", ()), ("ray", ONE)):
        assert predict(tmp_path / out, "--split", "--probabilities", "--continue_prediction", *options) == 0
        assert "4 of 6 cases are complete" in capsys.readouterr().out
    require_equal(tmp_path / "plain", tmp_path / "ray")
    assert predict(tmp_path / "ray", "--split", "--probabilities", "--continue_prediction", *ONE) == 0
    assert "A worker has started" not in capsys.readouterr().out


def test_jobs_of_all_groups_are_under_way_together(predict: Predict, tmp_path: Path) -> None:
    table = tmp_path / "jobs.csv"
    asked = {"b": "tumour", "c": "", "d": "left kidney"}
    lines = [f"{case},in/{case}_0000.nii.gz,{targets}" for case, targets in asked.items()]
    table.write_text("\n".join(["case,image,targets", *lines]))
    assert predict(tmp_path / "plain", "--jobs", table) == 0
    assert predict(f"file://{tmp_path}/ray", "--jobs", table, *ONE) == 0
    require_equal(tmp_path / "plain", tmp_path / "ray")


def test_cases_of_a_killed_worker_are_predicted_again(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, killed = cluster_run._Pool._finish, list[int]()

    def finish(self: Any, worker: Any, reference: Any, outcome: Outcome) -> None:
        original(self, worker, reference, outcome)
        if not killed:
            killed.append(worker.facts.pid)
            os.kill(worker.facts.pid, signal.SIGKILL)

    monkeypatch.setattr(cluster_run._Pool, "_finish", finish)
    assert predict(tmp_path / "ray", "--split", *TWO) == 1
    assert f"Process {killed[0]} on " in capsys.readouterr().err
    monkeypatch.undo()
    assert predict(tmp_path / "plain", "--split") == 1
    require_equal(tmp_path / "plain", tmp_path / "ray")


def test_a_case_that_ends_every_worker_is_recorded_as_failed(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ending(CaseWorker):
        def predict(self, group: int, selection: Selection, case: InputCase) -> Outcome:
            if case.name == "c":
                os._exit(1)
            return super().predict(group, selection, case)

    monkeypatch.setattr(cluster_run, "CaseWorker", Ending)
    monkeypatch.setattr(cluster_run, "MOST_LOSSES", 2)
    assert predict(tmp_path / "out", *ONE) == 1
    cases = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert {case for case in CASES if cases[case]["status"] == "complete"} == set(CASES) - {"a", "c"}
    assert cases["c"]["status"] == "failed"
    assert "2 workers" in cases["c"]["message"]
    assert not (tmp_path / "out" / "c.nii.gz").exists()


def test_workers_that_cannot_begin_end_the_run(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unable(CaseWorker):
        def load(self, order: object) -> Any:
            os._exit(1)

    monkeypatch.setattr(cluster_run, "CaseWorker", Unable)
    monkeypatch.setattr(cluster_run, "MOST_RESTARTS", 2)
    assert predict(tmp_path / "out", *ONE) == 1
    assert "--continue_prediction" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.nii.gz"))
    assert not list((tmp_path / "out").glob(".duplus*"))
