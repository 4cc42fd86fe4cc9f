"""Compares the values of new patients with the range and the unit of the values that a saved model was fitted to."""

from collections.abc import Mapping, Sequence

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.encoding import ColumnCode, RecordEncoder
from duplus_nnunet.survival.records.out_of_range import FAR, find_out_of_range_values
from duplus_nnunet.survival.records.table import Record

Ranges = Mapping[str, tuple[float, float]]
# Known values from which on a column as a whole is judged.
_LEAST_VALUES = 5


def find_unlike_values(record: Record, encoder: RecordEncoder, ranges: Ranges) -> tuple[str, ...]:
    """Return a warning for each value of a patient that is unlike those of training, or is missing.

    Args:
        record: Record of the patient.
        encoder: Encoder that was fitted in training.
        ranges: Lowest and highest training value of each numeric covariate.
    """
    warnings = list(find_out_of_range_values(record, [encoder]))
    for name, (low, high) in ranges.items():
        value = record.values.get(name)
        far = any(warning.startswith(f"{name!r} is ") for warning in warnings)
        if isinstance(value, (int, float)) and not low <= value <= high and not far:
            warnings.append(f"{name!r} is {value:g}, outside the training range of {low:g} to {high:g}")
    return tuple(warnings)


def require_same_units(records: Sequence[Record], encoder: RecordEncoder, ranges: Ranges) -> None:
    """Check that no numeric column as a whole lies where no training value was.

    Raises:
        DataError: Five or more values of a column are known, none is in the training range, and their median is more
            than five standard deviations from the training mean.
    """
    problems = [
        problem
        for column in encoder.columns
        if column.name in ranges and (problem := _compare(column, records, ranges[column.name]))
    ]
    if problems:
        raise DataError(
            f"{' '.join(problems)} Such values are of another unit, or of something else. Convert these columns to the "
            "unit of the training table, or leave their cells empty: they are then treated as missing."
        )


def _compare(column: ColumnCode, records: Sequence[Record], limits: tuple[float, float]) -> str:
    known = [
        (record, float(value))
        for record in records
        if isinstance(value := record.values.get(column.name), (int, float))
    ]
    if len(known) < _LEAST_VALUES or any(limits[0] <= value <= limits[1] for _, value in known):
        return ""
    median = float(np.median([value for _, value in known]))
    if not column.scale > 0 or abs(median - column.mean) <= FAR * column.scale:
        return ""
    return (
        f"The column {column.name!r} has the median {median:g} in {len(known)} rows (row {known[0][0].row}: "
        f"{known[0][1]:g}); in training its values were {limits[0]:g} to {limits[1]:g}."
    )
