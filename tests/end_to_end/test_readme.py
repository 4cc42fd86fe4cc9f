"""Every command in the README runs, on a phantom dataset instead of the reader's."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.data.phantom_sources import write_phantom_sources

from ..phantom_dataset import write_phantom_dataset

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
# The continuous integration runs these itself, in a separate environment.
INSTALLS = ("make", "pip")
BLOCKS = [
    [line.split("   #")[0].strip() for line in block.splitlines() if line.strip() and not line.startswith(INSTALLS)]
    for block in re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
]
# Each of these commands needs the files of the one before it.
(ADAPTATION,) = (block for block in BLOCKS if any("--from-model" in line for line in block))
(SURVIVAL,) = (block for block in BLOCKS if any("duplus survival" in line for line in block))
COMMANDS = [line for block in BLOCKS if block not in (ADAPTATION, SURVIVAL) for line in block]
# A command that is shown for a composed dataset too runs once, for dataset 4.
COMMANDS = list(dict.fromkeys(line if "compose" in line else re.sub(r"\b501\b", "4", line) for line in COMMANDS))
SPECIFICATION = re.search(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def add_sources(project: Any) -> None:
    """Give a project the datasets and the specification that composing is shown with."""
    for number in ("996", "997"):
        write_phantom_dataset(project.raw.parent / f"Dataset{number}_Source{number}", 5, 1, int(number))
    assert SPECIFICATION is not None
    text = SPECIFICATION[1].replace("4: [Posterior]", "998: [liver]")
    (project.folder / "compose.yaml").write_text(text.replace("60", "997").replace("61", "996"), encoding="utf-8")


def test_the_readme_names_planning_training_and_prediction() -> None:
    assert {line.split()[0] for line in COMMANDS} >= {
        "nnUNetv2_plan_and_preprocess",
        "nnUNetv2_train",
        "nnUNetv2_predict",
    }


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_runs(project: Any, tmp_path: Path, line: str) -> None:
    copy = type(project)(Path(shutil.copytree(project.folder, tmp_path / "project")))
    replaced = {
        "4": "998",
        "60": "997",
        "61": "996",
        "IN": str(copy.raw / "imagesTs"),
        "OUT": str(tmp_path / "out"),
        "anterior hippocampus": "liver",
        "MODEL": str(copy.model),
        "IMAGE": str(next((copy.raw / "imagesTs").glob("*.nii.gz"))),
        "LABEL": str(next((copy.raw / "labelsTs").glob("*.nii.gz"))),
        "PREDICTIONS": str(copy.raw / "labelsTs"),
        "REFERENCES": str(copy.raw / "labelsTs"),
        "SCORES": str(tmp_path / "scores"),
    }
    command, *words = [replaced.get(word, word) for word in shlex.split(line)]
    if command in ("nnUNetv2_train", "nnUNetv2_predict") and "--list-targets" not in words:
        words += ["-device", "cpu"]
    if "compose" in words:
        add_sources(copy)
    copy.do(command, *words)


def test_the_commands_of_an_adaptation_run_one_after_another(project: Any, tmp_path: Path) -> None:
    copy = type(project)(Path(shutil.copytree(project.folder, tmp_path / "project")))
    write_phantom_sources(copy.raw.parent, 5, 1, 0)
    replaced = {
        "62": "903",
        "BASE": str(copy.model),
        "BASE/fold_0/checkpoint_final.pth": str(copy.model / "fold_0" / "checkpoint_final.pth"),
        "sarcoma_pet": "phantom_pet",
        "IN": str(copy.raw.parent / "Dataset903_PhantomPET" / "imagesTs"),
        "OUT": str(tmp_path / "out"),
    }
    plans = copy.folder / "preprocessed" / "Dataset903_PhantomPET" / "DuPLUSPlans.json"
    for line in ADAPTATION:
        command, *words = [replaced.get(word, word) for word in shlex.split(line)]
        copy.do(command, *words, *(["-device", "cpu"] if "plan" not in words else []))
        if "plan" in words:
            content = json.loads(plans.read_text())
            short = {"epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1}
            thin = {"adaptation": {"r": 4, "lora_alpha": 8}}  # the base's layers have no more than four channels
            content["duplus"]["settings"] |= short | thin
            plans.write_text(json.dumps(content))
    assert list((tmp_path / "out").glob("*.nii.gz"))


def test_the_commands_of_prognosis_run_one_after_another(project: Any, tmp_path: Path) -> None:
    pytest.importorskip("sksurv")
    copy = type(project)(Path(shutil.copytree(project.folder, tmp_path / "project")))
    add_sources(copy)
    cases = sorted(file.name.removesuffix("_0000.nii.gz") for file in (copy.raw / "imagesTr").glob("*.nii.gz"))
    patients = [*cases, *(f"without_image_{number}" for number in range(30))]
    rows = [f"{name},{50 + number * 7 % 31},{100 + 7 * number},{number % 2}" for number, name in enumerate(patients)]
    (copy.raw / "clinical.csv").write_text("\n".join(["patient,age,time_days,event", *rows]))
    replaced = {"62": "998", "60": "997", "61": "996", "OUT": str(tmp_path / "out")}
    for line in SURVIVAL:
        command, *words = [replaced.get(word, word) for word in shlex.split(line)]
        copy.do(command, *words)
    assert (copy.raw / "clinical.yaml").is_file()
    assert (tmp_path / "out" / "metrics.json").is_file()
