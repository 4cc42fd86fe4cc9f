"""Every command and Python example of README.md and docs/ runs, page by page, on phantoms instead of the reader's data.

The commands of a page run in its order, in one folder, with the variables that it exports. Names of datasets, files and
structures are replaced by those of the phantoms; a line of `UNRUN` is left out, for the reason given there.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.data.phantom_sources import write_phantom_sources

from ..phantom_dataset import write_phantom_dataset
from .conftest import FAST, Project, build_once
from .test_survival_trainer import DATASET as LESIONS
from .test_survival_trainer import SURVIVAL, Prognosis, train_base

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
PAGES = {
    str(file.relative_to(REPOSITORY)): file.read_text(encoding="utf-8")
    for file in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
    if "_build" not in file.parts
}
BLOCKS = {
    page: re.findall(r"^```(bash|python|text)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    for page, text in PAGES.items()
}
# Beginnings of lines that are not run here, each with the reason.
UNRUN = {
    "make ": "makes an environment of its own; the continuous integration runs it",
    "pip ": "installs; the continuous integration does it",
    "tar ": "unpacks a download",
    "mkdir ": "makes the reader's folders",
    "nnUNetv2_convert_MSD_dataset": "needs a download; nnU-Net's own command",
    "for fold in": "five trainings; its command is run for fold 0",
    "export nnUNet_raw": "the reader's folders",
    "sbatch ": "needs a cluster; test_cluster_script.py runs the script",
    "eval ": "changes the reader's shell; test_completion_command.py asks for completions",
    "duplus completion bash >": "writes into the reader's home folder",
    "duplus convert": "needs a download; tests/unit/conversion runs it for every dataset",
    "duplus prompts check 17": "belongs to a converted download",
    "duplus adapt plan 62 --from-model Dataset291": "needs published weights; test_published_weights.py has its own",
    "nnUNetv2_train 62 3d_fullres 0 -tr DuPLUSTrainer -p DuPLUSPretrainedPlans": "the same",
}
# What a trained phantom project has been through already; run again only where a page is about it.
DONE = ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train")
PLANNED_AGAIN = ("docs/how-to/own-dataset.md",)
PHANTOM = {
    "Dataset004_Hippocampus": "Dataset998_Phantom",
    "anterior hippocampus": "liver",
    "hippocampus_001": "train_000",
    "sarcoma_pet": "phantom_pet",
    "Dataset062_SarcomaPET": "Dataset903_PhantomPET",
}
NUMBERS = {"4": "998", "62": "903", "60": "997", "61": "996"}
LESION = {"Dataset062_SarcomaPET": LESIONS}
LESION_NUMBERS = {"62": "990"}


def list_lines(page: str) -> Iterator[str]:
    """Yield the commands of a page without their comments."""
    for kind, block in BLOCKS[page]:
        if kind == "bash":
            for line in block.replace("\\\n", " ").splitlines():
                text = re.sub(r"\s+#.*$", "", line).strip()
                if text and not text.startswith("#"):
                    yield text


def is_run(line: str) -> bool:
    return not line.startswith(tuple(UNRUN))


def rename(text: str, names: dict[str, str]) -> str:
    for name, other in names.items():
        text = text.replace(name, other)
    return text


@dataclass
class Reader:
    """Somebody who types the commands of pages into one shell."""

    project: Project
    names: dict[str, str] = field(default_factory=lambda: dict(PHANTOM))
    numbers: dict[str, str] = field(default_factory=lambda: dict(NUMBERS))
    variables: dict[str, str] = field(default_factory=dict)

    def type(self, line: str) -> None:
        """Run one line, or export its variables."""
        line = rename(line, self.names)
        words = [self._expand(word) for word in shlex.split(line)]
        if words[0] == "export":
            self.variables |= dict(word.split("=", 1) for word in words[1:])
            return
        words = [self.numbers.get(word, word) for word in words]
        if words[0] in ("nnUNetv2_predict", "duplus") and {"predict", "nnUNetv2_predict"} & set(words[:2]):
            words += () if "--list-targets" in words else FAST
        if words[0] == "nnUNetv2_train":
            words += ("-device", "cpu")
        self.project.do(*words)

    def _expand(self, word: str) -> str:
        folders = {f"nnUNet_{name}": str(self.project.folder / name) for name in ("raw", "preprocessed", "results")}
        known = {**folders, **self.variables}
        return re.sub(r"\$\{?(\w+)\}?", lambda found: known[found[1]], word)

    def run_python(self, code: str) -> None:
        """Run an example in a process of its own."""
        image = next((self.project.raw / "imagesTs").glob("*_0000.nii.gz"))
        shutil.copy(image, self.project.folder / "scan.nii.gz")
        file = self.project.folder / "example.py"
        file.write_text(rename(code, self.names))
        file.chmod(0o755)
        self.project.do(str(file), **self.variables)


@pytest.fixture
def reader(project: Project, tmp_path: Path) -> Reader:
    return Reader(type(project)(Path(shutil.copytree(project.folder, tmp_path / "project", symlinks=True))))


def read_page(reader: Reader, page: str) -> None:
    """Run the commands and examples of a page in its order."""
    for kind, block in BLOCKS[page]:
        if kind == "python" and "DuPLUSPredictor" in block:
            reader.run_python(block)
    for line in list_lines(page):
        is_done = line.startswith(DONE) and page not in PLANNED_AGAIN
        if is_run(line) and not is_done:
            reader.type(line)
            if line.startswith("nnUNetv2_plan"):  # plans of a whole training
                reader.project.change_settings(epochs=1, iterations_per_epoch=1, validation_iterations=1)


# Pages whose commands need more than a trained phantom project; each has a test of its own below.
SPECIAL = {
    "docs/how-to/adapt.md", "docs/how-to/several-datasets.md", "docs/how-to/prognosis-records.md",
    "docs/how-to/prognosis-images.md", "docs/how-to/prognosis-predict.md",
}  # fmt: skip
ORDINARY = [page for page in PAGES if page not in SPECIAL and any(map(is_run, list_lines(page)))]


@pytest.mark.parametrize("page", ORDINARY)
def test_the_commands_of_a_page_run(reader: Reader, page: str) -> None:
    if page == "README.md":
        reader.variables["MODEL"] = str(reader.project.model)
    for line in list_lines(page):
        if line.startswith("export MODEL"):
            reader.type(line)
    read_page(reader, page)


def test_no_command_escapes_as_text() -> None:
    commands = ("duplus ", "nnUNetv2_", "python ")
    escaped = [
        (page, line)
        for page, blocks in BLOCKS.items()
        if not page.startswith("docs/reference")
        for kind, block in blocks
        for line in block.splitlines()
        if kind == "text" and line.startswith(commands)
    ]
    assert escaped == []


def test_what_is_not_run_is_written_somewhere() -> None:
    lines = [line for page in PAGES for line in list_lines(page)]
    assert [start for start in UNRUN if not any(line.startswith(start) for line in lines)] == []


def test_python_examples_are_run_or_pure(reader: Reader) -> None:
    unknown = [
        (page, block)
        for page, blocks in BLOCKS.items()
        if not page.startswith("docs/reference")
        for kind, block in blocks
        if kind == "python" and "DuPLUSPredictor" not in block
    ]
    assert unknown == []


def add_sources(project: Project) -> None:
    """Add the datasets and the specification that composing is shown with."""
    for number in ("996", "997"):
        write_phantom_dataset(project.raw.parent / f"Dataset{number}_Source{number}", 5, 1, int(number))
    found = re.search(r"```yaml\n(.*?)```", PAGES["docs/how-to/several-datasets.md"], flags=re.DOTALL)
    assert found is not None
    text = found[1].replace("4: [Posterior]", "998: [liver]").replace("60", "997").replace("61", "996")
    (project.folder / "compose.yaml").write_text(text, encoding="utf-8")


def test_several_datasets_are_composed_and_planned(reader: Reader) -> None:
    add_sources(reader.project)
    for line in list_lines("docs/how-to/several-datasets.md"):
        if not line.startswith("nnUNetv2_train"):
            reader.type(line)
    assert (reader.project.raw.parent / "Dataset501_Universal" / "duplus_cases.json").is_file()


def test_a_model_is_adapted(reader: Reader) -> None:
    write_phantom_sources(reader.project.raw.parent, 5, 1, 0)
    plans = reader.project.folder / "preprocessed" / "Dataset903_PhantomPET" / "DuPLUSPlans.json"
    for line in list_lines("docs/how-to/adapt.md"):
        reader.type(line)
        if "adapt plan" in line:
            content = json.loads(plans.read_text())
            short = {"epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1}
            thin = {"adaptation": {"r": 4, "lora_alpha": 8}}  # the base's layers have no more than four channels
            content["duplus"]["settings"] |= short | thin
            plans.write_text(json.dumps(content))
    assert list((reader.project.folder / "adapted").glob("*.nii.gz"))


def test_records_are_evaluated(reader: Reader) -> None:
    pytest.importorskip("sksurv")
    add_sources(reader.project)
    raw = reader.project.raw
    cases = sorted(file.name.removesuffix("_0000.nii.gz") for file in (raw / "imagesTr").glob("*.nii.gz"))
    patients = [*cases, *(f"without_image_{number}" for number in range(30))]
    rows = [f"{name},{50 + number * 7 % 31},{100 + 7 * number},{number % 2}" for number, name in enumerate(patients)]
    (raw / "clinical.csv").write_text("\n".join(["patient,age,time_days,event", *rows]))
    reader.numbers["62"] = "998"
    for line in list_lines("docs/how-to/prognosis-records.md"):
        reader.type(line)
    assert (raw / "clinical.yaml").is_file()
    assert (reader.project.folder / "prognosis" / "metrics.json").is_file()


def test_a_prognosis_from_images_is_trained_and_predicts(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("sksurv")
    made = Prognosis(build_once(tmp_path_factory, "prognosis", train_base))
    content: dict[str, Any] = json.loads(made.plans.read_text())
    content["duplus"]["settings"] |= {"iterations_per_epoch": 3, "survival": {**SURVIVAL, "allow_overlap": True}}
    made.plans.write_text(json.dumps(content))
    reader = Reader(made, dict(LESION), dict(LESION_NUMBERS))
    for page in ("docs/how-to/prognosis-images.md", "docs/how-to/prognosis-predict.md"):
        for line in list_lines(page):
            if "-tr DuPLUSTrainer" not in line and "survival split" not in line:
                reader.type(line)
    for folder in ("prognosis", "risks", "explained", "importance"):
        assert list((made.folder / folder).glob("*.csv")), folder


def test_the_specification_of_a_page_is_read(tmp_path: Path) -> None:
    """Registry files and recipes shown on pages are accepted by their readers."""
    from duplus_nnunet.conversion.recipe import read_recipe
    from duplus_nnunet.prompt_registry.registry_file import check_registry_file

    shown = re.findall(r"```yaml\n(.*?)```", PAGES["docs/how-to/own-dataset.md"], flags=re.DOTALL)
    file = tmp_path / "prompts.yaml"
    file.write_text(shown[0])
    assert check_registry_file(file)[1] == ()
    (recipe,) = re.findall(r"```yaml\n(.*?)```", PAGES["docs/how-to/convert.md"], flags=re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert read_recipe(tmp_path / "recipe.yaml").dataset == "OurLivers"
    assert main(["convert", "list"]) == 0
