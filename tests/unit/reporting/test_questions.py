"""Two predictions that were asked for different targets are not compared without a word."""

import json
from pathlib import Path

import pytest

from duplus_nnunet.reporting.comparison import compare_questions


def write(folder: Path, targets: tuple[str, ...], **options: str) -> Path:
    folder.mkdir()
    labels = {"background": 0, **{name: value for value, name in enumerate(targets, 1)}}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    (folder / "manifest.json").write_text(json.dumps({"run": {"options": options}}))
    return folder


@pytest.mark.parametrize(
    ("targets", "rivals", "notes"), [(("liver",), "asked", 2), (("liver",), "all", 1), (("liver", "spleen"), "all", 0)]
)
def test_different_questions_are_noted(tmp_path: Path, targets: tuple[str, ...], rivals: str, notes: int) -> None:
    full = write(tmp_path / "full", ("liver", "spleen"), rivals="all")
    found = compare_questions(write(tmp_path / "other", targets, rivals=rivals), full)
    assert len(found) == notes
    assert not found or "spleen" in found[0]


@pytest.mark.parametrize(("targets", "notes"), [(("liver",), 2), (("liver", "spleen"), 0)])
def test_an_older_folder_of_some_targets_counts_as_settled_among_these(
    tmp_path: Path, targets: tuple[str, ...], notes: int
) -> None:
    old, new = write(tmp_path / "old", targets), write(tmp_path / "new", ("liver", "spleen"), rivals="all")
    found = compare_questions(new, old)
    assert len(found) == notes
    assert all(str(old) in note for note in found)


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path) -> None:
    assert compare_questions(tmp_path, tmp_path / "missing") == []
