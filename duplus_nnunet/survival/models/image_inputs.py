"""Encodes image features (N, I) as network inputs (N, M); the encoding is fitted on training patients only.

The pooled features of a modality are reduced to few principal components, which together have the variance of one
measure: a small cohort cannot support thousands of features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.records.feature_table import FeatureTable, Numbers32
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.table import join_names

LESION_VOLUME, LESION_FOUND = "lesion volume", "lesion found"
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class ImageCode:
    """A fitted encoding of image features.

    Attributes:
        names: Names of the I features.
        contexts: Modality of each feature, (I).
        mean: Mean of each feature in training, (I), after log-transforming volumes.
        scale: Standard deviation of each feature in training, (I); 0 for constant ones, encoded as the mean.
        weights: Matrix from standardised features to inputs, (I, M).
        owners: Index of the modality of each input, int64 (M).
    """

    names: tuple[str, ...]
    contexts: tuple[str, ...]
    mean: torch.Tensor
    scale: torch.Tensor
    weights: torch.Tensor
    owners: torch.Tensor

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the C modalities, in order."""
        return tuple(dict.fromkeys(self.contexts))

    def encode(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode features (N, I), NaN where missing, as inputs (N, M) and the presence of modalities, bool (N, C).

        Missing features are encoded as the mean. The result is differentiable with respect to the features.
        """
        known = ~numbers.isnan()
        is_volume = torch.tensor([name.endswith(LESION_VOLUME) for name in self.names], dtype=torch.bool)
        # NaN is replaced first, so that its gradient is 0 instead of NaN.
        safe = torch.where(known, numbers, 0.0)
        safe = torch.where(is_volume, safe.clamp(min=0).log1p(), safe)
        standard = torch.where(known & (self.scale > 0), (safe - self.mean) / self.scale.clamp(min=_LEAST_SPREAD), 0.0)
        present = [known[:, [context == name for context in self.contexts]].any(1) for name in self.modalities]
        stacked = torch.stack(present, 1) if present else torch.zeros(len(numbers), 0, dtype=torch.bool)
        return standard @ self.weights, stacked

    def align(self, table: FeatureTable | None, patients: list[str]) -> tuple[Numbers32, list[str]]:
        """Return the features of some patients in the fitted order, (N, I), NaN where missing, and notes."""
        numbers = np.full((len(patients), len(self.names)), np.nan, np.float32)
        if table is None or not patients:
            return numbers, []
        columns = {name: column for column, name in enumerate(table.names)}
        available = table.take(patients)
        shared = [column for column, name in enumerate(self.names) if name in columns]
        numbers[:, shared] = available[:, [columns[self.names[column]] for column in shared]]
        return numbers, self._list_notes(table, numbers)

    def _list_notes(self, table: FeatureTable, numbers: Numbers32) -> list[str]:
        notes = []
        for modality in self.modalities:
            own = [column for column, name in enumerate(self.contexts) if name == modality]
            absent = [self.names[column] for column in own if self.names[column] not in set(table.names)]
            if len(absent) == len(own):
                notes.append(f"The model was trained with {modality!r}, which is missing in all patients.")
            elif absent:
                notes.append(f"{modality!r} lacks {len(absent)} image feature(s), such as {absent[0]!r}.")
            without = int(np.isnan(numbers[:, own]).all(1).sum())
            if without and len(absent) < len(own):
                notes.append(f"{modality!r} is missing in {without} of {len(numbers)} patient(s).")
            notes += _count_without_lesion(self.names, numbers, modality)
        unused = sorted(set(table.contexts) - set(self.contexts))
        if unused:
            listed = join_names([*map(repr, unused)])
            notes.append(f"The model was trained without these images, and does not use them: {listed}.")
        return notes

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and tensors that can be stored."""
        tensors = {name: getattr(self, name) for name in ("mean", "scale", "weights", "owners")}
        return {"names": list(self.names), "contexts": list(self.contexts), **tensors}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "ImageCode":
        """Restore an encoding from the result of `to_plain`.

        Raises:
            ModelError: The stored data are invalid.
        """
        try:
            tensors = [plain[name].clone() for name in ("mean", "scale", "weights", "owners")]
            return cls(tuple(plain["names"]), tuple(plain["contexts"]), *tensors)
        except (AttributeError, KeyError, TypeError) as error:
            raise ModelError(f"A stored encoding of images cannot be read ({error!r}). Fit the model again.") from error


def fit_image_code(table: FeatureTable, patients: list[str], components: int | None) -> tuple[ImageCode, list[str]]:
    """Fit the encoding on training patients.

    Args:
        table: Image features; only those of the given patients are used.
        patients: Training patients only.
        components: Largest number of principal components of a modality's pooled features; None: the features are
            standardised only.

    Returns:
        The fitted encoding, and notes for the reader.
    """
    raw = table.take(patients).astype(np.float64)
    is_volume = np.array([name.endswith(LESION_VOLUME) for name in table.names], bool)
    raw[:, is_volume] = np.log1p(np.maximum(raw[:, is_volume], 0))
    mean, scale = _measure_columns(raw)
    standard = np.where(np.isnan(raw) | (scale == 0), 0.0, (raw - mean) / np.where(scale == 0, 1.0, scale))
    modalities = list(dict.fromkeys(table.contexts))
    parts: list[Numbers] = []
    owners: list[int] = []
    for index, modality in enumerate(modalities):
        own = np.array([name == modality for name in table.contexts], bool)
        kept = own & (scale > 0) & np.array([components is None or kind == "measure" for kind in table.kinds], bool)
        imaged = ~np.isnan(raw[:, own]).all(1)
        reduced = _principal_components(standard[imaged], own & ~kept & (scale > 0), components or 0)
        parts += [np.eye(len(own))[:, kept], reduced]
        owners += [index] * (int(kept.sum()) + reduced.shape[1])
    weights = np.concatenate([np.zeros((len(scale), 0)), *parts], axis=1)
    tensors = [torch.from_numpy(array.astype(np.float64)) for array in (mean, scale, weights)]
    columns = torch.tensor(owners, dtype=torch.int64)
    code = ImageCode(table.names, table.contexts, tensors[0], tensors[1], tensors[2], columns)
    return code, _note_missing_lesions(table, raw)


def _note_missing_lesions(table: FeatureTable, raw: Numbers) -> list[str]:
    """Note the modalities in which no training patient has a lesion."""
    notes = []
    for column, (name, context) in enumerate(zip(table.names, table.contexts, strict=True)):
        known = raw[~np.isnan(raw[:, column]), column]
        if name == f"{context}: {LESION_FOUND}" and len(known) and not known.any():
            notes.append(
                f"In {context!r} no lesion was found in any training patient: its lesion measures carry no information."
            )
    return notes


def _count_without_lesion(names: tuple[str, ...], numbers: Numbers32, modality: str) -> list[str]:
    """Note in how many patients with a modality no lesion was found in it, if in any."""
    name = f"{modality}: {LESION_FOUND}"
    if name not in names:
        return []
    marks = numbers[:, names.index(name)]
    imaged, without = int((~np.isnan(marks)).sum()), int((marks == 0).sum())
    return [f"In {without} of {imaged} patient(s) with {modality!r} no lesion was found."] if without else []


def _measure_columns(raw: Numbers) -> tuple[Numbers, Numbers]:
    """Return the mean and standard deviation of each column's known values; both 0 where there are none."""
    known = ~np.isnan(raw)
    counts = np.maximum(known.sum(0), 1)
    mean = np.where(known, raw, 0.0).sum(0) / counts
    scale = np.sqrt((np.where(known, raw - mean, 0.0) ** 2).sum(0) / counts)
    return mean, np.where(scale > _LEAST_SPREAD * np.maximum(1.0, np.abs(mean)), scale, 0.0)


def _principal_components(standard: Numbers, columns: np.ndarray[Any, np.dtype[np.bool_]], count: int) -> Numbers:
    """Return weights, (I, k), of the first principal components of some columns, with a total variance of 1."""
    empty = np.zeros((len(columns), 0))
    if count < 1 or len(standard) < 2 or not columns.any():
        return empty
    centred = standard[:, columns]
    _, values, directions = np.linalg.svd(centred - centred.mean(0), full_matrices=False)
    rank = min(count, len(standard) - 1, int((values > values[0] * _LEAST_SPREAD).sum()))
    if rank < 1 or values[0] <= 0:
        return empty
    # The sign of a component is arbitrary; its largest weight is made positive, for reproducibility.
    kept = directions[:rank]
    kept *= np.sign(kept[np.arange(rank), np.abs(kept).argmax(1)])[:, None]
    weights = np.zeros((len(columns), rank))
    weights[columns] = kept.T / np.sqrt((values[:rank] ** 2).sum() / len(standard))
    return weights
