"""Writes the example: the shipped model, one image a contrast with its true label map, and a table of contexts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.data.phantom import save_volume
from duplus_nnunet.errors import DataError, DuplusError, ModelError
from duplus_nnunet.example.packing import unpack_model
from duplus_nnunet.example.sources import EXAMPLE_SOURCES, make_unseen_body
from duplus_nnunet.files import open_new_file, read_form, write_text

FILES = Path(__file__).parent / "files"
MODEL_FILE, RECORD_FILE = FILES / "model.zip", FILES / "record.json"
# Version of the form of record.json.
VERSION = 1

# The body in the images: the first after those on which the record's scores were measured.
SHOWN_BODY = 5

_MARK = "example.json"


@dataclass(frozen=True)
class Record:
    """What is known of the shipped model.

    Attributes:
        sha256: Checksum of the packed model.
        seed: Seed of bodies and training.
        training: Numbers of bodies, epochs and iterations.
        bodies: Number of unseen bodies that the scores are means over, each in all contrasts.
        dice: Mean Dice, 0 to 1, of each target by context.
        wrong_context: The same with the context prompt of the next contrast, which the normalisation follows.
    """

    sha256: str
    seed: int
    training: Mapping[str, int]
    bodies: int
    dice: Mapping[str, Mapping[str, float]]
    wrong_context: Mapping[str, Mapping[str, float]]


def read_record(file: Path = RECORD_FILE) -> Record:
    """Read what is known of the shipped model.

    Raises:
        DataError: The file is damaged.
    """
    return read_form(file, Record, VERSION, "Install the package again.")


def write_example(folder: Path, overwrite: bool = False) -> None:
    """Write the example into a folder, each file atomically, the mark that it is an example last.

    Args:
        folder: A new or empty folder, or one of an earlier example.
        overwrite: Whether files of the same names are replaced in any folder; other files are never touched.

    Raises:
        DataError: The folder has other files, or cannot be written to.
        ModelError: The shipped model is damaged.
    """
    record = read_record()
    require_free(folder, record, overwrite)
    _require_undamaged(record)
    unpack_model(MODEL_FILE, folder / "model")
    contexts = {}
    for source in EXAMPLE_SOURCES:
        case = source.name.casefold()
        body = make_unseen_body(source, SHOWN_BODY, record.seed)
        for values, name in ((body.image, f"images/{case}_0000.nii.gz"), (body.labels, f"labels/{case}.nii.gz")):
            with open_new_file(folder / name) as new:
                save_volume(values, body.affine, new)
        contexts[case] = source.context
    write_text(folder / "contexts.json", json.dumps(contexts, indent=1) + "\n")
    write_text(folder / _MARK, json.dumps({"sha256": record.sha256}, indent=1) + "\n")


def require_free(folder: Path, record: Record, overwrite: bool) -> None:
    """Check that a folder may be written to.

    Raises:
        DataError: It is a file, or it has files and is not an example of the shipped model.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; expected a new folder. Name another one with -o.")
    if overwrite or not folder.is_dir() or not any(folder.iterdir()):
        return
    if _read_mark(folder) != record.sha256:
        raise DataError(
            f"{folder} has files that are not those of this version's example. Name a new or empty folder with -o, or "
            "replace files of the same names with --overwrite."
        )


def hash_model() -> str:
    """Compute the SHA-256 of the shipped model."""
    return hashlib.sha256(MODEL_FILE.read_bytes()).hexdigest()


def _read_mark(folder: Path) -> Any:
    from duplus_nnunet.text_files import load_json

    try:
        content = load_json(folder / _MARK)
    except (OSError, DuplusError, ValueError):
        return None
    return content.get("sha256") if isinstance(content, Mapping) else None


def _require_undamaged(record: Record) -> None:
    if not MODEL_FILE.is_file():
        raise ModelError(f"There is no {MODEL_FILE}. Install the package again.")
    if (found := hash_model()) != record.sha256:
        raise ModelError(
            f"{MODEL_FILE} has the checksum {found}; expected {record.sha256}. It was damaged or changed. Install the "
            "package again."
        )
