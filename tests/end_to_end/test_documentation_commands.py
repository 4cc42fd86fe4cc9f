"""Every command and every Python example of README.md and docs/ runs, on phantoms under the names that the pages use.

The commands of a page run one after another in one folder, and so do the pages of a story. They run as they stand on
the page; what a reader changes by hand (settings in the plans) is changed for shorter trainings. A page with commands
that is in no story fails.
"""

import ast
import itertools
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.run import run_training

from duplus_nnunet.cli import build_parser

from ..documentation_blocks import (
    REPOSITORY,
    Block,
    expand_commands,
    is_executable,
    list_pages,
    read_blocks,
    split_variables,
)
from .conftest import Project
from .documentation_data import write_download, write_sarcomas, write_series

pytestmark = pytest.mark.slow

STORIES = {
    "segmentation": (
        "docs/get-started/install.md", "docs/get-started/first-model.md", "README.md", "docs/get-started/predict.md",
        "docs/how-to/own-dataset.md", "docs/how-to/prompts.md", "docs/how-to/choose-targets.md", "docs/how-to/ask.md",
        "docs/how-to/napari.md", "docs/how-to/many-images.md", "docs/how-to/dicom.md",
        "docs/how-to/evaluate.md", "docs/how-to/cohort.md",
        "docs/how-to/report.md", "docs/how-to/viewers.md", "docs/how-to/several-datasets.md", "docs/how-to/adapt.md",
        "docs/how-to/published-weights.md",
        "docs/how-to/convert.md", "docs/how-to/cluster.md", "docs/how-to/completion.md", "docs/how-to/notebooks.md",
        "docs/how-to/monitoring.md", "docs/how-to/docker.md",
    ),
    "dicom": ("docs/how-to/dicom-out.md",),
    "prognosis": (
        "docs/how-to/prognosis-records.md", "docs/how-to/prognosis-validate.md", "docs/how-to/prognosis-images.md",
        "docs/how-to/prognosis-predict.md",
    ),
}  # fmt: skip
STORY_OF = {page: story for story, pages in STORIES.items() for page in pages}
# Python on the page of the Python interface is written from docstrings, whose examples are run as doctests.
PAGES = [
    page for page in list_pages() if page != "docs/reference/api.md" and any(map(is_executable, read_blocks(page)))
]
# Commands that are not run, by their first words, and why. That they exist is tested all the same.
NOT_RUN = {
    ("pip", "install"): "installs from the network; the continuous integration installs the package itself",
    ("duplus", "convert", "btcv"): "needs a download; tests/unit/conversion converts every dataset",
    ("duplus", "convert", "livers.yaml"): "needs a download; tests/unit/conversion converts by a recipe of one's own",
    ("duplus", "compose", "-o", "600"): "needs downloads; tests/unit/conversion/test_paper.py composes small ones",
    ("duplus", "prompts", "check", "17"): "needs the dataset that was converted",
    ("duplus", "submit"): "trains for hours; tests/unit/submission sends jobs, and test_submission.py trains by one",
    ("sbatch",): "needs a cluster; tests/unit/documentation/test_cluster_script.py runs the script",
    ("torchrun",): "needs two nodes; test_nodes.py trains by torchrun",
    ("duplus", "predict", "--ray"): "starts Ray; test_ray_prediction.py predicts with it",
    ("duplus", "predict", "-i", "s3://bucket/images"): "needs a bucket; test_storage.py has storage in memory",
    ("duplus", "completion"): "tests/unit/commands/test_completion_command.py asks for completions",
    ("jupyter",): "opens a browser; test_notebooks.py runs the notebooks",
    ("napari",): "opens a window; tests/host/test_napari.py types and clicks in it",
    ("duplus", "predict", "-m", "example/model", "--jobs", "jobs.json"): "needs a table that the window in napari "
    "writes; tests/host/test_napari.py runs it",
    ("docker",): "needs a Docker daemon; tests/host/test_docker.py builds the image and runs it where there is one",
    ("DUPLUS_TENSORBOARD=1", "nnUNetv2_train"): "test_monitoring.py trains with it, and reads what is written",
    ("tensorboard",): "serves pages until it is ended; test_monitoring.py reads what it shows",
    ("wandb", "sync"): "needs an account; test_monitoring.py reads the run that is sent",
    ("make",): "makes an environment of its own; the continuous integration runs it",
    ("duplus", "adapt", "plan", "62", "--from-model", "Dataset291"): "needs a download; test_published_weights.py runs "
    "the same with a stock model that it trains",
    ("nnUNetv2_train", "62", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPretrainedPlans"): "as above",
}
# Files that the reader writes, by page and language of the block that shows them.
SHOWN_FILES = {("docs/how-to/several-datasets.md", "yaml"): "compose.yaml"}
SHORT = {"epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1, "paraphrase_probability": 0.0}
SURVIVAL = {"lora_epochs": 0, "networks": 2, "lora_r": 4}


class Story:
    """A folder in which the pages of a story are carried out, each once."""

    def __init__(self, name: str, folder: Path) -> None:
        self.pages = STORIES[name]
        self.project = Project(folder)
        self.variables = {
            "HOME": str(folder),
            **{f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")},
        }
        self._done: set[str] = set()
        self._commands: set[tuple[str, ...]] = set()
        self._names: dict[tuple[str, ...], dict[str, Any]] = {}
        write_sarcomas(folder / "raw")
        write_series(folder / "export")
        shutil.rmtree(write_download(folder).with_suffix(""))

    def carry_out(self, page: str) -> None:
        """Run the pages before a page that were not run yet, and then the page."""
        for name in self.pages[: self.pages.index(page) + 1]:
            if name not in self._done:
                self._done.add(name)
                self._carry_out(name)

    def _carry_out(self, page: str) -> None:
        blocks = read_blocks(page)
        for block in blocks:
            if (page, block.language) in SHOWN_FILES:
                (self.project.folder / SHOWN_FILES[page, block.language]).write_text(block.text, encoding="utf-8")
        shell = [block for block in blocks if block.language == "bash"]
        expanded = expand_commands(shell, self.variables, self.project.folder / "record")
        names: dict[str, Any] = {"__name__": "example"}
        for block in filter(is_executable, blocks):
            if block.language == "bash":
                for words in next(expanded):
                    self._run(words)
            else:
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(self.project.folder)
                    self._run_python(block, names)

    def _run_python(self, block: Block, names: dict[str, Any]) -> None:
        """Run an example, but for the statements with which another page began in the same way."""
        done: tuple[str, ...] = ()
        for statement in ast.parse(block.text).body:
            done = (*done, ast.unparse(statement))
            if done in self._names:
                names |= self._names[done]
            else:
                exec(compile(ast.unparse(statement), block.page, "exec"), names)  # noqa: S102
                self._names[done] = dict(names)

    def _run(self, words: list[str]) -> None:
        """Run a command, unless it ran before, is listed as not to be run, or needs what is not there yet."""
        variables, command = split_variables(words)
        if tuple(words) in self._commands or find_reason(words) is not None or find_reason(command) is not None:
            return
        self._commands.add(tuple(words))
        words = command
        if words[0] == "mkdir":
            Path(words[-1]).mkdir(parents=True, exist_ok=True)
        elif words[0] == "cp":
            shutil.copy(words[1], self.project.folder / words[2])
        elif words[0] == "tar":
            with tarfile.open(self.project.folder / words[-1]) as file:
                file.extractall(self.project.folder, filter="data")
        else:
            self._prepare(words)
            self.project.do(*words, **variables)
            self._shorten(words)

    def _prepare(self, words: list[str]) -> None:
        """Bring about what a page presupposes."""
        if "--masks-from" in words:  # an image without a label file, and no schema yet
            raw = self.project.folder / "raw" / "Dataset062_SarcomaPET"
            (raw / "labelsTr" / "STS_000.nii.gz").unlink()
            (raw / "clinical.yaml").unlink()

    def _shorten(self, words: list[str]) -> None:
        """After planning, edit the plans as a reader does: a short training of a thin network."""
        if "plan" in words[:3] or words[0] == "nnUNetv2_plan_and_preprocess":
            number = int(next(word for word in words if word.isdigit()))
            (dataset,) = (self.project.folder / "preprocessed").glob(f"Dataset{number:03d}_*")
            plans = Project(self.project.folder, dataset=dataset.name)
            if "--from-model" not in words:
                plans.change_settings(patch=24, **SHORT, survival=SURVIVAL)
                return
            content = json.loads(plans.plans.read_text())
            # The layers of the base have no more than four channels.
            content["duplus"]["settings"] |= SHORT | {"adaptation": {"r": 4, "lora_alpha": 8}}
            plans.plans.write_text(json.dumps(content))


def find_reason(words: list[str]) -> str | None:
    """Return why a command is not run, if it is listed so."""
    for start, reason in NOT_RUN.items():
        if len(words) >= len(start) and all(word.startswith(first) for word, first in zip(words, start, strict=False)):
            return reason
    return None


@pytest.fixture(scope="module")
def tell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Story]:
    """Begin each story once."""
    stories: dict[str, Story] = {}

    def get(page: str) -> Story:
        name = STORY_OF[page]
        if name not in stories:
            stories[name] = Story(name, tmp_path_factory.mktemp(name))
        return stories[name]

    return get


@pytest.mark.parametrize("page", [page for pages in STORIES.values() for page in pages])
def test_the_commands_and_examples_of_a_page_run(page: str, tell: Callable[[str], Story]) -> None:
    if STORY_OF[page] == "prognosis":
        pytest.importorskip("sksurv")
    tell(page).carry_out(page)


def test_each_page_with_commands_is_in_a_story() -> None:
    assert [page for page in PAGES if page not in STORY_OF] == []


def list_not_run(tmp_path: Path) -> list[list[str]]:
    """List the commands of all pages that are not run."""
    commands = []
    for page in PAGES:
        blocks = [block for block in read_blocks(page) if block.language == "bash"]
        for found in expand_commands(blocks, {"HOME": "/home"}, tmp_path / "record"):
            commands += [words for words in found if find_reason(words) is not None]
            commands += [words for _, words in map(split_variables, found) if find_reason(words) is not None]
    return commands


def test_commands_that_are_not_run_exist(tmp_path: Path) -> None:
    commands = list_not_run(tmp_path)
    assert {find_reason(words) for words in commands} == set(NOT_RUN.values())
    for words in commands:
        check_existence(words)


def check_existence(words: list[str]) -> None:
    """Check that the program knows the sub-command and the options of a command line."""
    words = split_variables(words)[1]
    if words[:2] == ["duplus", "submit"] and "--" in words:
        end = words.index("--")
        check_existence(words[:end])
        check_existence(["nnUNetv2_train", *words[end + 1 :]])
    elif words[0] == "duplus":
        build_parser(words[1]).parse_args(words[1:])
    elif words[0] in {"nnUNetv2_train", "torchrun"}:
        words = words[words.index("duplus_nnunet.train") if words[0] == "torchrun" else 0 :]
        known = set(re.findall(r"add_argument\('(-+\w+)'", Path(run_training.__file__).read_text(encoding="utf-8")))
        assert {word for word in words if word.startswith("-")} <= known
    elif words[0] == "sbatch":
        assert (REPOSITORY / words[1]).is_file()
    elif words[0] == "jupyter":
        assert all((REPOSITORY / word).exists() for word in words[2:])
    elif words[0] == "docker":
        check_container(words)
    elif words[0] in {"tensorboard", "wandb", "napari"}:
        project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
        assert re.search(rf'^(monitoring|napari) = .*"{words[0]}(\[\w+\])?>=', project, flags=re.MULTILINE)
    elif words[0] == "make":
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in words[1:])
    else:
        assert words[:2] == ["pip", "install"]
        extras = re.search(r"\[(\w+)\]", words[2])
        project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
        assert words[2].startswith(".")
        assert extras is None or re.search(rf"^{extras[1]} = \[", project, flags=re.MULTILINE)


def check_container(words: list[str]) -> None:
    """Check build arguments by the Dockerfile; of a run, the command inside of the container."""
    if words[1] == "build":
        dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
        arguments = [word for option, word in itertools.pairwise(words) if option == "--build-arg"]
        assert all(f"ARG {argument.split('=')[0]}=" in dockerfile for argument in arguments)
    else:
        image = next(position for position, word in enumerate(words) if word in {"duplus", "duplus:gpu"})
        check_existence(words[image + 1 :])


@pytest.mark.parametrize("words", [["duplus", "adapt", "no-such-command"], ["duplus", "adapt", "plan", "--no-such"]])
def test_a_command_that_does_not_exist_is_noticed(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        check_existence(words)


def test_settings_that_pages_show_are_settings() -> None:
    from dataclasses import fields

    from duplus_nnunet.settings import Settings

    shown = [
        json.loads("{" + block.text + "}")["duplus"]["settings"]
        for page in PAGES
        for block in read_blocks(page)
        if block.language == "json" and '"settings"' in block.text
    ]
    assert shown
    assert {name for settings in shown for name in settings} <= {field.name for field in fields(Settings)}
