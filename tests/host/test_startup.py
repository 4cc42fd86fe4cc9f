"""The start-up hook costs next to nothing, is easily switched off, and never fails an interpreter's start."""

import re
import shutil

import pytest

LIMIT_US = 2000
INSTALLS = ("plain_install", "editable_install")
IS_LIVE = "import sys; print(any(type(finder).__name__ == 'HostWatcher' for finder in sys.meta_path))"
LIST_MODULES = "import sys; print(*sorted(sys.modules))"
STOCK_LOOKUP = """
import os, nnunetv2
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class as find
folder = os.path.join(nnunetv2.__path__[0], "preprocessing", "normalization")
print(find(folder, "CTNormalization", "nnunetv2.preprocessing.normalization").__name__)
"""


def measure_cost(installation):
    """Return the time in microseconds that a bare interpreter spends on importing this package."""
    report = installation.run("pass", "-X", "importtime").stderr
    rows = re.findall(r"import time:\s+(\d+) \|\s+\d+ \| +duplus_nnunet\S*", report)
    assert rows, report
    return sum(map(int, rows))


@pytest.mark.parametrize("install", INSTALLS)
def test_hook_is_live_after_an_install(install, request):
    done = request.getfixturevalue(install).run(IS_LIVE)
    assert (done.stdout.strip(), done.stderr) == ("True", "")


@pytest.mark.parametrize("install", INSTALLS)
def test_variable_switches_the_hook_off(install, request):
    assert request.getfixturevalue(install).run(IS_LIVE, DUPLUS_AUTOLOAD="0").stdout.strip() == "False"


def test_hook_costs_two_milliseconds_at_most(plain_install):
    assert min(measure_cost(plain_install) for _ in range(5)) <= LIMIT_US


def test_hook_imports_nothing_but_itself(plain_install):
    off = plain_install.run(LIST_MODULES, DUPLUS_AUTOLOAD="0").stdout.split()
    live = plain_install.run(LIST_MODULES).stdout.split()
    assert set(live) - set(off) == {"duplus_nnunet", "duplus_nnunet._autoload"}


def test_switched_off_hook_imports_nothing(plain_install):
    assert "duplus_nnunet" not in plain_install.run(LIST_MODULES, DUPLUS_AUTOLOAD="0").stdout.split()


def remove_whole(package):
    shutil.rmtree(package)


def remove_code(package):
    for path in package.rglob("*.py"):
        path.unlink()


def cut_hook(package):
    path = package / "_autoload.py"
    path.write_text(path.read_text(encoding="utf-8")[:700], encoding="utf-8")


def empty_hook(package):
    (package / "_autoload.py").write_text("", encoding="utf-8")


def remover(name):
    def remove(package):
        (package / name).unlink()

    remove.__name__ = f"remove_{name}"
    return remove


DAMAGES = [
    remove_whole,
    remove_code,
    cut_hook,
    empty_hook,
    *map(remover, ("__init__.py", "_autoload.py", "plugin.py", "errors.py")),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_interpreter_starts_in_silence_whatever_is_left_of_the_package(unpacked, damage):
    damage(unpacked.site_packages / "duplus_nnunet")
    done = unpacked.run("print('started')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_nnunet_finds_its_own_whatever_is_left_of_the_package(unpacked, damage):
    damage(unpacked.site_packages / "duplus_nnunet")
    done = unpacked.run(STOCK_LOOKUP)
    assert (done.returncode, done.stdout.strip()) == (0, "CTNormalization"), done.stderr


def test_damage_is_reported_once_when_nnunet_is_used(unpacked):
    remover("plugin.py")(unpacked.site_packages / "duplus_nnunet")
    warned = unpacked.run(STOCK_LOOKUP).stderr
    assert warned.count("RuntimeWarning: DuPLUS") == 1
    assert "pip install --force-reinstall" in warned
