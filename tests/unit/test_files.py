"""Atomic writing of files."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import is_full_disk, list_written, open_new_file, require_writable, write_text


def fail_half_way(file: Path) -> None:
    with open_new_file(file) as new:
        new.write_text("half", encoding="utf-8")
        raise OSError("disk full")


def test_files_that_are_being_written_are_not_listed(tmp_path: Path) -> None:
    write_text(tmp_path / "below" / "done.txt", "whole")
    with open_new_file(tmp_path / "legend.label") as new:
        new.write_text("half", encoding="utf-8")
        assert list_written(tmp_path) == [tmp_path / "below" / "done.txt"]
    assert {*list_written(tmp_path)} == {tmp_path / "below" / "done.txt", tmp_path / "legend.label"}


def test_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "a.nii.gz"
    with open_new_file(file) as new:
        new.write_text("whole", encoding="utf-8")
        assert new.name == "a.nii.gz"
        assert not file.exists()
    assert file.read_text(encoding="utf-8") == "whole"
    assert list(file.parent.iterdir()) == [file]


def test_unwritable_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt"):
        write_text(tmp_path / "file" / "a.txt", "new")


def test_unwritable_folder_is_refused_and_nothing_is_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    require_writable(tmp_path / "new" / "deep")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(DataError, match=r"deep cannot be written to: .*/file: .*Choose another folder"):
        require_writable(tmp_path / "file" / "deep")


def test_a_folder_without_leave_to_write_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        require_writable(tmp_path)


def test_writing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        fail_half_way(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_writing_that_fails_keeps_the_existing_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before", encoding="utf-8")
    with pytest.raises(OSError, match="disk full"):
        fail_half_way(file)
    assert file.read_text(encoding="utf-8") == "before"


def test_files_written_beside_it_move_too(tmp_path: Path) -> None:
    with open_new_file(tmp_path / "a.tif") as new:
        new.write_text("image", encoding="utf-8")
        new.with_suffix(".json").write_text("spacing", encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.tif"]


def test_remains_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    killed = (
        "import os, sys; from pathlib import Path; from duplus_nnunet.files import open_new_file\n"
        "with open_new_file(Path(sys.argv[1])) as new: new.write_text('old'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "a.txt")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    write_text(tmp_path / "a.txt", "new\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"new\n"


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with open_new_file(file) as first:
        with open_new_file(file) as second:
            second.write_text("second", encoding="utf-8")
        first.write_text("first", encoding="utf-8")
    assert file.read_text(encoding="utf-8") == "first"
    assert list(tmp_path.iterdir()) == [file]


def test_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt.*No space left"), open_new_file(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)


def test_file_that_a_library_cut_off_on_a_full_disk_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ITK's writer of NIfTI writes what fits, and reports no error."""
    fill_disk(monkeypatch)
    with pytest.raises(DataError, match=r"a\.nii.*No space left"), open_new_file(tmp_path / "a.nii") as new:
        new.write_text("half", encoding="utf-8")
    assert list(tmp_path.iterdir()) == []


def test_error_of_a_library_on_a_full_disk_names_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="codec"), open_new_file(tmp_path / "a.b2nd"):
        raise RuntimeError("codec")
    fill_disk(monkeypatch)
    with pytest.raises(DataError, match="No space left") as caught, open_new_file(tmp_path / "a.b2nd"):
        raise RuntimeError("codec")
    assert is_full_disk(caught.value)


def test_full_disk_is_told_of_the_final_file(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path / 'a.nii'))} "),
        open_new_file(tmp_path / "a.nii") as new,
        open_new_file(new),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_are_not_those_of_a_full_disk() -> None:
    assert not is_full_disk(OSError(errno.EACCES, "Permission denied"))
    assert not is_full_disk(None)
