"""YAML files that people write: lines, bounds, and values that cannot be read."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duplus_nnunet import yaml_files
from duplus_nnunet.yaml_files import read_marked_yaml

LAUGH = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 12)
)
BOMBS = {
    "nested aliases": LAUGH,
    "anchor": "ok: 1\nkey: &name 2\n",
    "deep lists": "ok: 1\nkey: " + "[" * 3000 + "]" * 3000,
    "deep mappings": "ok: 1\nkey: " + "{a: " * 1500 + "1" + "}" * 1500,
    "impossible date": "ok: 1\nkey: 2024-13-45\n",
    "no whole number": "ok: 1\nkey: !!int abc\n",
    "empty whole number": "ok: 1\nkey: !!int ''\n",
    "no boolean": "ok: 1\nkey: !!bool abc\n",
    "no float": 'ok: 1\nkey: !!float "1:x"\n',
    "no timestamp": "ok: 1\nkey: !!timestamp x\n",
    "6,000 digits": "ok: 1\nkey: " + "9" * 6000,
    "100 digits": "ok: 1\nkey: " + "9" * 100,
    "alias in a merge key": "ok: 1\nkey: {<<: *x}\n",
    "merge key": "ok: 1\nkey: {<<: {a: 1}}\n",
    "half of a surrogate pair": 'ok: 1\nkey: "\\ud800"\n',
    "control character in a text": 'ok: 1\nkey: "\\0"\n',
    "control character": "ok: 1\nkey: \0",
    "object of Python": "ok: 1\nkey: !!python/object/apply:os.getcwd []\n",
    "unknown tag": "ok: 1\nkey: !thing 1\n",
    "unhashable key": "ok: 1\n? [1, 2]\n: 3\n",
    "long text": "ok: 1\nkey: " + "x" * 30_000,
}


PARTS = (
    *"a \n[]{},?|>'\"#~=&*!", ": ", "- ", "*a", "&a ", "<<", "!!int ", "!!bool ", "!!float ", "!!timestamp ",
    "!!binary ", "!!set ", "!!omap ", "!!map ", "2024-13-45", "0x1", "1:2", ".inf", "9" * 99, "\u2028", "\u202e", "\0",
    "---\n", "...\n", "\\ud800", "%YAML 1\n",
)  # fmt: skip


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "file.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", BOMBS)
def test_what_cannot_be_read_is_a_problem_with_its_line(name: str, tmp_path: Path) -> None:
    marks = read_marked_yaml(write(tmp_path, BOMBS[name]))
    assert [problem.line for problem in marks.problems] == [1 if name == "nested aliases" else 2]
    assert marks.data is None


def test_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "_MOST_NODES", 50)
    assert not read_marked_yaml(write(tmp_path, "- x\n" * 49)).problems
    assert [problem.line for problem in read_marked_yaml(write(tmp_path, "- x\n" * 50)).problems] == [50]


def test_large_files_are_refused(tmp_path: Path) -> None:
    assert read_marked_yaml(write(tmp_path, "#" * (2 << 20))).problems


@given(parts=st.lists(st.sampled_from(PARTS), max_size=30) | st.text().map(list))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_read_or_has_problems_with_their_lines(parts: list[str], tmp_path: Path) -> None:
    text = "".join(parts)
    file = tmp_path / "file.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    lines = len(text.splitlines()) + 1
    assert all(1 <= problem.line <= lines for problem in read_marked_yaml(file).problems)


def test_pipe_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "file.yaml"
    os.mkfifo(pipe)
    assert [problem.line for problem in read_marked_yaml(pipe).problems] == [1]


def test_lines_of_keys_are_known(tmp_path: Path) -> None:
    marks = read_marked_yaml(write(tmp_path, "a: 1\nb:\n  - c: 2\n    d: 3\n"))
    assert (marks.data, marks.problems) == ({"a": 1, "b": [{"c": 2, "d": 3}]}, ())
    assert [marks.line_of(keys) for keys in (("a",), ("b", 0, "d"), ("b", 0, "e"), ("x",))] == [1, 4, 3, 1]


def test_whole_numbers_are_decimal(tmp_path: Path) -> None:
    text = "[0, 7, -3, +4, 1_000, 060, 0x1F, 12:30, 1.5, true]"
    assert read_marked_yaml(write(tmp_path, text)).data == [0, 7, -3, 4, 1000, "060", "0x1F", "12:30", 1.5, True]
