"""Writes the charts, tables and viewers of a report as files for papers and slides."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from duplus_nnunet.files import open_new_file
from duplus_nnunet.model_report.blocks import Cell, Chart, Section, Table, Viewer
from duplus_nnunet.model_report.page import draw_png, draw_svg
from duplus_nnunet.model_report.viewer_picture import draw_viewer

_DPI = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def write_figures(folder: Path, sections: Sequence[Section]) -> list[Path]:
    """Write each chart as PNG and SVG with its numbers as CSV, each viewer as PNG, and each table as CSV.

    Args:
        folder: Folder of the files; it is created if needed.
        sections: The sections of the report.

    Returns:
        The written files.

    Raises:
        DataError: A file cannot be written.
    """
    files: list[Path] = []
    taken: dict[str, int] = {}
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, (Chart, Table, Viewer)):
            name = _choose_name(block.name, taken)
            contents = _make_contents(block)
            files += [_write(folder / f"{name}{ending}", content) for ending, content in contents.items()]
    return files


def _choose_name(name: str, taken: dict[str, int]) -> str:
    """Make a file name of a block's name, and number those that are the same."""
    safe = _UNSAFE.sub("_", name).strip("._") or "figure"
    taken[safe] = taken.get(safe, 0) + 1
    return safe if taken[safe] == 1 else f"{safe}_{taken[safe]}"


def _make_contents(block: Chart | Table | Viewer) -> Mapping[str, bytes]:
    if isinstance(block, Viewer):
        return {".png": draw_png(draw_viewer(block), _DPI, trim=True)}
    if isinstance(block, Table):
        return {".csv": _make_csv(block.headings, block.rows)}
    headings = tuple(block.numbers[0]) if block.numbers else ()
    return {
        ".png": draw_png(block.figure, _DPI),
        ".svg": draw_svg(block.figure),
        ".csv": _make_csv(headings, [tuple(row.values()) for row in block.numbers]),
    }


def _make_csv(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return buffer.getvalue().encode("utf-8")


def _write(file: Path, content: bytes) -> Path:
    with open_new_file(file) as new:
        new.write_bytes(content)
    return file
