"""Fresh processes and fresh installs, which show from outside what nnU-Net does with this package."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# What a build needs; the root also gathers virtual environments, caches and what the demo writes.
SOURCE = ("duplus_nnunet", "planners", "trainers", "prompt_registry", "tests")


@dataclass(frozen=True)
class Installation:
    """A virtual environment that holds this package, and links to what it depends on."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next((self.folder / "lib").glob("python*")) / "site-packages"

    def run(self, code: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command([self.python, *options, "-c", code], self.folder, variables)


def run_command(command: list[str | Path], cwd: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    ours = ("DUPLUS_", "PYTHONPATH", "PYTHONWARNINGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(command, cwd=cwd, env=clean | variables, capture_output=True, text=True, timeout=600)


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code as a script in a fresh process of this interpreter, outside the repository."""

    def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(code, encoding="utf-8")
        return run_command([sys.executable, script, *arguments], tmp_path, variables)

    return run


@pytest.fixture
def pretend_version(tmp_path: Path) -> Callable[[str], None]:
    """Let the processes of `run_python` find metadata that give the installed nnU-Net another version."""

    def pretend(version: str) -> None:
        folder = tmp_path / f"nnunetv2-{version}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: nnunetv2\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata, encoding="utf-8")

    return pretend


@pytest.fixture
def edit_host(tmp_path: Path) -> Callable[[str, str, str], None]:
    """Let the processes of `run_python` find a copy of nnU-Net in which one module's text is replaced."""
    import nnunetv2

    copy = tmp_path / "nnunetv2"

    def edit(file: str, before: str, after: str) -> None:
        if not copy.is_dir():
            shutil.copytree(nnunetv2.__path__[0], copy, ignore=shutil.ignore_patterns("__pycache__"))
        text = (copy / file).read_text(encoding="utf-8")
        assert before in text
        (copy / file).write_text(text.replace(before, after), encoding="utf-8")

    return edit


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, so that builds leave nothing behind in it."""
    copy = tmp_path_factory.mktemp("source")
    for folder in SOURCE:
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a plain install."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, source)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def make_installation(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Installation]:
    """Make virtual environments without this package, that borrow everything else from this one by links."""

    def make(*replaced: str) -> Installation:
        folder = tmp_path_factory.mktemp("installation")
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        links = folder / "links"
        links.mkdir()
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if not path.name.startswith(("duplus", "__", *replaced)) and path.suffix != ".pth":
                (links / path.name).symlink_to(path)
        installation = Installation(folder / "venv")
        (installation.site_packages / "links.pth").write_text(f"{links}\n", encoding="utf-8")
        return installation

    return make


@pytest.fixture(scope="session")
def plain_install(wheel: Path, make_installation: Callable[..., Installation]) -> Installation:
    """An environment after `pip install .`."""
    installation = make_installation()
    pip("--python", installation.python, "install", "--no-deps", wheel)
    return installation


@pytest.fixture(scope="session")
def editable_install(source: Path, make_installation: Callable[..., Installation]) -> Installation:
    """An environment after `pip install -e .`."""
    installation = make_installation()
    pip("--python", installation.python, "install", "--no-deps", "--no-build-isolation", "-e", source)
    return installation


@pytest.fixture
def unpacked(wheel: Path, make_installation: Callable[..., Installation]) -> Installation:
    """A plain install to do damage to."""
    installation = make_installation()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installation.site_packages)
    return installation
