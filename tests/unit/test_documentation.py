"""Names that the pages for developers mention exist, and so do paths that any page mentions."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import duplus_nnunet

from ..documentation_blocks import list_pages

REPOSITORY = Path(__file__).parents[2]
PAGES = {name: (REPOSITORY / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "docs/architecture.md")}
TEXT = "\n".join(PAGES.values())
FOLDERS = "duplus_nnunet|planners|trainers|prompt_registry|tests|docs|benchmarks"
NAMES = sorted(set(re.findall(r"\bduplus_nnunet(?:\.\w+)+", TEXT)))
ALL_TEXT = "\n".join((REPOSITORY / page).read_text(encoding="utf-8") for page in ("CONTRIBUTING.md", *list_pages()))
PATHS = sorted(set(re.findall(rf"(?<![\w/])(?:(?:{FOLDERS})|\.ci|\.github)/[\w./-]*\w", ALL_TEXT)))
# The file that a recipe tells the reader to write.
WRITTEN_BY_THE_READER = {"prompt_registry/files/word.yaml"}
ROOMS = [
    room
    for cell in re.findall(r"^\| \d \| ([^|]+) \|", PAGES["docs/architecture.md"], flags=re.MULTILINE)
    for room in re.findall(r"`([\w.]+)`", cell)
]


@pytest.mark.parametrize("name", NAMES)
def test_name_on_a_page_exists(name):
    assert pkgutil.resolve_name(name) is not None


def test_a_name_that_does_not_exist_is_noticed():
    with pytest.raises(AttributeError, match="no_such_function"):
        pkgutil.resolve_name("duplus_nnunet.planners.entry.no_such_function")


@pytest.mark.parametrize("path", PATHS)
def test_path_on_a_page_exists(path):
    assert path in WRITTEN_BY_THE_READER or (REPOSITORY / path).exists()


@pytest.mark.parametrize("room", ROOMS)
def test_room_in_the_table_exists(room):
    assert pkgutil.resolve_name(f"duplus_nnunet.{room}") is not None


def test_each_room_is_in_the_table():
    top = {module.name for module in pkgutil.iter_modules(duplus_nnunet.__path__)} - {"_autoload", "survival"}
    survival = importlib.import_module("duplus_nnunet.survival")
    below = {f"survival.{module.name}" for module in pkgutil.iter_modules(survival.__path__)}
    assert top | below <= set(ROOMS)
