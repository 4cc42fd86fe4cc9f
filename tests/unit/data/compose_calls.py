"""Calls of `duplus compose` on two small sources, for the tests of composing."""

import json
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.cli import main

ORGANS = {"background": 0, "liver": 1, "spleen": 2}
LEFT_HANDED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
PET_CT = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "tumor": 1}}
NOT_DRAWN = """\
dataset: Organs
missing: not annotated
contexts: {organs_ct: {modality: computed tomography, region: abdomen}}
targets: {liver: , spleen: }
"""


def compose(*words: str) -> int:
    return main(["compose", "-o", "501", "-n", "All", *words])


def specify(text: str) -> tuple[str, str]:
    Path("compose.yaml").write_text(text, encoding="utf-8")
    return "--spec", "compose.yaml"


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def fail(capsys: pytest.CaptureFixture[str], raw: Path, *words: str) -> str:
    """Compose in vain: the exit code is 1, nothing is left behind, and the message comes back."""
    before = sorted(raw.iterdir())
    capsys.readouterr()
    assert compose(*words) == 1
    assert sorted(raw.iterdir()) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err
