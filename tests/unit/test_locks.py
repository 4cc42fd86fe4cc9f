"""One process at a time in a folder."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.locks import hold

HOLDER = """
import sys
from pathlib import Path
from duplus_nnunet.locks import hold
with hold(Path(sys.argv[1]), "predicting into", "Wait."):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    with hold(folder, "predicting into", "Wait."):
        assert len(list(folder.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_lock_keeps_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    with hold(folder, "predicting into", "Wait."):
        (folder / "a.txt").write_text("a", encoding="utf-8")
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with start_holder(tmp_path) as process:
        with pytest.raises(DataError, match=f"process {process.pid} on .*Wait"), hold(tmp_path, "using", "Wait."):
            pass
        process.communicate("")
    with hold(tmp_path, "using", "Wait."):
        pass


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with start_holder(tmp_path) as process:
        process.kill()
    with hold(tmp_path, "using", "Wait."):
        note = next(path for path in tmp_path.iterdir() if path.suffix == ".json")
        assert json.loads(note.read_text(encoding="utf-8"))["pid"] != process.pid
    assert list(tmp_path.iterdir()) == []


def test_names_are_independent(tmp_path: Path) -> None:
    parts = [hold(tmp_path, "using", "Wait.", name) for name in ("part_0", "part_1", "part_1")]
    with parts[0], parts[1], pytest.raises(DataError), parts[2]:
        pass


def test_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("duplus_nnunet.locks.FileLock", refuse)
    with hold(tmp_path, "using", "Wait."):
        assert str(tmp_path) in capsys.readouterr().err


def test_never_two_holders(tmp_path: Path) -> None:
    inside, most, entered = [0], [0], [0]

    def enter_often() -> None:
        for _ in range(200):
            try:
                with hold(tmp_path, "using", "Wait."):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    entered[0] += 1
                    inside[0] -= 1
            except DataError:
                pass

    threads = [threading.Thread(target=enter_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert entered[0] > 0
