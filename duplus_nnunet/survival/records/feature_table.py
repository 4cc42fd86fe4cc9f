"""Holds the image features of patients, (N, I), and stores them as npz; missing modalities are NaN."""

import io
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file

KINDS = ("pooled", "lesion", "measure")
_ARRAYS = ("names", "contexts", "kinds", "patients", "numbers")

Numbers32 = NDArray[np.float32]

# Raised by numpy for a file that is truncated, changed, or not an archive; RuntimeError if it appears to be encrypted.
READ_ERRORS = (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_arrays(file: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays of an npz file, without pickled objects.

    Raises:
        READ_ERRORS: The file cannot be read, or a required array is missing.
    """
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as archive:
        return {name: archive[name] for name in (*names, *(name for name in optional if name in archive))}


@dataclass(frozen=True)
class FeatureTable:
    """Image features by patient.

    Attributes:
        names: Names of the I features. Measures are called "<context>: lesion volume" (ml), "<context>: lesion mean"
            and "<context>: lesion max" (intensity), and "<context>: lesion found" (0 or 1).
        contexts: Context of each feature, (I).
        kinds: Kind of each feature, (I): "pooled" (mean of F_dense), "lesion" (its mean in the lesion) or "measure".
        rows: Features by patient, (I); NaN where the modality is missing.
        key: Identifies the network and the settings that computed the features; "" if unknown.

    Raises:
        DataError: The lengths differ, a name is repeated, or a kind is not one of KINDS.
    """

    names: tuple[str, ...]
    contexts: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: Mapping[str, Numbers32]
    key: str = ""

    def __post_init__(self) -> None:
        count = len(self.names)
        if {len(self.contexts), len(self.kinds), len(set(self.names))} != {count}:
            raise DataError(
                f"A table of image features has {count} names ({len(set(self.names))} different), {len(self.contexts)} "
                f"contexts and {len(self.kinds)} kinds; expected equal numbers, and names without repetition."
            )
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown:
            raise DataError(f"A table of image features has the kind {unknown[0]!r}; expected {', '.join(KINDS)}.")
        for patient, row in self.rows.items():
            if row.shape != (count,):
                raise DataError(f"Patient {patient!r} has image features of shape {row.shape}; expected ({count},).")

    def take(self, patients: Sequence[str]) -> Numbers32:
        """Return the features of some patients, (N, I); a patient without images has NaN in all columns."""
        absent = np.full(len(self.names), np.nan, np.float32)
        rows = [self.rows.get(patient, absent) for patient in patients]
        return np.array(rows, np.float32).reshape(len(patients), len(self.names))

    def select(self, kinds: Collection[str] | None = None, contexts: Collection[str] | None = None) -> "FeatureTable":
        """Keep the features of some kinds and contexts, in their order; None keeps all."""
        columns = [
            column
            for column, (kind, context) in enumerate(zip(self.kinds, self.contexts, strict=True))
            if (kinds is None or kind in kinds) and (contexts is None or context in contexts)
        ]
        return self._keep(columns)

    def choose(self, names: Collection[str]) -> "FeatureTable":
        """Keep the features of some names, in their order."""
        return self._keep([column for column, name in enumerate(self.names) if name in names])

    def _keep(self, columns: list[int]) -> "FeatureTable":
        names, contexts, kinds = (
            tuple(labels[column] for column in columns) for labels in (self.names, self.contexts, self.kinds)
        )
        rows = {patient: row[columns] for patient, row in self.rows.items()}
        return FeatureTable(names, contexts, kinds, rows, self.key)

    def to_npz(self, file: Path) -> None:
        """Write plain arrays, atomically."""
        patients = sorted(self.rows)
        with open_new_file(file) as new, new.open("wb") as stream:
            np.savez_compressed(
                stream,
                names=np.array(self.names, np.str_),
                contexts=np.array(self.contexts, np.str_),
                kinds=np.array(self.kinds, np.str_),
                patients=np.array(patients, np.str_),
                numbers=self.take(patients),
                key=np.array(self.key, np.str_),
            )

    @classmethod
    def from_npz(cls, file: Path) -> "FeatureTable":
        """Read a file written by `to_npz`.

        Raises:
            DataError: The file cannot be read, or has other content.
        """
        try:
            arrays = read_arrays(file, _ARRAYS, optional=("key",))
        except READ_ERRORS as error:
            raise DataError(
                f"The image features in {file} cannot be read ({error}). Remove the file; they are computed again."
            ) from error
        names, contexts, kinds, patients = (tuple(map(str, arrays[name])) for name in _ARRAYS[:4])
        numbers = arrays["numbers"].astype(np.float32)
        if len(numbers) != len(patients):
            raise DataError(
                f"{file} has {len(patients)} patients but {len(numbers)} rows. Remove the file; its features are "
                "computed again."
            )
        rows = dict(zip(patients, numbers, strict=True))
        return cls(names, contexts, kinds, rows, str(arrays.get("key", "")))
