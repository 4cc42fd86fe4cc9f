"""Image features of all cases of a dataset, kept in a file: what was read once is not read again.

In come nnU-Net's preprocessed cases and a reader, out comes a table by patient. A case that cannot be read is reported
and counts as not imaged; the others go on.
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
from duplus_nnunet.networks.adaptation import compute_base_checksum, take_adapter
from duplus_nnunet.networks.pooling import MARGIN
from duplus_nnunet.prompt_registry.dataset_labels import channel_names
from duplus_nnunet.survival.imaging.image_features import FeatureReader, Row, name_features
from duplus_nnunet.survival.records.feature_table import DAMAGE, FeatureTable, read_arrays

FEATURES_NAME = "survival_features.npz"
_VERSION = 1
_ARRAYS = ("key", "cases", "stamps", "lengths", "numbers")


@dataclass(frozen=True)
class ImagedCase:
    """A case whose image is looked at.

    Attributes:
        case: nnU-Net's identifier.
        patient: Who was imaged, as the clinical table calls them.
        context: Of the image.
    """

    case: str
    patient: str
    context: str


@dataclass
class FeatureStore:
    """Rows of numbers in a file.

    Attributes:
        file: Where they are kept.
        key: What they depend on beside the cases; rows of another key are dropped.
        rows: By case, with the stamp of its preprocessed file.
    """

    file: Path
    key: str
    rows: dict[str, tuple[str, Row]] = field(default_factory=dict)

    @classmethod
    def open(cls, file: Path, key: str) -> "FeatureStore":
        """Open a store; a file that is damaged, or of another key, counts as empty."""
        store = cls(file, key)
        try:
            arrays = read_arrays(file, _ARRAYS)
            ends = np.cumsum(arrays["lengths"])
            parts = np.split(arrays["numbers"].astype(np.float32), ends[:-1]) if len(ends) else []
            rows = zip(map(str, arrays["cases"]), map(str, arrays["stamps"]), parts, strict=True)
            found = {case: (stamp, row) for case, stamp, row in rows}
        except DAMAGE:
            return store
        return cls(file, key, found) if str(arrays["key"]) == key else store

    def save(self) -> None:
        """Write all rows, under a temporary name at first."""
        cases = sorted(self.rows)
        new = self.file.with_name(f".{self.file.name}.{os.getpid()}.tmp.npz")
        try:
            np.savez_compressed(
                new,
                key=np.array(self.key, np.str_),
                cases=np.array(cases, np.str_),
                stamps=np.array([self.rows[case][0] for case in cases], np.str_),
                lengths=np.array([len(self.rows[case][1]) for case in cases], np.int64),
                numbers=np.concatenate([np.zeros(0, np.float32), *(self.rows[case][1] for case in cases)]),
            )
            os.replace(new, self.file)
        finally:
            new.unlink(missing_ok=True)


def make_key(reader: FeatureReader) -> str:
    """Return a checksum of all that the numbers of a case depend on beside the case: weights, prompts, settings."""
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
    """Tell a preprocessed case from what it was before, by sizes and times of its files."""
    files = sorted(file for file in Path(folder).iterdir() if file.name.startswith(f"{case}."))
    return " ".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def collect(
    store: FeatureStore, reader: FeatureReader, dataset: Any, images: Sequence[ImagedCase], say: Callable[[str], None]
) -> tuple[FeatureTable, list[str]]:
    """Read the features of all cases that the store does not hold yet.

    Args:
        store: What was read before; it is saved after each case.
        reader: Reads one image.
        dataset: nnU-Net's, of the preprocessed cases.
        images: What to read.
        say: Takes a line for each case that is read.

    Returns:
        The table, and what went wrong, a sentence a case.

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
        except Exception as error:  # whatever is wrong with one case, the others are worth going on
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            notes.append(f"Case {image.case!r} could not be read ({first}); it counts as not imaged.")
            say(f"warning: {notes[-1]}")
            continue
        store.save()
        say(f"features of {image.case} ({number} of {len(images)})")
    there = {image.case for image in images if image.case in store.rows}
    if not there:
        raise DataError(f"Of {len(images)} cases in {folder} none could be read. {notes[0] if notes else ''}")
    return join(reader, [image for image in images if image.case in there], store.rows, store.key), notes


def _load(dataset: Any, case: str) -> torch.Tensor:
    if not make_stamp(dataset.source_folder, case):
        raise DataError("its preprocessed file is not there; preprocess the dataset again")
    return torch.from_numpy(np.array(dataset.load_case(case)[0][:], np.float32))


def join(
    reader: FeatureReader, images: Sequence[ImagedCase], rows: Mapping[str, tuple[str, Row]], key: str = ""
) -> FeatureTable:
    """Make one row a patient: a block of numbers a context; several cases of one context are averaged."""
    used = [context for context in reader.bank.contexts if any(image.context == context for image in images)]
    channels = len(channel_names(reader.host.dataset_json))
    blocks = {name: name_features(name, reader.features, channels, bool(reader.lesions[name])) for name in used}
    patients: dict[str, dict[str, list[Row]]] = {}
    for image in images:
        patients.setdefault(image.patient, {}).setdefault(image.context, []).append(rows[image.case][1])
    table = {
        patient: np.concatenate([
            np.mean(found[name], axis=0, dtype=np.float32) if name in found else np.full(len(blocks[name]), np.nan)
            for name in used
        ]).astype(np.float32)
        for patient, found in patients.items()
    }  # fmt: skip
    columns = [(name, context, kind) for context, block in blocks.items() for name, kind in block]
    names, contexts, kinds = zip(*columns, strict=True)
    return FeatureTable(tuple(names), tuple(contexts), tuple(kinds), table, key)
