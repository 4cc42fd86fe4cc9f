"""Records which label files of a raw dataset were predicted by a model rather than annotated.

The record stands beside dataset.json and lists each file with its checksum: a file that was corrected manually since
no longer counts as predicted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from duplus_nnunet.files import read_form, write_text
from duplus_nnunet.outputs.manifest import hash_file

RECORD_NAME, VERSION = "predicted_labels.json", 1
_ADVICE = "Restore it: it lists the label files that a model predicted."


@dataclass(frozen=True)
class PredictedLabels:
    """The label files predicted by one model.

    Attributes:
        model: Name of the model folder.
        checkpoints: SHA-256 of its checkpoints, by path within the model folder.
        labels: SHA-256 of each label file, by case.
    """

    model: str
    checkpoints: dict[str, str]
    labels: dict[str, str]


@dataclass(frozen=True)
class _Form:
    predictions: list[PredictedLabels] = field(default_factory=list)


def read_predicted(folder: Path) -> list[PredictedLabels]:
    """Read the predicted labels of a raw dataset, one entry per model and run; empty if there are none.

    Raises:
        DataError: The record cannot be read.
    """
    file = folder / RECORD_NAME
    return read_form(file, _Form, VERSION, _ADVICE).predictions if file.exists() else []


def write_predicted(folder: Path, predictions: Sequence[PredictedLabels]) -> None:
    """Write the record of predicted labels of a raw dataset."""
    content = {"version": VERSION, **asdict(_Form(list(predictions)))}
    write_text(folder / RECORD_NAME, json.dumps(content, indent=1) + "\n")


def list_predicted(folder: Path, ending: str) -> dict[str, str]:
    """Map each case of a raw dataset whose label file is an unchanged prediction to the name of the model."""
    models: dict[str, str] = {}
    for predicted in read_predicted(folder):
        models |= {
            case: predicted.model
            for case, checksum in predicted.labels.items()
            if _is_unchanged(folder, case + ending, checksum)
        }
    return models


def _is_unchanged(folder: Path, name: str, checksum: str) -> bool:
    file = folder / "labelsTr" / name
    return file.is_file() and hash_file(file) == checksum


def describe_predicted(models: Mapping[str, str]) -> str:
    """Describe how many label files are predictions, and by which models; `models` as from `list_predicted`."""
    names = ", ".join(sorted(set(models.values())))
    return f"{len(models)} label files were predicted ({names}), not annotated manually: see {RECORD_NAME}."
