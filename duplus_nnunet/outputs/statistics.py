"""Collects statistics of predicted targets and writes them as JSON and CSV (`--statistics`).

A row is one target of one case. A resumed run reads the JSON file; the CSV file is for spreadsheets.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import read_form, write_text
from duplus_nnunet.outputs.answer import CaseAnswer
from duplus_nnunet.outputs.measures import Range, TargetStatistics, measure_target
from duplus_nnunet.table_files import format_csv

JSON_NAME = "statistics.json"
CSV_NAME = "statistics.csv"
VERSION = 1

_COLUMNS = tuple(field.name for field in fields(TargetStatistics))
_DIGITS = 6


@dataclass(frozen=True)
class _File:
    rows: tuple[TargetStatistics, ...]


class StatisticsTable:
    """A table of statistics with one row per target and case.

    Args:
        volumes: Smallest and largest volume in the training data in ml, by target.
        rows: Rows of the cases that are already complete.
    """

    def __init__(self, volumes: Mapping[str, Range] | None = None, rows: tuple[TargetStatistics, ...] = ()) -> None:
        self.volumes = dict(volumes or {})
        self._by_case: dict[str, list[TargetStatistics]] = {}
        for row in rows:
            self._by_case.setdefault(row.case, []).append(row)

    @property
    def cases(self) -> tuple[str, ...]:
        """Cases in the table, in the order they were added."""
        return tuple(self._by_case)

    @property
    def rows(self) -> tuple[TargetStatistics, ...]:
        """All rows, grouped by case."""
        return tuple(row for rows in self._by_case.values() for row in rows)

    def add(self, answer: CaseAnswer, image: NDArray[Any]) -> tuple[TargetStatistics, ...]:
        """Measure every target of a prediction; earlier rows of the same case are replaced.

        Args:
            answer: Prediction of the case.
            image: The image as nnU-Net's reader returns it, (C, D, H, W).

        Returns:
            The new rows, in the order of the answer's targets.

        Raises:
            DataError: The image is not on the prediction's grid.
        """
        rows = measure_case(answer, image, self.volumes)
        self.put(answer.case, rows)
        return rows

    def put(self, case: str, rows: Sequence[TargetStatistics]) -> None:
        """Take the rows of a case; earlier ones of the same case are replaced."""
        self._by_case[case] = list(rows)

    def sort(self, order: Iterable[str]) -> None:
        """Put the cases in an order; those that it does not name come last."""
        order = dict.fromkeys([*order, *self._by_case])
        self._by_case = {case: self._by_case[case] for case in order if case in self._by_case}

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write statistics.json and statistics.csv; missing values are null or empty cells."""
        content = {"version": VERSION, "rows": [asdict(row) for row in self.rows]}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(folder / JSON_NAME, text + "\n")
        write_text(folder / CSV_NAME, self._to_csv())
        return folder / JSON_NAME, folder / CSV_NAME

    @classmethod
    def read(cls, folder: Path, volumes: Mapping[str, Range] | None = None) -> "StatisticsTable":
        """Read the statistics of a folder; an empty table if there are none.

        Args:
            folder: Folder that `write` wrote to.
            volumes: As in the constructor; existing rows stay unchanged.

        Raises:
            DataError: The file cannot be read or is malformed.
        """
        file = folder / JSON_NAME
        if not file.exists():
            return cls(volumes)
        return cls(volumes, read_form(file, _File, VERSION, "Delete it and predict again.").rows)

    def _to_csv(self) -> str:
        return format_csv([_COLUMNS, *([_to_cell(getattr(row, name)) for name in _COLUMNS] for row in self.rows)])


def measure_case(
    answer: CaseAnswer, image: NDArray[Any], volumes: Mapping[str, Range] | None = None
) -> tuple[TargetStatistics, ...]:
    """Measure every target of a prediction; returns a row for each, in the order of the answer's targets.

    Args:
        answer: Prediction of the case.
        image: The image as nnU-Net's reader returns it, (C, D, H, W).
        volumes: Smallest and largest volume in the training data in ml, by target.

    Raises:
        DataError: The image is not on the prediction's grid.
    """
    check_image(answer, image)
    seen = volumes or {}
    return tuple(measure_target(answer, target, image[0], seen.get(target.name)) for target in answer.targets)


def check_image(answer: CaseAnswer, image: NDArray[Any]) -> None:
    """Check that an image has the shape (C, D, H, W) of the prediction's grid.

    Raises:
        DataError: The shape differs.
    """
    if np.ndim(image) != 4 or tuple(image.shape[1:]) != tuple(answer.geometry.shape):
        raise DataError(
            f"The image of case {answer.case!r} has shape {tuple(np.shape(image))}, but its prediction has the grid "
            f"(channels, {', '.join(map(str, answer.geometry.shape))}). Give the image as nnU-Net's reader returns it."
        )


def _to_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return round(value, _DIGITS) if isinstance(value, float) else value
