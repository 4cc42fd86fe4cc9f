"""The table of statistics, as `--statistics` asks for: in come answers and images, out come CSV and JSON, and back.

A row is a target of a case. The JSON is what a resumed run reads; the CSV is for spreadsheets.
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs.answer import CaseAnswer
from duplus_nnunet.outputs.files import read_form, write_text
from duplus_nnunet.outputs.measures import Range, TargetStatistics, measure_target

JSON_NAME = "statistics.json"
CSV_NAME = "statistics.csv"
VERSION = 1

_COLUMNS = tuple(field.name for field in fields(TargetStatistics))
_DIGITS = 6


@dataclass(frozen=True)
class _File:
    rows: tuple[TargetStatistics, ...]


class StatisticsTable:
    """Statistics of the cases so far.

    Args:
        volumes: Smallest and largest volume in ml that was seen in training, by target.
        rows: Of cases that are finished already.
    """

    def __init__(self, volumes: Mapping[str, Range] | None = None, rows: tuple[TargetStatistics, ...] = ()) -> None:
        self.volumes = dict(volumes or {})
        self._by_case: dict[str, list[TargetStatistics]] = {}
        for row in rows:
            self._by_case.setdefault(row.case, []).append(row)

    @property
    def cases(self) -> tuple[str, ...]:
        """Cases that have rows, in the order they came."""
        return tuple(self._by_case)

    @property
    def rows(self) -> tuple[TargetStatistics, ...]:
        """All rows, a case after the other."""
        return tuple(row for rows in self._by_case.values() for row in rows)

    def add(self, answer: CaseAnswer, image: NDArray[Any]) -> tuple[TargetStatistics, ...]:
        """Measure every target of an answer; rows that the case had before are replaced.

        Args:
            answer: What was found in the image.
            image: The image as nnU-Net's reader gives it, (C, D, H, W).

        Returns:
            The new rows, in the order of the answer's targets.

        Raises:
            DataError: The image is not on the answer's grid.
        """
        check_image(answer, image)
        rows = [measure_target(answer, target, image[0], self.volumes.get(target.name)) for target in answer.targets]
        self._by_case[answer.case] = rows
        return tuple(rows)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write statistics.json and statistics.csv into a folder; a cell is null or empty where there is no value."""
        content = {"version": VERSION, "rows": [asdict(row) for row in self.rows]}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(folder / JSON_NAME, text + "\n")
        write_text(folder / CSV_NAME, self._to_csv())
        return folder / JSON_NAME, folder / CSV_NAME

    @classmethod
    def read(cls, folder: Path, volumes: Mapping[str, Range] | None = None) -> "StatisticsTable":
        """Read what a folder has of statistics; an empty table if it has none.

        Args:
            folder: Where `write` wrote.
            volumes: As for a new table; rows that are there stay as they are.

        Raises:
            DataError: There is a file that is not of the form.
        """
        file = folder / JSON_NAME
        if not file.exists():
            return cls(volumes)
        return cls(volumes, read_form(file, _File, VERSION, "Delete it and predict again.").rows)

    def _to_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([_to_cell(getattr(row, name)) for name in _COLUMNS] for row in self.rows)
        return text.getvalue()


def check_image(answer: CaseAnswer, image: NDArray[Any]) -> None:
    """Check that an image is of (C, D, H, W) on an answer's grid.

    Raises:
        DataError: It is not.
    """
    if np.ndim(image) != 4 or tuple(image.shape[1:]) != tuple(answer.geometry.shape):
        raise DataError(
            f"The image of case {answer.case!r} has shape {tuple(np.shape(image))}, but what was found in it lies on "
            f"(channels, {', '.join(map(str, answer.geometry.shape))}). Give the image as nnU-Net's reader read it."
        )


def _to_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return round(value, _DIGITS) if isinstance(value, float) else value
