"""Encodes clinical records as numbers, float32 (N, P); the encoder is fitted on training patients only.

Where two or more categories of a covariate are rare in training, they share one parameter. Unknown categories are
encoded as these, or else as the most common one, and missing values as the mean, with a missing indicator where
training values were missing; notes report both.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.records.schema import ClinicalSchema, normalise_cell
from duplus_nnunet.survival.records.table import Record

Table = NDArray[np.float32]
# Categories of fewer training patients are rare.
LEAST_PATIENTS = 5
POOLED = "rare categories"


@dataclass(frozen=True)
class ColumnCode:
    """Encoding of one covariate.

    Attributes:
        name: Name of the column.
        type: numeric, ordinal or categorical.
        mean: Mean of the known training values; ordinal values are their ranks.
        scale: Standard deviation of the same; 0 if they are constant, and any value is then encoded as the mean.
        categories: Categories of a categorical covariate, the most common first; that one is encoded as all zeros.
        marks_missing: Whether a missing indicator is added.
        pooled: Rare categories, which share the last parameter of the categories; empty or two and more.
    """

    name: str
    type: str
    mean: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()
    marks_missing: bool = False
    pooled: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the encoded numbers."""
        own: tuple[str, ...] = (self.name,)
        if self.categories:
            own = tuple(f"{self.name}={value}" for value in (*self.categories[1:], *([POOLED] if self.pooled else [])))
        return (*own, f"{self.name} is missing") if self.marks_missing else own

    def find_category(self, value: float | str | None) -> int | None:
        """Return the index of a value's category, whatever its spelling (1 or 1.0, F or f); None if it is unknown.

        Rare categories have the index after the last category.
        """
        if value is None:
            return None
        text = normalise_cell(value)
        if any(normalise_cell(category) == text for category in self.pooled):
            return len(self.categories)
        return next((index for index, category in enumerate(self.categories) if normalise_cell(category) == text), None)

    def encode(self, value: float | str | None) -> list[float]:
        """Encode one value; None is a missing value."""
        if self.categories:
            index = self.find_category(value)
            if index is None and value is not None and self.pooled:
                index = len(self.categories)  # an unknown category is a rare one
            numbers = [float(index == other) for other in range(1, len(self.categories) + bool(self.pooled))]
        else:
            known = value is not None and self.scale > 0
            numbers = [(float(value or 0.0) - self.mean) / self.scale if known else 0.0]
        return [*numbers, float(value is None)] if self.marks_missing else numbers


@dataclass(frozen=True)
class RecordEncoder:
    """A fitted encoder of records.

    Attributes:
        columns: Encoding of each covariate.
    """

    columns: tuple[ColumnCode, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the P encoded numbers."""
        return tuple(name for column in self.columns for name in column.names)

    def encode(self, records: Sequence[Record]) -> tuple[Table, list[str]]:
        """Encode records.

        Returns:
            The encoded records, (N, P), and notes for the reader.
        """
        rows = [
            [number for column in self.columns for number in column.encode(record.values.get(column.name))]
            for record in records
        ]
        return np.array(rows, np.float32).reshape(len(records), len(self.names)), self._list_notes(records)

    def encode_empty_record(self) -> Table:
        """Encode a record whose values are all missing, (P)."""
        return np.array([number for column in self.columns for number in column.encode(None)], np.float32)

    def list_column_indices(self) -> NDArray[np.int64]:
        """Return the index of the column that each encoded number belongs to, (P)."""
        return np.repeat(np.arange(len(self.columns)), [len(column.names) for column in self.columns]).astype(np.int64)

    def to_plain(self) -> list[dict[str, Any]]:
        """Return plain data that can be stored as JSON."""
        return [
            {**asdict(column), "categories": list(column.categories), "pooled": list(column.pooled)}
            for column in self.columns
        ]

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]]) -> "RecordEncoder":
        """Restore an encoder from the result of `to_plain`.

        Raises:
            ModelError: The stored data are invalid.
        """
        try:
            return cls(tuple(_read_column(column) for column in plain))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"A stored encoder of records cannot be read ({error!r}). Fit the model again.") from error

    def _list_notes(self, records: Sequence[Record]) -> list[str]:
        notes = []
        for column in self.columns:
            values = [record.values.get(column.name) for record in records]
            absent = sum(value is None for value in values)
            if records and absent == len(records):
                notes.append(f"{column.name!r} is missing in all of these records.")
            elif absent and not column.marks_missing:
                notes.append(f"{column.name!r} is missing in {absent} record(s), but in no training record.")
            known = {str(value) for value in values if value is not None} if column.categories else set()
            unseen = sorted(value for value in known if column.find_category(value) is None)
            if unseen:
                notes.append(
                    f"{column.name!r} has values that do not occur in training: {', '.join(map(repr, unseen))}."
                )
        return notes


def _read_column(plain: Mapping[str, Any]) -> ColumnCode:
    mean, scale = float(plain["mean"]), float(plain["scale"])
    if not (math.isfinite(mean) and math.isfinite(scale)):
        raise ValueError(f"the mean {mean} or the scale {scale} of {plain['name']!r} is not finite")
    categories = tuple(str(value) for value in plain["categories"])
    pooled = tuple(str(value) for value in plain.get("pooled", ()))  # absent in models of earlier versions
    return ColumnCode(
        str(plain["name"]), str(plain["type"]), mean, scale, categories, bool(plain["marks_missing"]), pooled
    )


def fit_encoder(records: Sequence[Record], schema: ClinicalSchema) -> RecordEncoder:
    """Fit an encoder on training records.

    Args:
        records: Records of training patients only.
        schema: Types of the covariates.
    """
    columns = []
    for name, form in schema.covariates.items():
        values = [record.values[name] for record in records]
        known = [value for value in values if value is not None]
        marks = 0 < len(known) < len(values)
        if form.type == "categorical":
            counts = Counter(map(str, known))
            common, rare = _pool_categories(counts)
            # Without any known value, only the missing indicator is left.
            columns.append(ColumnCode(name, form.type, categories=common or ("",), marks_missing=marks, pooled=rare))
            continue
        numbers = np.array(known, np.float64)
        # By rounding, the standard deviation of equal numbers can be about 1e-16 instead of 0.
        differ = len(numbers) > 0 and float(np.ptp(numbers)) > 0
        mean, scale = float(numbers.mean()) if len(numbers) else 0.0, float(numbers.std()) if differ else 0.0
        columns.append(ColumnCode(name, form.type, mean, scale, marks_missing=marks))
    return RecordEncoder(tuple(columns))


def _pool_categories(counts: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split categories into common ones, the most common first, and rare ones that share a parameter.

    A single rare category keeps its own parameter, and so does the most common one.
    """
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    rare = tuple(value for value in ordered[1:] if counts[value] < LEAST_PATIENTS)
    if len(rare) < 2:
        return tuple(ordered), ()
    return tuple(value for value in ordered if value not in rare), rare
