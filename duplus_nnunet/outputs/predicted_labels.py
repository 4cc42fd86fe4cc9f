"""Label files that a model predicted: a record beside dataset.json says which, as nobody drew them.

Each is listed with its checksum: one that was corrected by hand since is a prediction no more.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from duplus_nnunet.outputs.files import read_form, write_text
from duplus_nnunet.outputs.manifest import hash_file

RECORD_NAME, VERSION = "predicted_labels.json", 1
_ADVICE = "Restore it: it says which label files a model predicted."


@dataclass(frozen=True)
class PredictedLabels:
    """What one model predicted.

    Attributes:
        model: Name of its folder.
        checkpoints: SHA-256 of its checkpoints, by path within the folder.
        labels: SHA-256 of each label file, by case.
    """

    model: str
    checkpoints: dict[str, str]
    labels: dict[str, str]


@dataclass(frozen=True)
class _Form:
    predictions: list[PredictedLabels] = field(default_factory=list)


def read_predicted(folder: Path) -> list[PredictedLabels]:
    """Read what was predicted in a raw dataset, a model and run each; empty if nothing was.

    Raises:
        DataError: The record cannot be read.
    """
    file = folder / RECORD_NAME
    return read_form(file, _Form, VERSION, _ADVICE).predictions if file.exists() else []


def write_predicted(folder: Path, found: Sequence[PredictedLabels]) -> None:
    """Write the record of a raw dataset."""
    content = {"version": VERSION, **asdict(_Form(list(found)))}
    write_text(folder / RECORD_NAME, json.dumps(content, indent=1) + "\n")


def list_predicted(folder: Path, ending: str) -> dict[str, str]:
    """List the label files of a raw dataset that are predictions and as they were; the model of each, by case."""
    listed: dict[str, str] = {}
    for one in read_predicted(folder):
        listed |= {case: one.model for case, checksum in one.labels.items() if _is(folder, case + ending, checksum)}
    return listed


def _is(folder: Path, name: str, checksum: str) -> bool:
    file = folder / "labelsTr" / name
    return file.is_file() and hash_file(file) == checksum


def describe_predicted(found: Mapping[str, str]) -> str:
    """Say how many label files are predictions, and of which model."""
    models = ", ".join(sorted(set(found.values())))
    return f"{len(found)} label files are predictions ({models}), and were drawn by nobody: see {RECORD_NAME}."
