"""The folder of the demonstration: the user's files are not overwritten or removed."""

from pathlib import Path

import pytest

from duplus_nnunet.demo.workspace import Workspace
from duplus_nnunet.errors import DataError


def test_new_folder_is_made(tmp_path: Path) -> None:
    work = Workspace(tmp_path / "deep" / "demo")
    work.prepare()
    assert work.root.is_dir()


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    Workspace(tmp_path).prepare()
    assert list(tmp_path.iterdir())


def test_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(DataError, match="--folder"):
        Workspace(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(DataError, match=r"is a file.*--folder"):
        Workspace(tmp_path / "demo").prepare()


def test_earlier_demonstration_is_replaced_and_later_additions_are_kept(tmp_path: Path) -> None:
    work = Workspace(tmp_path / "demo")
    work.prepare()
    for folder in (work.dataset, work.images, work.one_body, work.control_model("context prompts exchanged")):
        folder.mkdir(parents=True)
    for file in (work.picture, work.contexts):
        file.touch()
    (work.root / "notes.txt").touch()
    work.prepare()
    assert {path.name for path in work.root.iterdir()} == {".duplus_demo", "notes.txt"}


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"demo .*--folder"):
        Workspace(tmp_path / "file" / "demo").prepare()


def test_cleaning_keeps_report_picture_scores_and_log(tmp_path: Path) -> None:
    work = Workspace(tmp_path / "demo")
    work.prepare()
    work.model.mkdir(parents=True)
    for path in (work.contexts, work.picture, work.scores, work.log, work.report):
        path.touch()
    work.clean()
    kept = {"demo.png", "dice.json", "demo.log", "report.html"}
    assert {path.name for path in work.root.iterdir()} == {".duplus_demo", *kept}


def test_commands_see_the_demonstrations_folders_and_no_selection_of_the_user(tmp_path: Path) -> None:
    found = Workspace(tmp_path).environment({"nnUNet_raw": "/elsewhere", "DUPLUS_TARGETS": "liver", "HOME": "/root"})
    assert found["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert "DUPLUS_TARGETS" not in found
    assert found["HOME"] == "/root"


def test_at_least_one_worker_loads_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duplus_nnunet.demo.workspace.count_cores", lambda: 1)
    assert Workspace(tmp_path).environment({})["nnUNet_n_proc_DA"] == "1"
