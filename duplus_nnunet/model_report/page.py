"""Writes the sections of a report as one HTML file, which asks for nothing outside of it.

Texts come from datasets of other people, so that all of them are escaped. The content security policy of the page
forbids requests, and all scripts and styles but its own.
"""

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from duplus_nnunet import __version__
from duplus_nnunet.files import write_text
from duplus_nnunet.model_report.blocks import Block, Cell, Chart, Paragraph, Section, Table, Viewer
from duplus_nnunet.model_report.packing import RESOLUTIONS, Resolution, list_styles, pack_viewer, to_data_url
from duplus_nnunet.model_report.viewer_picture import describe_mask, describe_viewer, draw_viewer, list_chosen

# Size of a page, in bytes, that opens within seconds on a phone.
MOST_BYTES = 15_000_000
UNKNOWN = "not known"
_ASSETS = Path(__file__).parent / "assets"
_ROUNDED = 3  # digits after the point to which tables round shares and scores
_MOST_NUMBERS = 60  # rows of a chart's numbers on the page
_MOST_SVG_BYTES = 400_000
_DPI, _CSS_DPI = 144, 96


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: Its heading.
        summary: One sentence below it.
        sections: Its sections, in order.
    """

    title: str
    summary: str
    sections: Sequence[Section]


def write_page(file: Path, report: Report, most_bytes: int = MOST_BYTES) -> list[str]:
    """Write a report as an HTML file, atomically.

    Args:
        file: The file.
        report: The report.
        most_bytes: Size that the file shall not exceed. Images are shown more coarsely where it would.

    Returns:
        What the reader is told of this, a sentence each.

    Raises:
        DataError: The file cannot be written.
    """
    page, notes = make_page(report, most_bytes)
    write_text(file, page)
    return notes


def make_page(report: Report, most_bytes: int = MOST_BYTES) -> tuple[str, list[str]]:
    """Make the HTML of a report; see `write_page`."""
    fixed = {number: _prepare(block, number) for number, block in _number_blocks(report)}
    for resolution in RESOLUTIONS:
        packed = {
            number: pack_viewer(block, resolution)
            for number, block in _number_blocks(report)
            if isinstance(block, Viewer)
        }
        notes = _describe_reduction(report, resolution) if packed else []
        page = _render(report, _join(fixed, packed), notes)
        size = len(page.encode("utf-8"))
        if size <= most_bytes or not packed:
            break
    if size > most_bytes:
        notes = [*notes, f"The file has {size / 1e6:.0f} MB and may open slowly."]
        page = _render(report, _join(fixed, packed), notes)
    return page, notes


def format_cell(cell: Cell) -> str:
    """Write a cell of a table; numbers with four significant digits."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return UNKNOWN
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1e4 or not math.isfinite(cell) else f"{cell:,.0f}"
    return str(cell)


def draw_svg(figure: Figure) -> bytes:
    """Draw a figure as SVG, the same bytes each time."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "duplus"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def draw_png(figure: Figure, dpi: int = _DPI, *, trim: bool = False) -> bytes:
    """Draw a figure as PNG; `trim` cuts empty margins off."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight" if trim else None)
    return buffer.getvalue()


def _number_blocks(report: Report) -> list[tuple[int, Block]]:
    return list(enumerate(block for section in report.sections for block in section.blocks))


