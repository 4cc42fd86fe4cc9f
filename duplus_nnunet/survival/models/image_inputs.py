"""Image features as inputs of a network: fitted on training patients, and on nobody else.

In come numbers of N patients, (N, I) with NaN where a modality was not imaged; out come inputs (N, M), and which of the
C modalities each patient has, (N, C). A modality's thousands of pooled numbers become few principal components, which
together weigh as much as one measure: a small cohort can tell volumes apart, but not a thousand channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.records.feature_table import FeatureTable, Numbers32
from duplus_nnunet.survival.records.outcome import Numbers

LESION_VOLUME, LESION_FOUND = "lesion volume", "lesion found"
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class ImageCode:
    """How image features become inputs.

    Attributes:
        names: Of the I numbers that it knows.
        contexts: The modality of each number, (I).
        mean: Of the training patients' numbers, (I), after the logarithm of volumes.
        scale: Their standard deviation, (I); 0 where they do not differ, so that they count as the mean.
        weights: From standardised numbers to inputs, (I, M).
        owners: Place of the modality that each input is of, int64 (M).
    """

    names: tuple[str, ...]
    contexts: tuple[str, ...]
    mean: torch.Tensor
    scale: torch.Tensor
    weights: torch.Tensor
    owners: torch.Tensor

    @property
    def modalities(self) -> tuple[str, ...]:
        """The C contexts, in order."""
        return tuple(dict.fromkeys(self.contexts))

    def encode(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn numbers (N, I), NaN where unknown, into inputs (N, M) and what is there, bool (N, C).

        Differentiable with respect to the numbers. What is unknown of an image counts as the mean.
        """
        known = ~numbers.isnan()
        logs = torch.tensor([name.endswith(LESION_VOLUME) for name in self.names], dtype=torch.bool)
        # What is not there is replaced before anything is computed of it, so that its gradient is 0 and not NaN.
        safe = torch.where(known, numbers, 0.0)
        safe = torch.where(logs, safe.clamp(min=0).log1p(), safe)
        standard = torch.where(known & (self.scale > 0), (safe - self.mean) / self.scale.clamp(min=_LEAST_SPREAD), 0.0)
        there = [known[:, [own == name for own in self.contexts]].any(1) for name in self.modalities]
        seen = torch.stack(there, 1) if there else torch.zeros(len(numbers), 0, dtype=torch.bool)
        return standard @ self.weights, seen

    def align(self, table: FeatureTable | None, patients: list[str]) -> tuple[Numbers32, list[str]]:
        """Return the numbers that it knows, (N, I), of some patients, and what a reader has to know."""
        found = np.full((len(patients), len(self.names)), np.nan, np.float32)
        if table is None or not patients:
            return found, []
        places = {name: place for place, name in enumerate(table.names)}
        given = table.take(patients)
        shared = [place for place, name in enumerate(self.names) if name in places]
        found[:, shared] = given[:, [places[self.names[place]] for place in shared]]
        return found, self._list_notes(table, found)

    def _list_notes(self, table: FeatureTable, found: Numbers32) -> list[str]:
        notes = []
        for modality in self.modalities:
            own = [place for place, name in enumerate(self.contexts) if name == modality]
            absent = [self.names[place] for place in own if self.names[place] not in set(table.names)]
            if len(absent) == len(own):
                notes.append(f"{modality!r} was trained with, but is not among the images; it counts as missing.")
            elif absent:
                notes.append(f"{modality!r} lacks {len(absent)} image feature(s), such as {absent[0]!r}.")
            without = int(np.isnan(found[:, own]).all(1).sum())
            if without and len(absent) < len(own):
                notes.append(f"{modality!r} is missing in {without} of {len(found)} patient(s).")
            notes += _count_without_lesion(self.names, found, modality)
        strange = sorted(set(table.contexts) - set(self.contexts))
        if strange:
            notes.append(f"Images of {', '.join(map(repr, strange))} were not trained with, and are not used.")
        return notes

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and tensors."""
        tensors = {name: getattr(self, name) for name in ("mean", "scale", "weights", "owners")}
        return {"names": list(self.names), "contexts": list(self.contexts), **tensors}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "ImageCode":
        """Read what `to_plain` gave.

        Raises:
            ModelError: It is not of that form.
        """
        try:
            tensors = [plain[name].clone() for name in ("mean", "scale", "weights", "owners")]
            return cls(tuple(plain["names"]), tuple(plain["contexts"]), *tensors)
        except (AttributeError, KeyError, TypeError) as error:
            raise ModelError(f"Stored image features cannot be read ({error!r}). Fit the model again.") from error


def fit_image_code(table: FeatureTable, patients: list[str], components: int | None) -> tuple[ImageCode, list[str]]:
    """Fit on training patients.

    Args:
        table: Numbers of images; only those of the patients named are looked at.
        patients: Those of a training fold, and no others.
        components: Number of principal components of a modality's pooled numbers, at most; None: the numbers stay as
            they are, standardised.

    Returns:
        The code, and what a reader has to know.
    """
    raw = table.take(patients).astype(np.float64)
    logs = np.array([name.endswith(LESION_VOLUME) for name in table.names], bool)
    raw[:, logs] = np.log1p(np.maximum(raw[:, logs], 0))
    mean, scale = _measure_columns(raw)
    standard = np.where(np.isnan(raw) | (scale == 0), 0.0, (raw - mean) / np.where(scale == 0, 1.0, scale))
    modalities = list(dict.fromkeys(table.contexts))
    parts: list[Numbers] = []
    owners: list[int] = []
    for place, modality in enumerate(modalities):
        own = np.array([name == modality for name in table.contexts], bool)
        kept = own & (scale > 0) & np.array([components is None or kind == "measure" for kind in table.kinds], bool)
        imaged = ~np.isnan(raw[:, own]).all(1)
        found = _find_components(standard[imaged], own & ~kept & (scale > 0), components or 0)
        parts += [np.eye(len(own))[:, kept], found]
        owners += [place] * (int(kept.sum()) + found.shape[1])
    joined = np.concatenate([np.zeros((len(scale), 0)), *parts], axis=1)
    tensors = [torch.from_numpy(part.astype(np.float64)) for part in (mean, scale, joined)]
    places = torch.tensor(owners, dtype=torch.int64)
    code = ImageCode(table.names, table.contexts, tensors[0], tensors[1], tensors[2], places)
    return code, _note_missing_lesions(table, raw)


def _note_missing_lesions(table: FeatureTable, raw: Numbers) -> list[str]:
    """Say in which modalities no lesion was found in any training patient."""
    notes = []
    for place, (name, context) in enumerate(zip(table.names, table.contexts, strict=True)):
        known = raw[~np.isnan(raw[:, place]), place]
        if name == f"{context}: {LESION_FOUND}" and len(known) and not known.any():
            notes.append(f"In {context!r} no lesion was found in any training patient: its measures tell nothing.")
    return notes


def _count_without_lesion(names: tuple[str, ...], numbers: Numbers32, modality: str) -> list[str]:
    """Say in how many patients with a modality no lesion was found there, if in any."""
    name = f"{modality}: {LESION_FOUND}"
    if name not in names:
        return []
    marks = numbers[:, names.index(name)]
    imaged, without = int((~np.isnan(marks)).sum()), int((marks == 0).sum())
    return [f"In {without} of {imaged} patient(s) with {modality!r} no lesion was found."] if without else []


def _measure_columns(raw: Numbers) -> tuple[Numbers, Numbers]:
    """Return mean and standard deviation of each column's known numbers; 0 and 0 where there are none."""
    known = ~np.isnan(raw)
    counts = np.maximum(known.sum(0), 1)
    mean = np.where(known, raw, 0.0).sum(0) / counts
    scale = np.sqrt((np.where(known, raw - mean, 0.0) ** 2).sum(0) / counts)
    return mean, np.where(scale > _LEAST_SPREAD * np.maximum(1.0, np.abs(mean)), scale, 0.0)


def _find_components(standard: Numbers, columns: np.ndarray[Any, np.dtype[np.bool_]], count: int) -> Numbers:
    """Find the first principal components of some columns, scaled so that all together have variance 1, (I, k)."""
    found = np.zeros((len(columns), 0))
    if count < 1 or len(standard) < 2 or not columns.any():
        return found
    centred = standard[:, columns]
    _, values, directions = np.linalg.svd(centred - centred.mean(0), full_matrices=False)
    rank = min(count, len(standard) - 1, int((values > values[0] * _LEAST_SPREAD).sum()))
    if rank < 1 or values[0] <= 0:
        return found
    # The sign of a direction is arbitrary; so that it is the same everywhere, its largest part is positive.
    kept = directions[:rank]
    kept *= np.sign(kept[np.arange(rank), np.abs(kept).argmax(1)])[:, None]
    weights = np.zeros((len(columns), rank))
    weights[columns] = kept.T / np.sqrt((values[:rank] ** 2).sum() / len(standard))
    return weights
