"""Numbers that a network and its masks give of patients' images: a table by patient, kept as plain arrays.

In come numbers of each patient, out comes an array (N, I) for the patients asked for; a modality that was not imaged is
NaN in all its columns.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError

KINDS = ("pooled", "lesion", "measure")
_ARRAYS = ("names", "contexts", "kinds", "patients", "numbers")

Numbers32 = NDArray[np.float32]

# What numpy raises of an archive that is cut off, changed, or none at all; RuntimeError: of one bit, it is encrypted.
DAMAGE = (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_arrays(file: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays of an npz file, none of them of Python objects.

    Raises:
        DAMAGE: The file cannot be read, or lacks one that is not optional.
    """
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as found:
        return {name: found[name] for name in (*names, *(name for name in optional if name in found))}


@dataclass(frozen=True)
class FeatureTable:
    """Numbers of patients' images.

    Attributes:
        names: Of the I numbers. Measures are called "<context>: lesion volume" (ml), "<context>: lesion mean" and
            "<context>: lesion max" (intensity), and "<context>: lesion found" (0 or 1).
        contexts: The context that each number is of, (I).
        kinds: Of each number, (I): "pooled" (mean of F_dense), "lesion" (its mean in the lesion) or "measure".
        rows: By patient, (I); NaN where that modality was not imaged.
        key: Of the network and the settings that gave the numbers; "" if nobody wrote it down.

    Raises:
        DataError: Lengths differ, a name stands twice, or a kind is none of KINDS.
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
                f"A table of image features has {count} names ({len(set(self.names))} different ones), "
                f"{len(self.contexts)} contexts and {len(self.kinds)} kinds; expected as many of each."
            )
        strange = sorted(set(self.kinds) - set(KINDS))
        if strange:
            raise DataError(f"A table of image features has the kind {strange[0]!r}; expected {', '.join(KINDS)}.")
        for patient, row in self.rows.items():
            if row.shape != (count,):
                raise DataError(f"Patient {patient!r} has image features of shape {row.shape}; expected ({count},).")

    def take(self, patients: Sequence[str]) -> Numbers32:
        """Return the numbers of some patients, (N, I); those without any image have NaN in all columns."""
        absent = np.full(len(self.names), np.nan, np.float32)
        found = [self.rows.get(patient, absent) for patient in patients]
        return np.array(found, np.float32).reshape(len(patients), len(self.names))

    def select(self, kinds: Collection[str] | None = None, contexts: Collection[str] | None = None) -> "FeatureTable":
        """Keep the numbers of some kinds and contexts, in their order; None keeps all."""
        places = [
            place
            for place, (kind, context) in enumerate(zip(self.kinds, self.contexts, strict=True))
            if (kinds is None or kind in kinds) and (contexts is None or context in contexts)
        ]
        return self._keep(places)

    def choose(self, names: Collection[str]) -> "FeatureTable":
        """Keep the numbers of some names, in their order."""
        return self._keep([place for place, name in enumerate(self.names) if name in names])

    def _keep(self, places: list[int]) -> "FeatureTable":
        names, contexts, kinds = (
            tuple(words[place] for place in places) for words in (self.names, self.contexts, self.kinds)
        )
        rows = {patient: row[places] for patient, row in self.rows.items()}
        return FeatureTable(names, contexts, kinds, rows, self.key)

    def to_npz(self, file: Path) -> None:
        """Write plain arrays, under a temporary name at first, so that a file is whole or not there."""
        patients = sorted(self.rows)
        new = file.with_name(f".{file.name}.{os.getpid()}.tmp.npz")
        try:
            np.savez_compressed(
                new,
                names=np.array(self.names, np.str_),
                contexts=np.array(self.contexts, np.str_),
                kinds=np.array(self.kinds, np.str_),
                patients=np.array(patients, np.str_),
                numbers=self.take(patients),
                key=np.array(self.key, np.str_),
            )
            os.replace(new, file)
        finally:
            new.unlink(missing_ok=True)

    @classmethod
    def from_npz(cls, file: Path) -> "FeatureTable":
        """Read what `to_npz` wrote.

        Raises:
            DataError: The file cannot be read, or is of another kind.
        """
        try:
            arrays = read_arrays(file, _ARRAYS, optional=("key",))
        except DAMAGE as error:
            raise DataError(
                f"{file} holds no image features that can be read ({error}). Remove it, so that they are made again."
            ) from error
        names, contexts, kinds, patients = (tuple(map(str, arrays[name])) for name in _ARRAYS[:4])
        numbers = arrays["numbers"].astype(np.float32)
        if len(numbers) != len(patients):
            raise DataError(f"{file} holds {len(patients)} patients but {len(numbers)} rows. Remove it.")
        rows = dict(zip(patients, numbers, strict=True))
        return cls(names, contexts, kinds, rows, str(arrays.get("key", "")))
