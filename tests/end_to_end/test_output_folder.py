"""The folder of a prediction: continued, shared, full, and with names that cannot be files."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet import files
from duplus_nnunet.cli import main
from duplus_nnunet.inference.output_lock import hold_output

STORED = Path(__file__).parents[1] / "compatibility" / "files"
(IMAGE,) = (STORED / "images" / "ct").glob("*_0000.nii.gz")
PREDICT = ("-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "-step_size", "1", "--targets", "tumour")

Predict = Callable[..., Path]


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Predict]:
    """Predict images of some names, by a small trained model."""
    for name in [name for name in os.environ if name.startswith("DUPLUS_")]:
        monkeypatch.delenv(name)

    def run(cases: str | tuple[str, ...], *options: str) -> Path:
        (tmp_path / "in").mkdir(exist_ok=True)
        for case in cases:
            shutil.copy(IMAGE, tmp_path / "in" / f"{case}_0000.nii.gz")
        words = ["predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "-m", STORED / "models" / "segmentation"]
        assert main([*map(str, words), *PREDICT, *options]) in (0, None)
        return tmp_path / "out"

    return run


def read_cases(folder: Path) -> dict[str, Any]:
    cases: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cases"]
    return cases


def test_only_a_damaged_case_is_predicted_again(predict: Predict, capsys: pytest.CaptureFixture[str]) -> None:
    out = predict("ab", "--split")
    before = {name: (out / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz")}
    time = (out / "a.nii.gz").stat().st_mtime_ns
    (out / "a.nii.gz").write_bytes(before["a.nii.gz"][:-200] + bytes(200))
    os.utime(out / "a.nii.gz", ns=(time, time))
    finished = read_cases(out)["b"]
    predict("ab", "--split", "--continue_prediction")
    assert {name: (out / name).read_bytes() for name in before} == before
    assert read_cases(out)["b"] == finished
    assert "1 of 2 cases" in capsys.readouterr().out


def test_case_without_its_row_of_statistics_is_predicted_again(predict: Predict) -> None:
    out = predict("a", "--statistics")
    (out / "statistics.json").unlink()
    predict("a", "--statistics", "--continue_prediction")
    assert (out / "statistics.json").is_file()


def test_folder_in_use_is_left_alone(predict: Predict) -> None:
    out = predict("a")
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    with hold_output(out, (0, 1)), pytest.raises(SystemExit, match=rf"process {os.getpid()}\b"):
        predict("ab")
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before


def test_full_disk_ends_the_run_and_what_is_complete_stays(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(workplace: Path) -> None:
        if workplace.parent == tmp_path / "out" / "b":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_require_space", fill)
    with pytest.raises(SystemExit, match=r"No space left on device.* 1 case\(s\) .* 2 ") as ending:
        predict("abc", "--split")
    assert "\n" not in str(ending.value)
    out = tmp_path / "out"
    assert {case: record["status"] for case, record in read_cases(out).items()} == {"a": "complete", "b": "failed"}
    assert not (out / "b.nii.gz").exists()
    monkeypatch.undo()
    predict("abc", "--split", "--continue_prediction")
    assert {record["status"] for record in read_cases(out).values()} == {"complete"}


def test_full_disk_for_the_manifest_too_is_one_sentence(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(workplace: Path) -> None:
        if workplace.name.startswith(("manifest.json", "a.nii.gz")):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(files, "_require_space", fill)
    with pytest.raises(SystemExit, match="quota") as ending:
        predict("ab")
    assert "\n" not in str(ending.value)


def test_names_that_cannot_be_files_do_not_end_the_run(predict: Predict) -> None:
    names = ("a", "manifest.json", "CON", "-rf", "two\nlines", "x" * 200)
    out = predict(names, "--split", "--preview")
    cases = read_cases(out)
    assert {case: record["status"] for case, record in cases.items()} == dict.fromkeys(names, "complete")
    assert cases["a"]["file_name"] is None
    for case, record in cases.items():
        assert (out / f"{record['file_name'] or case}.nii.gz").is_file()
        assert all((out / file["path"]).is_file() for file in record["outputs"])
        assert record["target_files"] == {"tumour": "tumour"}
