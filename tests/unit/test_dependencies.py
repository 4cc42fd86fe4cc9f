"""Dependencies between the parts of the library point one way."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import duplus_nnunet

PACKAGE = "duplus_nnunet"
# A part may import parts of its own row or of a row below it, without a circle.
ROWS = (
    ("cli", "commands", "doctor", "demo", "plugin", "api"),
    ("trainers", "planners", "inference", "adaptation", "survival", "outputs", "reporting", "data"),
    ("networks", "prompt_registry", "prompt_bank", "plans_form"),
    ("settings", "errors"),
)
LEVEL = {part: level for level, row in enumerate(reversed(ROWS)) for part in row}
# Parts that know nothing of nnU-Net, wherever in them it would be imported.
WITHOUT_HOST = ("networks", "survival", "errors", "settings", "prompt_registry", "plans_form", "cli")
# Parts whose modules no other package may be imported for.
STANDARD_LIBRARY_ONLY = ("_autoload", "errors", "settings", "cli")


def find_modules():
    """Map each installed module of the library to its file."""
    roots = {PACKAGE: Path(duplus_nnunet.__file__).parent}
    for part in ("planners", "trainers", "prompt_registry"):
        roots[f"{PACKAGE}.{part}"] = Path(getattr(__import__(f"{PACKAGE}.{part}"), part).__file__).parent
    modules = {}
    for name, root in roots.items():
        for path in root.rglob("*.py"):
            steps = path.relative_to(root).with_suffix("").parts
            modules[".".join((name, *steps)).removesuffix(".__init__")] = path
    return modules


def list_imports(path):
    """List the dotted names that a file imports, at its top or late."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module}"


def part_of(name):
    return name.split(".")[1] if name.startswith(f"{PACKAGE}.") else ""


MODULES = find_modules()
IMPORTS = {name: set(list_imports(path)) for name, path in MODULES.items()}
EDGES = sorted(
    {(part_of(name), part_of(other)) for name, others in IMPORTS.items() for other in others if part_of(name)}
    - {(part, part) for part in LEVEL}
)
OURS = [(part, other) for part, other in EDGES if other in LEVEL and part in LEVEL]


def test_each_part_of_the_library_has_a_row():
    assert {part_of(name) for name in MODULES} <= {*LEVEL, "", "_autoload"}


@pytest.mark.parametrize(("part", "other"), OURS, ids=lambda part: part)
def test_dependency_does_not_point_upwards(part, other):
    assert LEVEL[other] <= LEVEL[part]


def test_dependencies_have_no_circle():
    sorter = graphlib.TopologicalSorter()
    for part, other in OURS:
        sorter.add(part, other)
    sorter.prepare()


def test_only_the_plug_in_is_known_to_the_start_up_hook():
    assert {name for name in IMPORTS[f"{PACKAGE}._autoload"] if name.startswith(PACKAGE)} == {f"{PACKAGE}.plugin"}


@pytest.mark.parametrize("name", [name for name in MODULES if part_of(name) in WITHOUT_HOST])
def test_part_knows_nothing_of_nnunet(name):
    assert not {other for other in IMPORTS[name] if other.split(".")[0] in {"nnunetv2", "batchgenerators"}}


@pytest.mark.parametrize("name", [name for name in MODULES if part_of(name) in STANDARD_LIBRARY_ONLY])
def test_module_needs_the_standard_library_only(name):
    assert {other.split(".")[0] for other in IMPORTS[name]} <= {*sys.stdlib_module_names, PACKAGE}


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_written_in_full(name):
    assert not [other for other in IMPORTS[name] if other.startswith(".")]
