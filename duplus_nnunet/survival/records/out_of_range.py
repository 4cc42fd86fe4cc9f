"""What stands out in a patient beside those that were learned from: in comes a record, out come sentences."""

from collections.abc import Mapping, Sequence

import numpy as np

from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record


def count_missing(record: Record, schema: ClinicalSchema) -> int:
    """Count the covariates that are not known of a patient."""
    return sum(record.values.get(name) is None for name in schema.covariates)


def list_known(train: Sequence[Record], schema: ClinicalSchema) -> dict[str, set[float | str | None]]:
    """List the values of each covariate among training patients; None: somebody's is missing."""
    return {name: {record.values.get(name) for record in train} for name in schema.covariates}


def find_warnings(
    record: Record,
    known: Mapping[str, set[float | str | None]],
    schema: ClinicalSchema,
    images: FeatureTable | None = None,
) -> tuple[str, ...]:
    """Say in what a patient differs from all of whom a model was trained on.

    Args:
        record: The patient.
        known: As `list_known` gives it.
        schema: Types of covariates.
        images: Of all patients, or None.
    """
    found = []
    for name, form in schema.covariates.items():
        value, values = record.values.get(name), known[name]
        if value is None and None not in values:
            found.append(f"{name!r} is missing, and was of nobody trained on")
        elif value is not None and form.type == "categorical" and value not in values:
            found.append(f"{name!r} is {value!r}, which nobody trained on has")
        elif isinstance(value, (int, float)):
            numbers = [one for one in values if isinstance(one, (int, float))]
            if numbers and not min(numbers) <= value <= max(numbers):
                found.append(f"{name!r} is {value:g}, outside {min(numbers):g} to {max(numbers):g} of those trained on")
    return (*found, *_find_absent_images(record, images))


def _find_absent_images(record: Record, images: FeatureTable | None) -> list[str]:
    if images is None:
        return []
    missing = np.isnan(images.take([record.patient])[0])
    contexts = dict.fromkeys(images.contexts)
    absent = [name for name in contexts if missing[[context == name for context in images.contexts]].all()]
    if absent and len(absent) == len(contexts):
        return ["no image"]
    return [f"no image of {name!r}" for name in absent]
