"""What `pip install .` and `pip install -e .` put where."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from duplus_nnunet import __version__
from duplus_nnunet.host.version import SUPPORTED_HOSTS

REPOSITORY = Path(__file__).parents[2]
INSTALLS = ("plain_install", "editable_install")
GENERIC_NAMES = ("planners", "trainers", "prompt_registry", "tests", "benchmarks")
LOCATE = """
import importlib.util, sys
from importlib.metadata import packages_distributions
owners = packages_distributions()
# Other distributions may have such a module, as rt-utils has one named tests.
others = [name for name, those in owners.items() if "duplus-nnunet" not in those]
print([name for name in sys.argv[1:] or {names} if name not in others and importlib.util.find_spec(name)])
"""


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_wheel_has_one_package_one_hook_and_its_metadata_at_the_top(names):
    top = {name.split("/")[0] for name in names}
    assert top == {"duplus_nnunet", "duplus_nnunet.pth", f"duplus_nnunet-{__version__}.dist-info"}


@pytest.mark.parametrize("folder", ["planners", "trainers", "prompt_registry"])
def test_wheel_holds_each_module_of_a_top_level_folder(names, folder):
    modules = [path for path in (REPOSITORY / folder).rglob("*.py") if "__pycache__" not in path.parts]
    assert {f"duplus_nnunet/{path.relative_to(REPOSITORY)}" for path in modules} <= set(names)


def test_wheel_holds_each_module_of_the_library(names):
    modules = [path for path in (REPOSITORY / "duplus_nnunet").rglob("*.py") if "__pycache__" not in path.parts]
    assert {str(path.relative_to(REPOSITORY)) for path in modules} <= set(names)


def test_wheel_holds_each_file_of_the_registry(names):
    files = [path for path in (REPOSITORY / "prompt_registry").rglob("*") if path.suffix in {".yaml", ".npz", ".json"}]
    assert files
    assert {f"duplus_nnunet/{path.relative_to(REPOSITORY)}" for path in files} <= set(names)


def test_wheel_holds_the_model_of_the_example(names):
    files = [path for path in (REPOSITORY / "duplus_nnunet" / "example" / "files").iterdir() if path.is_file()]
    assert {path.name for path in files} == {"model.zip", "record.json"}
    assert {str(path.relative_to(REPOSITORY)) for path in files} <= set(names)


def test_wheel_is_marked_as_typed_and_contains_the_licence(names):
    assert "duplus_nnunet/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_source_distribution_builds_the_same_wheel(names, source, tmp_path):
    unpacked = tmp_path / "unpacked"
    build = [sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path]
    subprocess.run(build, cwd=shutil.copytree(source, tmp_path / "copy"), check=True, capture_output=True, timeout=600)
    shutil.unpack_archive(next(tmp_path.glob("*.tar.gz")), unpacked, filter="data")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([*build, next(unpacked.iterdir())], check=True, capture_output=True, timeout=600)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        assert sorted(archive.namelist()) == sorted(names)


@pytest.mark.parametrize("install", INSTALLS)
def test_install_has_no_module_of_a_generic_name(install, request):
    done = request.getfixturevalue(install).run(LOCATE.format(names=GENERIC_NAMES))
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("install", INSTALLS)
def test_install_offers_the_top_level_folders_as_sub_packages(install, request):
    expected = ["duplus_nnunet.planners", "duplus_nnunet.trainers", "duplus_nnunet.prompt_registry"]
    done = request.getfixturevalue(install).run(LOCATE.format(names=expected))
    assert done.stdout.strip() == str(expected)


@pytest.mark.parametrize("install", INSTALLS)
def test_uninstalling_takes_the_hook_along(install, request):
    site_packages = request.getfixturevalue(install).site_packages
    record = next(site_packages.glob("duplus_nnunet-*.dist-info")) / "RECORD"
    assert (site_packages / "duplus_nnunet.pth").is_file()
    assert "duplus_nnunet.pth,sha256=" in record.read_text(encoding="utf-8")


def test_installed_version_is_that_of_the_code():
    assert metadata.version("duplus-nnunet") == __version__


@pytest.mark.parametrize("file", ["pyproject.toml", "setup.py", "CITATION.cff"])
def test_version_is_written_in_no_other_place(file):
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    assert not re.search(rf"\bversion\b.*{re.escape(__version__)}", text)


def test_supported_versions_of_nnunet_are_the_required_ones():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert SUPPORTED_HOSTS in project["dependencies"]
