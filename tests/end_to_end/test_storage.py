"""Images and predictions at URLs: the same files as on a disk, continued, and no credentials in what is written."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from duplus_nnunet.remote_files import RemoteFolder

from .in_process import start

STORED = Path(__file__).parents[1] / "compatibility" / "files"
(IMAGE,) = (STORED / "images" / "ct").glob("*_0000.nii.gz")
PREDICT = ("-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "-step_size", "1", "--disable_tta")
BY_RUN = ("seconds", "finished")

Predict = Callable[..., int]


@pytest.fixture
def predict() -> Predict:
    def run(*words: str | Path) -> int:
        model = ("-m", STORED / "models" / "segmentation")
        return start("predict", *model, *PREDICT, "--statistics", *words)

    return run


@pytest.fixture
def memory() -> Iterator[Any]:
    """Storage in memory that holds two images in the folder `in`."""
    system = fsspec.filesystem("memory")
    for case in "ab":
        system.pipe_file(f"/in/{case}_0000.nii.gz", IMAGE.read_bytes())
    yield system
    system.store.clear()


def read_files(url: str) -> dict[str, bytes]:
    folder = RemoteFolder(url)
    return {name: folder.read(name) for name in folder.list_sizes()}


def strip(manifest: bytes) -> dict[str, Any]:
    """Take out of a manifest's cases what differs between two runs, and between paths and URLs."""
    cases = json.loads(manifest)["cases"]
    for record in cases.values():
        for name in (*BY_RUN, "inputs"):
            del record[name]
        for output in record["outputs"]:
            del output["modified"]
    return cases


def test_storage_gets_the_files_that_a_folder_gets(predict: Predict, memory: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for case in "ab":
        shutil.copy(IMAGE, tmp_path / "in" / f"{case}_0000.nii.gz")
    assert predict("-i", tmp_path / "in", "-o", tmp_path / "out", "--split", "--preview") == 0
    assert predict("-i", "memory://in", "-o", "memory://out", "--split", "--preview") == 0
    found, expected = read_files("memory://out"), read_files(f"file://{tmp_path}/out")
    assert found.keys() == expected.keys()
    assert strip(found.pop("manifest.json")) == strip(expected.pop("manifest.json"))
    arguments = json.loads(found.pop("predict_from_raw_data_args.json"))
    assert arguments["list_of_lists_or_source_folder"] == "memory://in"
    assert arguments["output_folder_or_list_of_truncated_output_files"] == "memory://out"
    assert {name for name in found if found[name] != expected[name]} == set()


def test_only_what_is_missing_or_changed_is_predicted_again(
    predict: Predict, memory: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-i", "memory://in", "-o", "memory://out", "--continue_prediction")
    predict(*words)
    before = read_files("memory://out")
    memory.rm_file("/out/a.nii.gz")
    capsys.readouterr()
    predict(*words)
    assert "1 of 2 cases are complete" in capsys.readouterr().out
    assert read_files("memory://out")["a.nii.gz"] == before["a.nii.gz"]
    memory.pipe_file("/in/b_0000.nii.gz", IMAGE.read_bytes())
    memory.pipe_file("/out/a.nii.gz", before["a.nii.gz"][:-1] + b"?")
    capsys.readouterr()
    predict(*words, "--verify")
    out = capsys.readouterr().out
    assert "b is predicted again: its image was changed" in out
    assert "a is predicted again: a.nii.gz has another SHA-256" in out
    predict(*words)
    assert "2 of 2 cases are complete" in capsys.readouterr().out


def test_an_image_is_read_once(predict: Predict, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = type(memory).get_file

    def get_file(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        read.append(path)
        return original(self, path, *args, **kwargs)

    monkeypatch.setattr(type(memory), "get_file", get_file)
    predict("-i", "memory://in", "-o", "memory://out", "--preview")
    assert sorted(read) == ["/in/a_0000.nii.gz", "/in/b_0000.nii.gz"]


def test_fetched_images_are_removed(
    predict: Predict, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory.pipe_file("/in/b_0000.nii.gz", b"no image")
    assert predict("-i", "memory://in", "-o", "memory://out") == 1
    # PyTorch's cache of compiled code is there if it was nowhere before.
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith("torchinductor")] == []
    cases = json.loads(memory.cat_file("/out/manifest.json"))["cases"]
    assert {case: record["status"] for case, record in cases.items()} == {"a": "complete", "b": "failed"}


def test_the_manifest_is_moved_up_last(predict: Predict, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    original = RemoteFolder.put

    def put(self: RemoteFolder, file: Path, name: str) -> None:
        names.append(name)
        original(self, file, name)

    monkeypatch.setattr(RemoteFolder, "put", put)
    predict("-i", "memory://in", "-o", "memory://out", "--split")
    assert names[-1] == "manifest.json"
    own = [name for name in names if name.startswith("a")]
    assert own[-1] == "a.nii.gz"
    assert len(own) > 1


def test_a_table_of_jobs_may_name_urls(predict: Predict, memory: Any, tmp_path: Path) -> None:
    shutil.copy(IMAGE, tmp_path / "c_0000.nii.gz")
    table = tmp_path / "jobs.csv"
    table.write_text("image,targets\nmemory://in/a_0000.nii.gz,tumour\nc_0000.nii.gz,tumour\n")
    assert predict("--jobs", table, "-o", "memory://out") == 0
    files = read_files("memory://out")
    assert files["a.nii.gz"] == files["c.nii.gz"]
    inputs = {case: record["inputs"] for case, record in json.loads(files["manifest.json"])["cases"].items()}
    assert inputs["a"][0]["path"] == "memory://in/a_0000.nii.gz"
    assert inputs["a"][0]["size"] == IMAGE.stat().st_size


def test_credentials_are_neither_written_nor_printed(
    predict: Predict, memory: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fsspec.core.url_to_fs
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: original(url.replace("me:secret@", "")))
    memory.pipe_file("/in/b_0000.nii.gz", b"no image")
    for out in (str(tmp_path / "out"), "memory://me:secret@out"):
        assert predict("-i", "memory://me:secret@in", "-o", out) == 1
    printed = "".join(capsys.readouterr())
    written = [file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()]
    written += read_files("memory://out").values()
    assert "b" in printed
    assert "secret" not in printed
    assert len(written) > 10
    assert not [content for content in written if b"secret" in content]


def test_dicom_at_a_url_is_refused_in_words(predict: Predict, memory: Any, capsys: pytest.CaptureFixture[str]) -> None:
    memory.pipe_file("/series/1.dcm", b"DICM")
    assert predict("-i", "memory://series", "-o", "memory://out") == 1
    assert "DICOM" in capsys.readouterr().err


def test_images_and_predictions_need_two_folders(predict: Predict, memory: Any) -> None:
    assert predict("-i", "memory://in/", "-o", "memory://in") == 1
    assert len(memory.ls("/in")) == 2
