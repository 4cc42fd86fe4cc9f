"""The manifest of a folder of predictions."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet import __version__
from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs import manifest
from duplus_nnunet.outputs.manifest import (
    CaseRecord,
    FileRecord,
    Manifest,
    RunRecord,
    describe_file,
    describe_output,
    list_versions,
)

RUN = RunRecord(
    model="DuPLUSTrainer__DuPLUSPlans__3d_fullres",
    checkpoints={"fold_0/checkpoint_final.pth": "ab12"},
    folds=("0", "all"),
    contexts={"abdomen_ct": "A computed tomography"},
    targets={"abdomen_ct": {"liver": "A computed tomography of the liver"}},
    free_texts=("renal pelvis",),
    options={"tile_step_size": 0.5, "split": True, "folder": None, "threads": {"1": [1, 2]}},
    device="cpu",
    threads=2,
    precision="bfloat16",
)
DONE = CaseRecord(
    status="complete",
    context="abdomen_ct",
    inputs=(FileRecord("in/a_0000.nii.gz", 3, sha256="cd"),),
    outputs=(FileRecord("a.nii.gz", 5, sha256=hashlib.sha256(b"12345").hexdigest()),),
    seconds={"read": 0.5, "network": 12.25},
    warnings=("The spacing is larger than in training.",),
    finished="2025-01-02T03:04:05+00:00",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of predictions with the one file that `DONE` names."""
    (tmp_path / "a.nii.gz").write_bytes(b"12345")
    return tmp_path


def test_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    before = Manifest(RUN, {"a": DONE})
    before.record("b", CaseRecord("failed", message="The image is damaged."))
    assert before.write(tmp_path) == tmp_path / "manifest.json"
    after = Manifest.read(tmp_path)
    assert after is not None
    assert (after.run, after.cases) == (RUN, before.cases)


def test_folder_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path) is None


def test_paths_are_written_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a_0000.nii.gz").write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)
    record = CaseRecord("complete", inputs=(describe_file(Path("in/a_0000.nii.gz")),))
    text = Manifest(RUN, {"a": record}).write(Path()).read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert json.loads(text)["cases"]["a"]["inputs"][0]["path"] == str(Path("in/a_0000.nii.gz"))


def test_writing_that_fails_leaves_the_manifest_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Manifest(RUN).write(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()

    def fail(self: Path, *_: Any, **__: Any) -> int:
        self.write_bytes(b"{")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        Manifest(RUN, {"a": DONE}).write(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_complete_case_needs_no_second_prediction(folder: Path) -> None:
    assert Manifest(RUN, {"a": DONE}).is_complete("a", DONE, folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: replace(record, status="failed"),
        lambda record: replace(record, status="skipped"),
        lambda record: replace(record, inputs=(FileRecord("in/a_0000.nii.gz", 3, sha256="other"),)),
        lambda record: replace(record, context="another"),
        lambda record: replace(record, prompts={"spleen": "A computed tomography of spleen"}),
        lambda record: replace(record, outputs=(FileRecord("a.nii.gz", 4),)),
        lambda record: replace(record, outputs=(*record.outputs, FileRecord("a/liver.nii.gz", 4))),
    ],
    ids=["failed", "skipped", "other image", "other context", "other prompts", "cut off", "lost"],
)
def test_case_that_changed_is_predicted_again(change: Callable[[CaseRecord], CaseRecord], folder: Path) -> None:
    assert not Manifest(RUN, {"a": change(DONE)}).is_complete("a", DONE, folder)


def test_the_same_image_in_another_place_needs_no_second_prediction(folder: Path) -> None:
    elsewhere = tuple(replace(file, path=f"elsewhere/{file.path}") for file in DONE.inputs)
    assert Manifest(RUN, {"a": DONE}).is_complete("a", replace(DONE, inputs=elsewhere), folder)


def test_bytes_that_changed_are_found_although_size_and_time_did_not(folder: Path) -> None:
    file, before = folder / "a.nii.gz", (folder / "a.nii.gz").stat()
    file.write_bytes(b"12\0\0\0")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "a.nii.gz" in Manifest(RUN, {"a": DONE}).explain_incomplete("a", DONE, folder)


@pytest.mark.parametrize(
    ("touched", "verify", "complete"), [(False, False, True), (False, True, False), (True, False, False)]
)
def test_large_file_is_hashed_if_its_time_changed_or_to_verify_it(
    touched: bool, verify: bool, complete: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, record = folder / "a.nii.gz", replace(DONE, outputs=(describe_output(folder / "a.nii.gz", "a.nii.gz"),))
    before = file.stat()
    file.write_bytes(b"12\0\0\0")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + touched * 10**9))
    monkeypatch.setattr(manifest, "_HASHED_UP_TO", 2)
    assert Manifest(RUN, {"a": record}).is_complete("a", record, folder, verify) == complete


