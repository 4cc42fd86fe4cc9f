"""Records as numbers: fitted on the patients of a training fold, and on nobody else.

In come records, out comes an array (N, P), float32. What a fitted encoder has not seen it says, and goes on: an unknown
category counts as the commonest one, a missing value as the mean, and marked.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.records.schema import ClinicalSchema, plain
from duplus_nnunet.survival.records.table import Record

Table = NDArray[np.float32]


@dataclass(frozen=True)
class ColumnCode:
    """How one covariate becomes numbers.

    Attributes:
        name: Of the column.
        type: numeric, ordinal or categorical.
        mean: Of the known training values; those of an ordinal covariate are their places in the order.
        scale: Standard deviation of the same; 0 if they do not differ, so that nothing was learned from them and any
            value counts as the mean.
        categories: Of a categorical covariate, the commonest first, which is the one that all zeros stand for.
        marks_missing: Whether a further number says that the value is not known.
    """

    name: str
    type: str
    mean: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()
    marks_missing: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its numbers."""
        own = tuple(f"{self.name}={value}" for value in self.categories[1:]) if self.categories else (self.name,)
        return (*own, f"{self.name} is missing") if self.marks_missing else own

    def find_category(self, value: float | str | None) -> int | None:
        """Give the place of a value's category, however it is written (1 or 1.0, F or f); None: it is none of them."""
        if value is None:
            return None
        written = plain(value)
        return next((place for place, category in enumerate(self.categories) if plain(category) == written), None)

    def encode(self, value: float | str | None) -> list[float]:
        """Turn one value into numbers; None is one that is not known."""
        if self.categories:
            place = self.find_category(value)
            numbers = [float(place == other) for other in range(1, len(self.categories))]
        else:
            known = value is not None and self.scale > 0
            numbers = [(float(value or 0.0) - self.mean) / self.scale if known else 0.0]
        return [*numbers, float(value is None)] if self.marks_missing else numbers


@dataclass(frozen=True)
class RecordEncoder:
    """Turns records into numbers.

    Attributes:
        columns: How each covariate does.
    """

    columns: tuple[ColumnCode, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all P numbers."""
        return tuple(name for column in self.columns for name in column.names)

    def encode(self, records: Sequence[Record]) -> tuple[Table, list[str]]:
        """Encode records.

        Returns:
            Shape (N, P), and what a reader has to know, a sentence each.
        """
        rows = [
            [number for column in self.columns for number in column.encode(record.values.get(column.name))]
            for record in records
        ]
        return np.array(rows, np.float32).reshape(len(records), len(self.names)), self._list_notes(records)

    def encode_absent(self) -> Table:
        """Encode a record of which nothing is known, (P)."""
        return np.array([number for column in self.columns for number in column.encode(None)], np.float32)

    def list_owners(self) -> NDArray[np.int64]:
        """Give the place of the column that each number is of, (P)."""
        return np.repeat(np.arange(len(self.columns)), [len(column.names) for column in self.columns]).astype(np.int64)

    def to_plain(self) -> list[dict[str, Any]]:
        """Return it as plain data that JSON takes."""
        return [{**asdict(column), "categories": list(column.categories)} for column in self.columns]

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]]) -> "RecordEncoder":
        """Read what `to_plain` gave.

        Raises:
            ModelError: It is not of that form.
        """
        try:
            return cls(tuple(_read_column(column) for column in plain))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"A stored EHR encoder cannot be read ({error!r}). Fit the model again.") from error

    def _list_notes(self, records: Sequence[Record]) -> list[str]:
        notes = []
        for column in self.columns:
            values = [record.values.get(column.name) for record in records]
            absent = sum(value is None for value in values)
            if records and absent == len(records):
                notes.append(f"{column.name!r} is not known of anybody here; it counts as missing.")
            elif absent and not column.marks_missing:
                notes.append(f"{column.name!r} is missing in {absent} record(s), and in none that was trained on.")
            known = {str(value) for value in values if value is not None} if column.categories else set()
            strange = sorted(value for value in known if column.find_category(value) is None)
            if strange:
                notes.append(f"{column.name!r} has values that were not trained on: {', '.join(map(repr, strange))}.")
        return notes


def _read_column(plain: Mapping[str, Any]) -> ColumnCode:
    mean, scale = float(plain["mean"]), float(plain["scale"])
    if not (math.isfinite(mean) and math.isfinite(scale)):
        raise ValueError(f"the mean {mean} or the scale {scale} of {plain['name']!r}")
    categories = tuple(str(value) for value in plain["categories"])
    return ColumnCode(
        str(plain["name"]), str(plain["type"]), mean, scale, categories, marks_missing=bool(plain["marks_missing"])
    )


def fit_encoder(records: Sequence[Record], schema: ClinicalSchema) -> RecordEncoder:
    """Fit an encoder on training records.

    Args:
        records: Those of a training fold, and no others.
        schema: Says the type of each covariate.
    """
    columns = []
    for name, form in schema.covariates.items():
        values = [record.values[name] for record in records]
        known = [value for value in values if value is not None]
        marks = 0 < len(known) < len(values)
        if form.type == "categorical":
            counts = Counter(map(str, known))
            common = tuple(sorted(counts, key=lambda value: (-counts[value], value)))
            # Without a category there is nothing but whether it is missing.
            columns.append(ColumnCode(name, form.type, categories=common or ("",), marks_missing=marks))
            continue
        numbers = np.array(known, np.float64)
        # The standard deviation of equal numbers need not be 0: rounding leaves some 1e-16 of it.
        differ = len(numbers) > 0 and float(np.ptp(numbers)) > 0
        mean, scale = float(numbers.mean()) if len(numbers) else 0.0, float(numbers.std()) if differ else 0.0
        columns.append(ColumnCode(name, form.type, mean, scale, marks_missing=marks))
    return RecordEncoder(tuple(columns))
