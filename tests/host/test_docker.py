"""The image for containers: linted, built from no more than it needs, and run where there is a Docker daemon."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from duplus_nnunet.demo.scores import measure_dice

from .conftest import REPOSITORY, pip

TAG = "duplus-test"
BIN = str(Path(sys.executable).parent)
SCRIPTS = (".ci/run", "docs/examples/train.slurm")
LIVER = 1


def find(program: str) -> str:
    """Return a program of the environment of the tests, or skip the test."""
    found = shutil.which(program, path=os.pathsep.join((BIN, os.environ["PATH"])))
    if found is None:
        pytest.skip(f"{program} is not installed (pip install '.[dev]')")
    return found


def docker(*words: str | Path, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout)


def read_argument(name: str) -> str:
    """Read the default of a build argument."""
    lines = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    return next(line.split("=", 1)[1] for line in lines if line.startswith(f"ARG {name}="))


def test_the_dockerfile_has_no_lint() -> None:
    done = subprocess.run([find("hadolint"), REPOSITORY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_of_the_shell_have_no_lint(script: str) -> None:
    done = subprocess.run([find("shellcheck"), REPOSITORY / script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_files_that_reach_the_image_build_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    (tmp_path / "source").mkdir()
    for name in (line[1:] for line in lines if line.startswith("!")):
        if (REPOSITORY / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.py[cod]")
            shutil.copytree(REPOSITORY / name, tmp_path / "source" / name, ignore=ignored)
        else:
            shutil.copy(REPOSITORY / name, tmp_path / "source")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, tmp_path / "source")
    names = []
    for file in (wheel, tmp_path / wheel.name):
        with zipfile.ZipFile(file) as archive:
            names.append(sorted(archive.namelist()))
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """Build the image, where a Docker daemon and the base image can be reached."""
    if shutil.which("docker") is None or docker("info").returncode != 0:
        pytest.skip("there is no Docker daemon")
    if docker("pull", f"python:{read_argument('PYTHON')}-slim").returncode != 0:
        pytest.skip("the base image cannot be pulled")
    built = docker("build", "-t", TAG, ".")
    assert built.returncode == 0, built.stderr[-3000:]
    yield TAG
    docker("rmi", TAG)


@pytest.mark.slow
def test_the_example_is_predicted_in_the_image(image: str, tmp_path: Path) -> None:
    run = ("run", "--rm", "--init", "--user", f"{os.getuid()}:{os.getgid()}", "-v", f"{tmp_path}:/work", image)
    for words in (
        "duplus example -o example",
        "duplus predict -m example/model -i example/images -o out --context example/contexts.json --targets liver",
        "nnUNetv2_train -h",
    ):
        done = docker(*run, *words.split())
        assert done.returncode == 0, done.stderr[-3000:]
    found, truth = (
        np.asarray(nibabel.load(tmp_path / folder / "ct.nii.gz").dataobj) for folder in ("out", "example/labels")
    )
    assert measure_dice(found, truth, LIVER) > 0.8


@pytest.mark.slow
def test_the_image_runs_without_root(image: str) -> None:
    assert docker("run", "--rm", image, "id", "-u").stdout.strip() == "1000"


@pytest.mark.slow
def test_an_unknown_device_is_refused(image: str) -> None:
    assert docker("build", "--build-arg", "DEVICE=tpu", ".").returncode != 0
