"""Dependencies between the parts of the library point one way."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import duplus_nnunet

PACKAGE = "duplus_nnunet"
IMPORT_NODES = (ast.Import, ast.ImportFrom)
# A room may import rooms of its own row or of a row below it, without a circle. `trainers` itself is a facade.
ROWS = (
    (
        *("cli", "commands", "survival.command", "doctor", "demo", "example", "plugin", "command_checks", "api"),
        *("napari_plugin", "train", "submission"),
    ),
    ("trainers.survival", "survival.training", "survival.prediction", "sensitivity", "model_report"),
    ("trainers", "planners", "inference", "adaptation", "survival.imaging", "survival.lesions"),
    ("survival.report", "survival.evaluation", "survival.models", "notebook", "saved_predictions"),
    ("survival.records", "outputs", "reporting", "conversion", "dicom", "data"),
    (
        *("networks", "prompt_registry", "prompt_bank", "standard_embeddings", "model_form", "plans_form"),
        *("plans_keys", "mirroring"),
    ),
    ("settings",),
    (
        "plans_section",
        "plans_packing",
        "substitution",
        "table_files",
        "text_files",
        "yaml_files",
        "text_table",
        "files",
        "remote_files",
        "checkpoint_files",
        "locks",
        "errors",
        "extras",
        "host",
        "command_map",
        "progress",
        "nodes",
    ),
)
LEVEL = {room: level for level, row in enumerate(reversed(ROWS)) for room in row}
# Modules that stand for a room above the one they lie in: they import from it.
ABOVE = {f"{PACKAGE}.trainers": "trainers.survival", f"{PACKAGE}.trainers.survival": "trainers.survival"}
# Rooms that know nothing of nnU-Net, wherever in them it would be imported.
WITHOUT_HOST = (
    "networks", "survival.records", "survival.models", "survival.evaluation", "survival.report", "errors", "settings",
    "prompt_registry", "plans_form", "plans_section", "plans_packing", "table_files", "text_files", "yaml_files",
    "text_table", "cli", "notebook",
)  # fmt: skip
# Rooms whose modules no other package may be imported for.
STANDARD_LIBRARY_ONLY = (
    "_autoload",
    "errors",
    "host",
    "plans_section",
    "plans_packing",
    "substitution",
    "table_files",
    "text_files",
    "text_table",
    "command_map",
    "cli",
)
# Rooms of the prognosis that know no trainer.
WITHOUT_TRAINERS = ("survival.records", "survival.models", "survival.evaluation", "survival.report")


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


MODULES = find_modules()


def list_imports(path):
    """List the dotted names that a file imports, at its top or late."""
    return list_imports_of(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def list_imports_of(nodes):
    """List the dotted names that statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and any(f"{node.module}.{alias.name}" in MODULES for alias in node.names):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module}"


def room_of(name):
    """Name the room of a module: its folder in the library, of the prognosis the folder in that."""
    if name in ABOVE:
        return ABOVE[name]
    steps = name.split(".")[1:] if name.startswith(f"{PACKAGE}.") else [""]
    return ".".join(steps[:2]) if steps[0] == "survival" else steps[0]


def find_circles(edges):
    """List the circles among edges, each as the names on it; no more than one is found."""
    sorter = graphlib.TopologicalSorter()
    for name, other in edges:
        sorter.add(name, other)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


IMPORTS = {name: set(list_imports(path)) for name, path in MODULES.items()}
EDGES = sorted({(room_of(name), room_of(other)) for name, others in IMPORTS.items() for other in others})
OURS = [(room, other) for room, other in EDGES if room in LEVEL and other in LEVEL and room != other]


def test_each_room_of_the_library_has_a_row():
    assert {room_of(name) for name in MODULES} <= {*LEVEL, "", "_autoload", "survival"}


@pytest.mark.parametrize(("room", "other"), OURS, ids=lambda room: room)
def test_dependency_does_not_point_upwards(room, other):
    assert LEVEL[other] <= LEVEL[room]


def test_rooms_have_no_circle():
    assert not find_circles(OURS)


def test_modules_have_no_circle():
    assert not find_circles([(name, other) for name, others in IMPORTS.items() for other in others & MODULES.keys()])


def test_a_segmentation_training_loads_no_prognosis():
    """What stands at the top of modules is loaded with them; imports inside functions are not."""
    loaded, waiting = set(), {f"{PACKAGE}.trainers"}
    while waiting:
        name = waiting.pop()
        loaded.add(name)
        body = ast.parse(MODULES[name].read_text(encoding="utf-8")).body
        imported = {other for node in body for other in list_imports_of([node]) if isinstance(node, IMPORT_NODES)}
        waiting |= (imported & MODULES.keys()) - loaded
    assert {name for name in loaded if room_of(name).startswith("survival")} == set()
    assert f"{PACKAGE}.trainers.segmentation" in loaded


def test_only_some_modules_need_napari():
    needing = {name for name in IMPORTS if {other.split(".")[0] for other in IMPORTS[name]} & {"napari", "qtpy"}}
    assert needing == {f"{PACKAGE}.napari_plugin.{name}" for name in ("answers", "form", "tasks", "widget")}


def test_a_circle_is_found():
    assert set(find_circles([("a", "b"), ("b", "c"), ("c", "a")])) == {"a", "b", "c"}


def test_only_the_plug_in_is_known_to_the_start_up_hook():
    assert {name for name in IMPORTS[f"{PACKAGE}._autoload"] if name.startswith(PACKAGE)} == {f"{PACKAGE}.plugin"}


@pytest.mark.parametrize("name", [name for name in MODULES if room_of(name) in WITHOUT_HOST])
def test_room_knows_nothing_of_nnunet(name):
    assert not {other for other in IMPORTS[name] if other.split(".")[0] in {"nnunetv2", "batchgenerators"}}


@pytest.mark.parametrize("name", [name for name in MODULES if room_of(name) in WITHOUT_TRAINERS])
def test_room_knows_no_trainer(name):
    assert not {other for other in IMPORTS[name] if other.startswith(f"{PACKAGE}.trainers")}


def test_the_start_up_hook_loads_nothing_but_the_standard_library():
    program = (
        "import sys; before = set(sys.modules); import duplus_nnunet._autoload, duplus_nnunet.plugin; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert set(loaded.split()) <= {*sys.stdlib_module_names, PACKAGE}


@pytest.mark.parametrize("name", [name for name in MODULES if room_of(name) in STANDARD_LIBRARY_ONLY])
def test_module_needs_the_standard_library_only(name):
    assert {other.split(".")[0] for other in IMPORTS[name]} <= {*sys.stdlib_module_names, PACKAGE}


@pytest.mark.parametrize("name", MODULES)
def test_imports_are_written_in_full(name):
    assert not [other for other in IMPORTS[name] if other.startswith(".")]
