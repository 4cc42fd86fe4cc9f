"""Computes the image features of all cases of a dataset and caches them in a file.

A case that cannot be read is reported and treated as missing; it does not stop the others.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.networks.adaptation import compute_base_checksum, take_adapter
from duplus_nnunet.networks.pooling import MARGIN
from duplus_nnunet.prompt_registry.dataset_labels import channel_names
from duplus_nnunet.survival.imaging.image_features import FeatureReader, Row, name_features
from duplus_nnunet.survival.records.feature_table import READ_ERRORS, FeatureTable, read_arrays

FEATURES_NAME = "survival_features.npz"
_VERSION = 1
_ARRAYS = ("key", "cases", "stamps", "lengths", "numbers")


@dataclass(frozen=True)
class ImagedCase:
    """A case with an image.

    Attributes:
        case: nnU-Net's case identifier.
        patient: Patient ID in the clinical table.
        context: Context of the image.
    """

    case: str
    patient: str
    context: str


@dataclass
class FeatureStore:
    """Cache of image features in a file.

    Attributes:
        file: The file.
        key: Checksum of all that the features depend on except the cases; rows with another key are discarded.
        rows: Stamp of the preprocessed case and features, by case.
    """

    file: Path
    key: str
    rows: dict[str, tuple[str, Row]] = field(default_factory=dict)

    @classmethod
    def open(cls, file: Path, key: str) -> "FeatureStore":
        """Open a store; a file that is damaged or has another key is treated as empty."""
        store = cls(file, key)
        try:
            arrays = read_arrays(file, _ARRAYS)
            ends = np.cumsum(arrays["lengths"])
            parts = np.split(arrays["numbers"].astype(np.float32), ends[:-1]) if len(ends) else []
            rows = zip(map(str, arrays["cases"]), map(str, arrays["stamps"]), parts, strict=True)
            stored = {case: (stamp, row) for case, stamp, row in rows}
        except READ_ERRORS:
            return store
        return cls(file, key, stored) if str(arrays["key"]) == key else store

    def save(self) -> None:
        """Write all rows atomically."""
        cases = sorted(self.rows)
        with open_new_file(self.file) as new, new.open("wb") as stream:
            np.savez_compressed(
                stream,
                key=np.array(self.key, np.str_),
                cases=np.array(cases, np.str_),
                stamps=np.array([self.rows[case][0] for case in cases], np.str_),
                lengths=np.array([len(self.rows[case][1]) for case in cases], np.int64),
                numbers=np.concatenate([np.zeros(0, np.float32), *(self.rows[case][1] for case in cases)]),
            )


def make_key(reader: FeatureReader) -> str:
    """Return a checksum of all that the features depend on except the case: weights, prompts and settings."""
    weights = reader.network.state_dict()
    digest = hashlib.sha256(f"{_VERSION} {MARGIN} {compute_base_checksum(weights)}".encode())
    if reader.adapter:
        for name, value in sorted(take_adapter(weights, reader.adapter).items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(f"{reader.host.configuration.patch_size} {reader.network.cpu_bfloat16}".encode())
    for context, lesions in reader.lesions.items():
        prompts = reader.bank.draw(context)
        digest.update(f"{context} {lesions} {reader.spacing(context)}".encode())
        for part in (prompts.context, prompts.targets):
            digest.update(part.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_stamp(folder: str | os.PathLike[str], case: str) -> str:
    """Return sizes and modification times of the files of a preprocessed case; empty if there are none."""
    files = sorted(file for file in Path(folder).iterdir() if file.name.startswith(f"{case}."))
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def collect(
    store: FeatureStore, reader: FeatureReader, dataset: Any, images: Sequence[ImagedCase], log: Callable[[str], None]
) -> tuple[FeatureTable, list[str]]:
    """Compute the features of all cases that are not in the store.

    Args:
        store: Cached features; saved after each case.
        reader: Computes the features of one image.
        dataset: nnU-Net's dataset of the preprocessed cases.
        images: Cases to read.
        log: Called with a line for each case that is read.

    Returns:
        The features by patient, and a sentence for each case that could not be read.

    Raises:
        DataError: No case could be read.
    """
    notes, folder = [], dataset.source_folder
    for number, image in enumerate(images, 1):
        stamp = make_stamp(folder, image.case)
        if stamp and store.rows.get(image.case, ("", None))[0] == stamp:
            continue
        store.rows.pop(image.case, None)
        try:
            store.rows[image.case] = (stamp, reader.read(_load(dataset, image.case), image.context))
        except Exception as error:  # a failure of one case must not stop the others
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            notes.append(f"Case {image.case!r} could not be read ({reason}); its image is treated as missing.")
            log(f"warning: {notes[-1]}")
            continue
        store.save()
        log(f"features of {image.case} ({number} of {len(images)})")
    available = {image.case for image in images if image.case in store.rows}
    if not available:
        raise DataError(f"None of the {len(images)} cases in {folder} could be read. {notes[0] if notes else ''}")
    return join(reader, [image for image in images if image.case in available], store.rows, store.key), notes


def _load(dataset: Any, case: str) -> torch.Tensor:
    if not make_stamp(dataset.source_folder, case):
        raise DataError("its preprocessed file is missing; preprocess the dataset again")
    return torch.from_numpy(np.array(dataset.load_case(case)[0][:], np.float32))


def join(
    reader: FeatureReader, images: Sequence[ImagedCase], rows: Mapping[str, tuple[str, Row]], key: str = ""
) -> FeatureTable:
    """Return one row for each patient, a block of features for each context; cases of the same context are averaged."""
    used = [context for context in reader.bank.contexts if any(image.context == context for image in images)]
    channels = len(channel_names(reader.host.dataset_json))
    blocks = {name: name_features(name, reader.features, channels, bool(reader.lesions[name])) for name in used}
    patients: dict[str, dict[str, list[Row]]] = {}
    for image in images:
        patients.setdefault(image.patient, {}).setdefault(image.context, []).append(rows[image.case][1])
    table = {
        patient: np.concatenate([
            np.mean(own[name], axis=0, dtype=np.float32) if name in own else np.full(len(blocks[name]), np.nan)
            for name in used
        ]).astype(np.float32)
        for patient, own in patients.items()
    }  # fmt: skip
    columns = [(name, context, kind) for context, block in blocks.items() for name, kind in block]
    names, contexts, kinds = zip(*columns, strict=True)
    return FeatureTable(tuple(names), tuple(contexts), tuple(kinds), table, key)
