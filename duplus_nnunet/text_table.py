"""Lays rows of texts out as a table for a terminal."""

from collections.abc import Iterable, Iterator, Sequence


def format_table(rows: Iterable[Sequence[str]], align: str = "", gap: str = "  ", indent: str = "") -> Iterator[str]:
    r"""Yield one line for each row, with columns as wide as their widest cells.

    Args:
        rows: Rows of cells. The last cell of a row with fewer cells than others may reach into the columns behind it.
        align: One of `<` (left) and `>` (right) for each column from the first; those not named are left-aligned.
        gap: What stands between two columns.
        indent: What stands before each line.

    Example:
        >>> print("\n".join(format_table([("target", "Dice"), ("left kidney", "0.9")], align="<>")))
        target       Dice
        left kidney   0.9
    """
    table = [tuple(row) for row in rows]
    count = max(map(len, table), default=0)
    widths = [0] * count
    for row in table:
        for column, cell in enumerate(row if len(row) == count else row[:-1]):
            widths[column] = max(widths[column], len(cell))
    sides = align.ljust(count, "<")
    for row in table:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=False))
        yield (indent + gap.join(cells)).rstrip()
