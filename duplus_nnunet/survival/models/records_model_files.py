"""Writes and reads the folder of a saved records model: JSON and tensors, with a version and checksums."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from duplus_nnunet.errors import DataError, DuplusError, ModelError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.survival.models.combined_predictors import read_predictor, write_predictor
from duplus_nnunet.survival.models.recalibration import Recalibration
from duplus_nnunet.survival.models.records_model import Development, RecordsModel
from duplus_nnunet.survival.models.stored_arrays import join_arrays, split_arrays
from duplus_nnunet.survival.records.encoding import RecordEncoder
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.table_files import read_json

MODEL_NAME, TENSORS_NAME, CARD_NAME = "records_model.json", "records_model.safetensors", "model_card.md"
FORMAT, VERSION = "DuPLUS records model", 1
_ADVICE = "Copy the model folder again from where it was saved, or save the model again: duplus survival fit."
_MOST_TENSOR_BYTES = 4 << 30


def is_records_model(folder: Path) -> bool:
    """Whether a folder holds a saved records model."""
    return (folder / MODEL_NAME).is_file()


def require_new_folder(folder: Path) -> None:
    """Check that a folder holds no model yet.

    Raises:
        DataError: It does, or it is a file.
    """
    if is_records_model(folder):
        raise DataError(f"{folder} already holds a model, {MODEL_NAME}. Choose another folder with -o, or remove it.")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"The output {folder} is a file; expected a folder (-o).")


def write_records_model(model: RecordsModel, card: str, folder: Path) -> list[Path]:
    """Write a model with its card, all or nothing; returns the files.

    Raises:
        DataError: The folder already holds a model, or cannot be written to.
        ModelError: The written model cannot be read again.
    """
    from safetensors.numpy import save

    require_new_folder(folder)
    plain, tensors = split_arrays(_to_plain(model))
    content = {"format": FORMAT, "version": VERSION, **plain}
    names = [MODEL_NAME, *([TENSORS_NAME] if tensors else []), CARD_NAME]
    with open_new_file(folder / MODEL_NAME) as file:
        if tensors:
            data = save(tensors)
            (file.parent / TENSORS_NAME).write_bytes(data)
            content["tensors_sha256"] = hashlib.sha256(data).hexdigest()
        (file.parent / CARD_NAME).write_text(card, encoding="utf-8", newline="\n")
        content["sha256"] = _hash_content(content)
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        file.write_text(text, encoding="utf-8", newline="\n")
        read_records_model(file.parent)
    return [folder / name for name in names]


def read_records_model(folder: Path) -> RecordsModel:
    """Read a saved model.

    Raises:
        ModelError: It is missing, damaged, was changed after it was saved, or is of a later version.
    """
    file = folder / MODEL_NAME
    try:
        content = read_json(file, _ADVICE)
    except DuplusError as error:
        raise ModelError(str(error)) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{file} is not a records model of this package (`format`: {FORMAT!r} is missing). {_ADVICE}")
    if content.get("version") != VERSION:
        raise ModelError(
            f"{file} is a records model of version {content.get('version')!r}; this package reads version {VERSION}. "
            "Install the version of the package that saved it, or a later one."
        )
    if content.get("sha256") != _hash_content(content):
        raise ModelError(
            f"{file} was changed after it was saved, or is damaged: its checksum (`sha256`) differs. {_ADVICE}"
        )
    tensors = _read_tensors(folder, content.get("tensors_sha256"))
    try:
        return _from_plain(join_arrays(content, tensors))
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise ModelError(f"{file} cannot be read ({type(error).__name__}: {error}). {_ADVICE}") from error


def _hash_content(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content without its own checksum, whatever the order and the layout of the file."""
    own = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(own, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _read_tensors(folder: Path, checksum: object) -> dict[str, NDArray[Any]]:
    if checksum is None:
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = folder / TENSORS_NAME
    try:
        if file.stat().st_size > _MOST_TENSOR_BYTES:
            raise ModelError(f"{file} is larger than {_MOST_TENSOR_BYTES >> 30} GiB. {_ADVICE}")
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}, the tensors of {MODEL_NAME}, cannot be read: {error.strerror}. {_ADVICE}") from error
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ModelError(f"{file} is not the file that was saved with {MODEL_NAME}: its checksum differs. {_ADVICE}")
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} cannot be read ({error}). {_ADVICE}") from error


def _to_plain(model: RecordsModel) -> dict[str, Any]:
    development = model.development
    return {
        "method": model.method,
        "schema": model.schema.model_dump(mode="json", exclude_unset=True),
        "encoder": model.encoder.to_plain(),
        "predictor": write_predictor(model.predictor),
        "horizons_days": list(model.horizons),
        "risk_cut": model.cut,
        "development": {
            **vars(development),
            "ranges": {name: list(limits) for name, limits in development.ranges.items()},
            "hashes": sorted(development.hashes),
        },
        "recalibrations": [recalibration.to_plain() for recalibration in model.recalibrations],
        "notes": list(model.notes),
        "evidence": dict(model.evidence),
    }


def _from_plain(plain: Mapping[str, Any]) -> RecordsModel:
    encoder = RecordEncoder.from_plain(plain["encoder"])
    schema = ClinicalSchema.model_validate(plain["schema"])
    if [column.name for column in encoder.columns] != list(schema.covariates):
        raise ModelError("the encoder and the schema have different covariates")
    horizons = tuple(float(horizon) for horizon in plain["horizons_days"])
    if not horizons or not all(0 < horizon < math.inf for horizon in horizons) or list(horizons) != sorted(horizons):
        raise ModelError(f"the horizons are {horizons}")
    cut = plain["risk_cut"]
    return RecordsModel(
        str(plain["method"]),
        schema,
        encoder,
        read_predictor(plain["predictor"], len(encoder.names)),
        horizons,
        None if cut is None else float(np.float64(cut)),
        _read_development(plain["development"]),
        tuple(Recalibration.from_plain(entry) for entry in plain["recalibrations"]),
        tuple(str(note) for note in plain["notes"]),
        dict(plain["evidence"]),
    )


def _read_development(plain: Mapping[str, Any]) -> Development:
    patients, events, competing, parameters = (
        int(plain[name]) for name in ("patients", "events", "competing", "parameters")
    )
    ranges = {str(name): (float(low), float(high)) for name, (low, high) in plain["ranges"].items()}
    follow_up = float(plain["follow_up"])
    if not 0 < follow_up < math.inf:
        raise ModelError(f"the follow-up is {follow_up:g} days")
    salt, hashes = str(plain["salt"]), frozenset(str(one) for one in plain["hashes"])
    return Development(str(plain["name"]), patients, events, competing, parameters, follow_up, ranges, salt, hashes)
