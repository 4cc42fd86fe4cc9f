"""Public tables of scikit-survival and lifelines, as CSV files have them, and how they are drafted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.survival.records.table import Rows, read_rows

_SKSURV, _LIFELINES = "sksurv", "lifelines"
_YEARS = {"unit": "years"}
_CODES = {"seen": ("1",), "censored": ("0",)}


@dataclass(frozen=True)
class PublicTable:
    """A public table.

    Attributes:
        package: Package that has it.
        file: Name of the file there.
        named: The one answer that the draft rightly asks for: codes and unit.
        endpoints: Event and time of each endpoint, and its number of events.
        leaking: Columns that are known only after treatment.
        every: Every so many rows are read, so that tests stay fast.
    """

    package: str
    file: str
    endpoints: Mapping[str, tuple[str, int]]
    named: Mapping[str, Any] = field(default_factory=dict)
    leaking: tuple[str, ...] = ()
    every: int = 1


TABLES = {
    "veterans": PublicTable(_SKSURV, "veteran.arff", {"Status": ("Survival_in_days", 128)}),
    "whas500": PublicTable(_SKSURV, "whas500.arff", {"fstat": ("lenfol", 215)}),
    "gbsg2": PublicTable(_SKSURV, "GBSG2.arff", {"cens": ("time", 299)}, _CODES),
    "aids": PublicTable(
        _SKSURV, "actg320.arff", {"censor": ("time", 96), "censor_d": ("time_d", 26)}, {**_CODES, "unit": "days"}
    ),
    "flchain": PublicTable(_SKSURV, "flchain.arff", {"death": ("futime", 270)}, {}, ("chapter",), 8),
    "bmt": PublicTable(_SKSURV, "bmt.arff", {"status": ("ftime", 8)}, {**_CODES, "unit": "months"}),
    "cgvhd": PublicTable(
        _SKSURV,
        "cgvhd.arff",
        {"agvh": ("agvhtime", 73), "cgvh": ("cgvhtime", 87), "stat": ("survtime", 26), "rcens": ("reltime", 11)},
        {**_CODES, **_YEARS},
        ("agvhdgd",),
    ),
    "breast cancer": PublicTable(
        _SKSURV,
        "breast_cancer_GSE7390-metastasis.arff",
        {"e.tdm": ("t.tdm", 51)},
        {"event": "e.tdm", "time": "t.tdm"},
    ),
    "rossi": PublicTable(_LIFELINES, "rossi.csv", {"arrest": ("week", 114)}),
    "lung": PublicTable(_LIFELINES, "lung.csv", {"status": ("time", 165)}),
    "larynx": PublicTable(_LIFELINES, "larynx.csv", {"death": ("time", 50)}, _YEARS),
    "kidney transplant": PublicTable(_LIFELINES, "kidney_transplant.csv", {"death": ("time", 140)}),
}


def read_public(name: str) -> Rows:
    """Read a table; the test is skipped without the package that has it."""
    table = TABLES[name]
    spec = find_spec(table.package)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs {table.package}")
    folder = Path(spec.origin).parent / "datasets"
    rows = _read_arff(folder / "data" / table.file) if table.package == _SKSURV else read_rows(folder / table.file)
    return replace(rows, file=f"{name}.csv", rows=rows.rows[:: table.every])


@cache
def _read_arff(file: Path) -> Rows:
    """Read the cells of a table in ARFF; "?" stands for a missing one, which is empty in a CSV file."""
    lines = [line.strip() for line in file.read_text().splitlines() if line.strip() and not line.startswith("%")]
    columns = tuple(line.split()[1].strip("'\"") for line in lines if line.casefold().startswith("@attribute"))
    start = next(number for number, line in enumerate(lines) if line.casefold().startswith("@data"))
    cells = [[cell.strip().strip("'\"") for cell in line.split(",")] for line in lines[start + 1 :]]
    rows = tuple({key: "" if cell == "?" else cell for key, cell in zip(columns, line, strict=True)} for line in cells)
    return Rows(file.name, columns, rows)
