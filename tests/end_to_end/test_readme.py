"""Every command that the README names is run, on the phantom dataset instead of the reader's."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
# Run by the continuous integration itself, in an environment of its own.
INSTALLS = ("make", "pip")
COMMANDS = [
    line.split("   #")[0]
    for block in re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith(INSTALLS)
]


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
    copy.do(command, *words)