def test_large_file_that_was_copied_is_still_complete(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_HASHED_UP_TO", 2)
    record = replace(DONE, outputs=(describe_output(folder / "a.nii.gz", "a.nii.gz"),))
    os.utime(folder / "a.nii.gz", (1, 1))
    assert Manifest(RUN, {"a": record}).is_complete("a", record, folder)


@pytest.mark.parametrize(("modified", "complete"), [("now", True), ("2001-01-01T00:00:00+00:00", False)])
def test_large_file_without_a_hash_is_known_by_its_time(modified: str, complete: bool, folder: Path) -> None:
    """Versions up to 0.1.0 recorded no hash of them."""
    time = describe_output(folder / "a.nii.gz", "a").modified if modified == "now" else modified
    record = replace(DONE, outputs=(FileRecord("a.nii.gz", 5, modified=time),))
    assert Manifest(RUN, {"a": record}).is_complete("a", record, folder) == complete


def test_path_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a\udcff").write_bytes(b"abc")
    Manifest(RUN, {"a": CaseRecord("complete", inputs=(describe_file(tmp_path / "a\udcff"),))}).write(tmp_path)
    assert Manifest.read(tmp_path) is not None


def test_unknown_case_is_predicted(folder: Path) -> None:
    assert not Manifest(RUN).is_complete("a", DONE, folder)


def test_same_settings_read_from_a_file_are_no_change(tmp_path: Path) -> None:
    Manifest(RUN).write(tmp_path)
    before = Manifest.read(tmp_path)
    assert before is not None
    assert before.find_changes(replace(RUN, options=dict(RUN.options), folds=("0", "all"))) == ()


def test_settings_that_change_results_are_named_and_others_are_not() -> None:
    other = replace(
        RUN, checkpoints={"fold_0/checkpoint_final.pth": "00"}, threads=8, device="cuda:0", precision="float32"
    )
    assert Manifest(RUN).find_changes(other) == ("checkpoints", "precision")


def test_small_file_is_known_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    found = describe_file(tmp_path / "a", "a")
    assert found == FileRecord("a", 3, sha256=hashlib.sha256(b"abc").hexdigest())


def test_large_file_is_known_by_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_HASHED_UP_TO", 2)
    (tmp_path / "a").write_bytes(b"abc")
    found = describe_file(tmp_path / "a", "a")
    assert (found.sha256, found.size) == (None, 3)
    assert (found.modified or "").endswith("+00:00")
    assert found == describe_file(tmp_path / "a", "a")


def test_versions_are_those_that_run() -> None:
    assert list(list_versions()) == ["duplus-nnunet", "nnunetv2", "torch", "python"]
    assert list_versions()["duplus-nnunet"] == __version__


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("{", r"manifest\.json"),
        ('{"version": 7}', r"manifest\.json .*version 7\b.*\b1\b"),
        ('{"version": 1, "run": {}, "cases": {}}', r"(?s)manifest\.json .*model"),
        ('{"version": 1, "cases": {}}', r"(?s)manifest\.json .*run"),
    ],
)
def test_malformed_manifest_is_refused(text: str, pattern: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=pattern):
        Manifest.read(tmp_path)
