"""Each notebook runs from its first cell to its last, and its results are what its text promises."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import read_environment

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
# Jupyter's plain Python cells, one after another in one namespace, in a process of its own.
RUN = """
import json, sys
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
"""


def run_notebook(name: str, folder: Path, **variables: str) -> str:
    environment = {**read_environment(), "MPLBACKEND": "agg", **variables}
    words = [sys.executable, "-W", "ignore", "-c", RUN, NOTEBOOKS / name]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_notebook_is_committed_without_outputs(name: str) -> None:
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    assert not [cell["id"] for cell in cells if cell.get("outputs")]


def test_looking_shows_the_organ_of_each_prompt(tmp_path: Path) -> None:
    output = run_notebook("look.ipynb", tmp_path)
    for organ in ("liver", "spleen", "left kidney", "right kidney"):
        assert float(re.search(rf"^{organ}: Dice (\S+)$", output, re.MULTILINE)[1]) > 0.8
    for case in ("ct", "mr", "pet"):
        assert float(re.search(rf"^liver in {case}: Dice (\S+)$", output, re.MULTILINE)[1]) > 0.8
    assert float(re.search(r"^spleen in ct, context phantom_mr: Dice (\S+)$", output, re.MULTILINE)[1]) < 0.5


def test_asking_shows_the_organs_that_were_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("ipyniivue", reason="ipyniivue is not installed (extra notebook)")
    output = run_notebook("ask.ipynb", tmp_path)
    assert "['liver', 'left kidney']" in output
    for organ in ("liver", "left kidney"):
        assert float(re.search(rf"^{organ}: \d+ ml, Dice (\S+)$", output, re.MULTILINE)[1]) > 0.8


@pytest.mark.slow
def test_training_ends_with_scores(tmp_path: Path) -> None:
    output = run_notebook("train.ipynb", tmp_path, DUPLUS_NOTEBOOK_ITERATIONS="5")
    assert re.search(r"left kidney\s+3\b", output)
    assert os.path.isfile(tmp_path / "training" / "predicted" / "scores.json")
