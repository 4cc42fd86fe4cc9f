"""nnU-Net's commands are run and logged, and their failure is reported with the end of the log."""

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from duplus_nnunet.commands.demo import Console
from duplus_nnunet.demo.host_commands import HostCommands, find_command, read_progress
from duplus_nnunet.demo.one_process import run_script
from duplus_nnunet.errors import HostError


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[HostCommands, list[str]]:
    """Runs Python itself, whatever command is named."""
    monkeypatch.setattr("duplus_nnunet.demo.host_commands.find_command", lambda _: sys.executable)
    shown: list[str] = []
    return HostCommands({"WORD": "from outside"}, tmp_path / "demo.log", shown.append), shown


def test_output_goes_to_the_log_under_the_command(runner: tuple[HostCommands, list[str]]) -> None:
    runner[0].run("python", "-c", "import os; print(os.environ['WORD'])")
    lines = runner[0].log.read_text().splitlines()
    assert lines[0].startswith("$ python -c")
    assert lines[1] == "from outside"


def test_later_commands_are_added_to_the_log(runner: tuple[HostCommands, list[str]]) -> None:
    runner[0].run("python", "-c", "print(1)")
    runner[0].run("python", "-c", "print(2)")
    assert runner[0].log.read_text().count("$ python") == 2


def test_progress_is_shown(runner: tuple[HostCommands, list[str]]) -> None:
    runner[0].run("python", "-c", "print('2026-01-01 00:00:00.0: Epoch 4 ')")
    assert runner[1] == ["epoch 5"]


def test_failure_tells_command_code_log_and_last_lines(runner: tuple[HostCommands, list[str]]) -> None:
    with pytest.raises(HostError) as caught:
        runner[0].run("python", "-c", "import sys; print('out of memory'); sys.exit(3)")
    message = str(caught.value)
    assert "exit code 3" in message
    assert str(runner[0].log) in message
    assert message.rstrip().endswith("out of memory")


def test_side_by_side_the_lines_of_each_command_stand_together_in_the_log(
    runner: tuple[HostCommands, list[str]],
) -> None:
    words = "import time; print({0}); time.sleep(0.2); print({0})"
    calls = [["python", "-c", words.format(number)] for number in range(4)]
    replace(runner[0], at_once=2).run_in_parallel(calls)
    printed = [line for line in runner[0].log.read_text().splitlines() if line.isdigit()]
    assert sorted(printed) == sorted("0123" * 2)
    assert printed[::2] == printed[1::2]


def test_after_a_failure_no_further_command_is_begun(runner: tuple[HostCommands, list[str]], tmp_path: Path) -> None:
    fail = ["python", "-c", "import sys; print('out of memory'); sys.exit(3)"]
    wait = ["python", "-c", "import time; time.sleep(1)"]
    late = ["python", "-c", f"open({str(tmp_path / 'late')!r}, 'w')"]
    with pytest.raises(HostError, match="exit code 3"):
        replace(runner[0], at_once=2).run_in_parallel([wait, fail, *[wait] * 4, late])
    assert "out of memory" in runner[0].log.read_text()
    assert not (tmp_path / "late").exists()


def test_commands_are_shared_out_among_few_processes(
    runner: tuple[HostCommands, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[list[list[str]]] = []
    monkeypatch.setattr(
        HostCommands, "run_in_parallel", lambda _, calls: shared.extend(json.loads(call[-1]) for call in calls)
    )
    replace(runner[0], at_once=2).run_in_few_processes([["a", "1"], ["b"], ["c"]])
    assert shared == [[["a", "1"], ["c"]], [["b"]]]


def test_scripts_of_one_process_run_in_turn_until_one_fails(runner: tuple[HostCommands, list[str]]) -> None:
    calls = [["duplus", "--version"], ["duplus", "no-such-command"], ["duplus", "--help"]]
    commands = replace(runner[0], environment=dict(os.environ))
    with pytest.raises(HostError, match="exit code 2"):
        commands.run_in_few_processes(calls)
    log = commands.log.read_text()
    assert "$ duplus --version\n" in log
    assert "$ duplus --help\n" not in log


def test_an_unknown_script_is_named() -> None:
    with pytest.raises(HostError, match="no_such_script"):
        run_script(["no_such_script"])


def test_an_interrupt_ends_the_commands_side_by_side(
    runner: tuple[HostCommands, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*words: object, **options: object) -> object:
        monkeypatch.undo()
        raise KeyboardInterrupt

    commands = replace(runner[0], at_once=2)
    monkeypatch.setattr("duplus_nnunet.demo.host_commands.wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        commands.run_in_parallel([["python", "-c", "import time; time.sleep(600)"]] * 3)
    assert commands.log.read_text().count("$ python") <= 2


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("2026-11-24 05:50:21.366021: Epoch 0 ", "epoch 1"),
        ("2026-11-24 05:50:21.366021: Epoch time: 12.3 s", ""),
        (" 43%|####3     | 3/7 [00:01<00:02]", "43 %"),
        ("Predicting test_000:", "predicting test_000"),
        ("2026-11-24 05:50:21.366021: predicting train_003", "predicting train_003"),
        ("Using <class 'SimpleITKIO'> as reader/writer", ""),
    ],
)
def test_progress_is_read_from_what_nnunet_prints(line: str, text: str) -> None:
    assert read_progress(line) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("2026-11-24 05:50:21.366021: Epoch 0 ", "epoch 1 of 10"),
        ("2026-11-24 05:50:21.366021: Epoch 4 ", "epoch 5 of 10, about 60 s left"),
        ("case 3 of 10: liver, spleen, 1.2 s, about 8 s left\n", "case 3 of 10, about 8 s left"),
        ("case 10 of 10: liver, 1.2 s", ""),
    ],
)
def test_progress_has_the_time_left_where_it_is_known(line: str, text: str) -> None:
    assert read_progress(line, epochs=10, seconds=40.0) == text


def test_nnunets_command_is_found_beside_this_python() -> None:
    assert Path(find_command("nnUNetv2_train")).parent == Path(sys.executable).parent


def test_missing_command_is_named_with_the_remedy() -> None:
    with pytest.raises(HostError, match=r"'nnUNetv2_nothing' .*duplus doctor"):
        find_command("nnUNetv2_nothing")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_steps_are_counted_with_the_time() -> None:
    stream = io.StringIO()
    console = Console(stream, steps=2)
    console.start_step("planning")
    console.start_step("training")
    assert stream.getvalue() == "[ 0:00] step 1 of 2: planning\n[ 0:00] step 2 of 2: training\n"


def test_moving_line_is_erased_before_the_next_one() -> None:
    stream = Terminal()
    console = Console(stream, steps=1)
    console.update("epoch 1")
    console.print("done")
    assert stream.getvalue() == "[ 0:00]   epoch 1\r\x1b[Kdone\n"


def test_there_is_no_moving_line_in_a_file() -> None:
    stream = io.StringIO()
    Console(stream, steps=1).update("epoch 1")
    assert stream.getvalue() == ""