def _join(fixed: Mapping[int, dict[str, Any]], packed: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {number: {**block, "data": packed[number]} if number in packed else block for number, block in fixed.items()}


def _describe_reduction(report: Report, resolution: Resolution) -> list[str]:
    """Say that images are shown more coarsely than usual, to keep the file small."""
    if resolution == RESOLUTIONS[0]:
        return []
    return [
        f"Images are shown with at most {resolution.pixels} x {resolution.pixels} pixels and {resolution.slices} "
        "slices, to keep the file small."
    ]


def _prepare(block: Block, number: int) -> dict[str, Any]:
    """Turn a block into what the template reads; a viewer without its data."""
    if isinstance(block, Paragraph):
        return {"form": "paragraph", "kind": block.kind, "text": block.text}
    if isinstance(block, Table):
        return _prepare_table(block)
    return _prepare_chart(block, number) if isinstance(block, Chart) else _prepare_viewer(block, number)


def _prepare_table(table: Table) -> dict[str, Any]:
    rows = _prepare_rows(table.rows)
    return {
        "form": "table",
        "title": table.title,
        "headings": table.headings,
        "shown": rows[: table.shown],
        "folded": rows[table.shown :],
    }


def _prepare_rows(rows: Sequence[Sequence[Cell]]) -> list[list[dict[str, Any]]]:
    columns = [_format_column(column) for column in zip(*rows, strict=True)]
    return [
        [{"text": text, "number": isinstance(cell, (int, float))} for cell, text in zip(row, texts, strict=True)]
        for row, texts in zip(rows, zip(*columns, strict=True), strict=True)
    ]


def _format_column(cells: Sequence[Cell]) -> list[str]:
    """Write the cells of a column; numbers that were rounded to a few digits all get the digits of the longest."""
    texts = [format_cell(cell) for cell in cells]
    numbers = [cell for cell in cells if isinstance(cell, float) and math.isfinite(cell)]
    if not numbers or any(round(number, _ROUNDED) != number or abs(number) > 1 for number in numbers):
        return texts
    digits = max(len(f"{number:.4g}".partition(".")[2]) for number in numbers)
    return [
        f"{cell:.{digits}f}" if isinstance(cell, float) and math.isfinite(cell) else text
        for cell, text in zip(cells, texts, strict=True)
    ]


def _prepare_chart(chart: Chart, number: int) -> dict[str, Any]:
    content, kind = draw_svg(chart.figure), "image/svg+xml"
    if len(content) > _MOST_SVG_BYTES:
        content, kind = draw_png(chart.figure), "image/png"
    numbers = chart.numbers if len(chart.numbers) <= _MOST_NUMBERS else ()
    width, height = chart.figure.get_size_inches() * _CSS_DPI
    return {
        "form": "chart",
        "id": f"chart-{number}",
        "title": chart.title,
        "caption": chart.caption,
        "description": chart.description,
        "source": to_data_url(content, kind),
        "width": round(width),
        "height": round(height),
        "headings": list(numbers[0]) if numbers else [],
        "numbers": _prepare_rows([list(row.values()) for row in numbers]),
    }


def _prepare_viewer(viewer: Viewer, number: int) -> dict[str, Any]:
    styles, chosen = list_styles(viewer), set(list_chosen(viewer))
    prepared = {
        style.name: {
            "name": style.name,
            "colour": style.colour,
            "dashes": " ".join(f"{length * 2.5:g}" for length in style.dashes),
            "chosen": style.name in chosen,
        }
        for style in styles
    }
    rows = {style.name: row for row, style in enumerate(styles)}
    return {
        "form": "viewer",
        "id": f"viewer-{number}",
        "title": viewer.title,
        "caption": viewer.caption,
        "description": describe_viewer(viewer),
        "source": to_data_url(draw_png(draw_viewer(viewer), _CSS_DPI, trim=True), "image/png"),
        "styles": list(prepared.values()),
        "cases": [
            {
                "id": f"slice-{number}-{index}",
                "title": case.title,
                "context_prompt": case.context_prompt,
                "masks": [
                    {
                        "row": rows[mask.target],
                        "target": mask.target,
                        "style": prepared[mask.target],
                        "prompt": mask.prompt,
                        "note": describe_mask(mask),
                    }
                    for mask in case.masks
                ],
            }
            for index, case in enumerate(viewer.cases)
        ],
    }


def _render(report: Report, blocks: Mapping[int, dict[str, Any]], notes: Sequence[str]) -> str:
    remaining = iter(blocks.values())
    sections = [
        {
            "id": f"section-{section.anchor}",
            "title": section.title,
            "blocks": [next(remaining) for _ in section.blocks],
        }
        for section in report.sections
    ]
    script, style = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("viewer.js", "page.css"))
    environment = Environment(
        loader=PackageLoader("duplus_nnunet.model_report", "assets"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        title=report.title,
        summary=report.summary,
        sections=sections,
        notes=notes,
        version=__version__,
        policy=make_policy(script, style),
        # Our own files; everything else is escaped.
        script=Markup(script),  # noqa: S704
        style=Markup(style),  # noqa: S704
    )


def make_policy(script: str, style: str) -> str:
    """Make the content security policy of a page: its own script and style, and pictures that stand in it."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in (script, style)
    ]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
