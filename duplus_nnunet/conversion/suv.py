"""PET of a download in SUV: refused where it is not, or converted from Bq/ml by a table of the download."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet.conversion.loaded import Loaded
from duplus_nnunet.conversion.templates import find_paths
from duplus_nnunet.conversion.volumes import Volume
from duplus_nnunet.dicom.suv import compute_suv_factor
from duplus_nnunet.errors import DataError
from duplus_nnunet.table_files import read_csv

# Largest difference, as a share, of a factor from what weight and dose make of it.
_AGREEMENT = 0.01
_COLUMNS = ("factor", "units", "weight_kg", "dose_bq", "half_life_s", "decay_s")


def require_suv(case: Loaded, options: Mapping[str, Any]) -> Loaded:
    """Refuse a PET that is in Bq/ml and not in SUV.

    Options: `channel`, and `most`: the highest mean of the brightest thousandth that can be SUV.
    """
    image = case.images[int(options["channel"])]
    brightest = _measure_brightest(image)
    if brightest > float(options["most"]):
        raise DataError(
            f"{case.name}: the brightest voxels of {image.file} are {brightest:.0f}, too much for SUV; it is probably "
            "in Bq/ml. Convert it to SUV by the dataset's own script first."
        )
    return case


def convert_to_suv(case: Loaded, options: Mapping[str, Any]) -> Loaded:
    """Convert a PET in Bq/ml to SUV by body weight, by a table; one that is in SUV already stays as it is.

    Options: `channel` and `most` as in `require_suv`; `table`, a CSV file of the download; `key`, its column with the
    value of the field `field` of the case; `columns`, those with `factor` (from Bq/ml to SUV), or with `weight_kg` and
    `dose_bq` (and, if that dose was not corrected for decay, `half_life_s` and `decay_s`, the time from the injection
    to the scan), and with `units`, which must be BQML.

    Raises:
        DataError: The table is missing, or does not say the factor of a PET that is not in SUV.
    """
    channel = int(options["channel"])
    image = case.images[channel]
    brightest = _measure_brightest(image)
    if brightest <= float(options["most"]):
        return case
    found = next((path for _, path in find_paths(case.root, str(options["table"]))), None)
    if found is None:
        raise DataError(
            f"{case.name}: the brightest voxels of {image.file} are {brightest:.0f}, too much for SUV; it is probably "
            f"in Bq/ml, and there is no {case.root / str(options['table'])}, which says how to convert it. Add it."
        )
    factor = _read_factor(found, case, options)
    converted = image.with_array(image.array.astype(np.float32) * np.float32(factor))
    images = tuple(converted if index == channel else other for index, other in enumerate(case.images))
    case = replace(case, images=images).note(f"its PET was converted from Bq/ml to SUV by {found.name}: x {factor:.6g}")
    return require_suv(case, options)


def _measure_brightest(image: Volume) -> float:
    return float(np.quantile(image.array, 0.999))


def _read_factor(file: Path, case: Loaded, options: Mapping[str, Any]) -> float:
    """Read the factor of a case from its row."""
    columns: Mapping[str, str] = options["columns"]
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown:
        raise DataError(f"`columns` of convert_to_suv: {unknown[0]!r} is not one of {', '.join(_COLUMNS)}.")
    table = read_csv(file, "Download it again.")
    lacking = [name for name in (options["key"], *columns.values()) if name not in table.columns]
    if lacking:
        raise DataError(f"{file} has no column {lacking[0]!r}; it has {', '.join(map(repr, table.columns))}.")
    rows = [(row.line, dict(zip(table.columns, row.cells, strict=False))) for row in table.rows]
    own = [(line, row) for line, row in rows if row.get(options["key"]) == case.fields[options["field"]]]
    if len(own) != 1:
        raise DataError(
            f"{case.name}: its PET is not in SUV, and {file} has {len(own)} rows whose {options['key']!r} is "
            f"{case.fields[options['field']]!r}; expected one."
        )
    line, row = own[0]
    try:
        return _compute_factor({name: row.get(column, "") for name, column in columns.items()})
    except (DataError, ValueError) as error:
        raise DataError(f"{file}:{line}, {case.name}: {error}") from error


def _compute_factor(cells: Mapping[str, str]) -> float:
    """Compute the factor from the cells of a row.

    Raises:
        ValueError: They do not say it, or contradict each other.
    """
    units = cells.get("units", "BQML").strip().upper()
    if units != "BQML":
        raise DataError(f"the units are {units or 'missing'}; expected BQML.")
    numbers = {name: float(text) for name, text in cells.items() if name != "units" and text.strip()}
    if ("half_life_s" in numbers) != ("decay_s" in numbers):
        raise DataError("of the half-life and the time from injection to scan, one is missing; expected both or none.")
    factor = numbers.pop("factor", None)
    if factor is not None and not 0 < factor < math.inf:
        raise DataError(f"the factor is {factor:g}; expected a number above 0.")
    if {"weight_kg", "dose_bq"} <= numbers.keys():
        computed = compute_suv_factor(**numbers)
        if factor is not None and not math.isclose(factor, computed, rel_tol=_AGREEMENT):
            raise DataError(f"the factor is {factor:g}, and {computed:g} by weight and dose. Correct one of them.")
        return computed
    if factor is None:
        raise DataError("there is neither a factor, nor weight and dose.")
    return factor
