"""Warns of values and images of a patient that lie outside the range of the training patients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.records.encoding import ColumnCode, RecordEncoder
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record

# Standard deviations from the training mean beyond which a value probably has another unit.
FAR = 5.0


def count_missing(record: Record, schema: ClinicalSchema) -> int:
    """Count the missing covariates of a patient."""
    return sum(record.values.get(name) is None for name in schema.covariates)


@dataclass(frozen=True)
class TrainingValues:
    """Values of one covariate in training.

    Attributes:
        values: Distinct values; None stands for a missing value.
        low: Least number; NaN without numbers.
        high: Largest number; NaN without numbers.
    """

    values: frozenset[float | str | None]
    low: float
    high: float


def list_training_values(train: Sequence[Record], schema: ClinicalSchema) -> dict[str, TrainingValues]:
    """List the values of each covariate in training."""
    listed = {}
    for name in schema.covariates:
        values = frozenset(record.values.get(name) for record in train)
        numbers = [value for value in values if isinstance(value, (int, float))] or [math.nan]
        listed[name] = TrainingValues(values, min(numbers), max(numbers))
    return listed


def find_warnings(
    record: Record,
    known: Mapping[str, TrainingValues],
    schema: ClinicalSchema,
    images: FeatureTable | None = None,
) -> tuple[str, ...]:
    """Compare a patient with the records that a model was trained on.

    Args:
        record: Record of the patient.
        known: Values of each covariate in training, from `list_training_values`.
        schema: Types of the covariates.
        images: Image features of all patients, or None.

    Returns:
        A warning for each value outside the training range, and for each missing image.
    """
    warnings = []
    for name, form in schema.covariates.items():
        value, training = record.values.get(name), known[name]
        if value is None and None not in training.values:
            warnings.append(f"{name!r} is missing, but in no training patient")
        elif value is not None and form.type == "categorical" and value not in training.values:
            warnings.append(f"{name!r} is {value!r}, which does not occur in training")
        elif isinstance(value, (int, float)) and (value < training.low or value > training.high):
            warnings.append(
                f"{name!r} is {value:g}, outside the training range of {training.low:g} to {training.high:g}"
            )
    return (*warnings, *_find_absent_images(record, images))


def _find_absent_images(record: Record, images: FeatureTable | None) -> list[str]:
    if images is None:
        return []
    missing = np.isnan(images.take([record.patient])[0])
    contexts = dict.fromkeys(images.contexts)
    absent = [name for name in contexts if missing[[context == name for context in images.contexts]].all()]
    if absent and len(absent) == len(contexts):
        return ["no image"]
    return [f"no image of {name!r}" for name in absent]


def find_out_of_range_values(record: Record, encoders: Sequence[RecordEncoder]) -> tuple[str, ...]:
    """Compare a patient with fitted encoders, which hold no training records.

    Args:
        record: Record of the patient.
        encoders: Encoders of all folds.

    Returns:
        The warnings of all encoders, each once.
    """
    warnings = [
        warning
        for encoder in encoders
        for column in encoder.columns
        if (warning := _compare(column, record.values.get(column.name)))
    ]
    return tuple(dict.fromkeys(warnings))


def _compare(column: ColumnCode, value: float | str | None) -> str:
    if value is None:
        return "" if column.marks_missing else f"{column.name!r} is missing, but in no training patient"
    if column.categories:
        if column.find_category(value) is not None:
            return ""
        treated = "a rare value" if column.pooled else "the most common value"
        return f"{column.name!r} is {value!r}, which does not occur in training; it is treated as {treated}"
    if column.scale > 0 and abs(float(value) - column.mean) > FAR * column.scale:
        return f"{column.name!r} is {value:g}, more than {FAR:g} standard deviations from the training mean"
    return ""
