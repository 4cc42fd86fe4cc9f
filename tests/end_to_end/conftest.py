"""One small model, trained once by nnU-Net's own commands on phantoms; tests look at it from outside."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from duplus_nnunet.example.folder import write_example

from ..phantom_dataset import write_phantom_dataset
from .preloaded import Server

DATASET = "Dataset998_Phantom"
MODEL = ("-d", "998", "-c", "3d_fullres", "-f", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans")
FAST = ("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta", "-step_size", "1")
# OpenMP reads its own when it is loaded.
OURS = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
# Most trainings make their batches themselves, since a worker prepares more than a short one uses; WORKER gives it one.
ALONE, WORKER = {"nnUNet_n_proc_DA": "0"}, {"nnUNet_n_proc_DA": "1"}
TIMEOUT = 900.0


@dataclass(frozen=True)
class Project:
    """nnU-Net's three folders, and its commands run in them."""

    folder: Path
    options: tuple[str, ...] = MODEL
    fast: tuple[str, ...] = FAST
    dataset: str = DATASET

    @property
    def raw(self) -> Path:
        return self.folder / "raw" / self.dataset

    @property
    def plans(self) -> Path:
        return self.folder / "preprocessed" / self.dataset / "DuPLUSPlans.json"

    @property
    def model(self) -> Path:
        return self.folder / "results" / self.dataset / "DuPLUSTrainer__DuPLUSPlans__3d_fullres"

    def run(
        self, command: str, *arguments: str | Path, preexec_fn: Callable[[], None] | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a console script of this environment, with no variable but nnU-Net's own.

        In a process of its own; where neither `preexec_fn` nor a variable of Python asks for one that begins from
        nothing, it is one that has torch imported already.
        """
        folders = {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed", "results")}
        alone = ALONE if command == "nnUNetv2_train" else {}
        environment = {**read_environment(), **folders, **alone, **variables}
        script = shutil.which(command, path=str(Path(sys.executable).parent))
        assert script is not None, f"{command} is not installed beside {sys.executable}"
        words = [script, *map(str, arguments)]
        if preexec_fn is None and not any(name.startswith("PYTHON") for name in variables):
            with tempfile.TemporaryDirectory() as out:
                return start_server().run(words, self.folder, environment, Path(out), TIMEOUT)
        return subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT,
            preexec_fn=preexec_fn,
        )  # fmt: skip

    def do(self, command: str, *arguments: str | Path, **variables: str) -> str:
        """Run a command that has to succeed; return what it printed."""
        done = self.run(command, *arguments, **variables)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def predict(self, out: Path, *options: str, images: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Predict the test images with nnU-Net's command."""
        return self.run("nnUNetv2_predict", "-i", images or self.raw / "imagesTs", "-o", out, *MODEL, *FAST, *options)

    def change_settings(self, plans_name: str = "DuPLUSPlans", patch: int = 32, **settings: Any) -> None:
        """Edit the plans as a user does: a short run of a thin network."""
        file = self.plans.with_name(f"{plans_name}.json")
        plans = json.loads(file.read_text())
        plans["duplus"]["settings"] |= settings
        configuration = plans["configurations"]["3d_fullres"]
        configuration["patch_size"], configuration["batch_size"] = [patch] * 3, 2
        network = configuration["architecture"]["arch_kwargs"]
        stages = network["n_stages"]
        network["features_per_stage"] = [4 * 2 ** min(stage, 2) for stage in range(stages)]
        network["n_conv_per_stage_decoder"] = [1] * (stages - 1)
        network["n_blocks_per_stage" if "n_blocks_per_stage" in network else "n_conv_per_stage"] = [1] * stages
        file.write_text(json.dumps(plans))


def read_environment() -> dict[str, str]:
    """Return the variables of this process without those of nnU-Net and this package, and with the tests' own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DUPLUS_", "nnUNet"))}
    return {**inherited, **OURS}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that trains what another one waits for; the order is kept by --no-loadscope-reorder."""
    first = "test_survival_trainer.py"
    items.sort(key=lambda item: (Path(item.path).parent.name != "end_to_end", Path(item.path).name != first))


@functools.cache
def start_server() -> Server:
    """Start the server of preloaded processes, when the first command asks for it."""
    return Server(read_environment())


@pytest.fixture(scope="session", autouse=True)
def _end_server() -> Iterator[None]:
    yield
    if start_server.cache_info().currsize:
        start_server().close()


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Build a folder that several test files start from: once in a run of the tests, by whichever worker comes first.

    Returns:
        A copy of the worker's own, which tests may change.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared_{name}"
    with FileLock(f"{shared}.lock"):
        if not shared.is_dir():
            made = factory.mktemp(f"making_{name}")
            build(made)
            made.rename(shared)
    return Path(shutil.copytree(shared, factory.mktemp("copies") / name, symlinks=True))


@pytest.fixture(scope="session")
def example_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped example: a model that knows its targets, without a training. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("example")
    write_example(folder)
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Five phantoms planned, preprocessed and trained on for two short epochs, with mirror images."""
    return Project(build_once(tmp_path_factory, "project", _train_briefly))


def _train_briefly(folder: Path) -> None:
    made = Project(folder)
    made.raw.parent.mkdir()
    write_phantom_dataset(made.raw, 5, 1, 0)
    made.do("nnUNetv2_plan_and_preprocess", "-d", "998", "-pl", "DuPLUSPlanner", "-npfp", "1", "-np", "1", "1", "1")
    mirrored = {"mirror_left_right": True, "mirror_other_axes": True}
    made.change_settings(epochs=2, iterations_per_epoch=2, validation_iterations=1, **mirrored)
    words = ("998", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
    made.do("nnUNetv2_train", *words, **WORKER)
