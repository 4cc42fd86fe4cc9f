"""Texts that say nothing, and review marks that were left."""

from pathlib import Path

import pytest

from duplus_nnunet.prompt_registry.checking import check_files
from duplus_nnunet.prompt_registry.finding import shipped_files
from duplus_nnunet.prompt_registry.reviewing import is_empty_name

FILE = """\
# Lines marked "# review" could not be derived.
dataset: Demo
contexts:
  demo: {modality: medical image, region: body}
missing: absent  # review: absent or not annotated?
targets:
  liver:
  structure1:
"""


@pytest.mark.parametrize(
    "name", ["structure1", "label 3", "class_2", "the target", "x", "7", "ROI", "TODO", "organ-12"]
)
def test_names_that_say_nothing(name: str) -> None:
    assert is_empty_name(name)


@pytest.mark.parametrize(
    "name", ["liver", "lumbar vertebra 3", "left kidney", "organ of Corti", "lesion", "iliac artery"]
)
def test_names_that_say_something(name: str) -> None:
    assert not is_empty_name(name)


def test_shipped_names_say_something() -> None:
    assert [name for file in shipped_files() for name in file.targets if is_empty_name(name)] == []


def test_warnings_have_lines_and_are_no_problems(tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text(FILE, encoding="utf-8")
    checked = check_files([file])
    assert checked.problems == ()
    assert [warning.removeprefix(f"{file}:").partition(":")[0] for warning in checked.warnings] == ["4", "4", "8", "5"]


@pytest.mark.parametrize(("regions", "lines"), [("[foot]", ["7"]), ("[thorax]", []), ("[anywhere]", [])])
def test_a_target_that_no_context_shows_is_a_warning(tmp_path: Path, regions: str, lines: list[str]) -> None:
    file = tmp_path / "demo.yaml"
    text = FILE.replace("medical image, region: body", "microscopy, region: belly").replace("# review", "#")
    file.write_text(text.replace("liver:", f"liver: {{regions: {regions}}}").replace("  structure1:\n", ""), "utf-8")
    warnings = check_files([file]).warnings
    assert [warning.removeprefix(f"{file}:").partition(":")[0] for warning in warnings] == lines
