"""Assigns colours to label values, the same in pictures and legends, and line styles to values of one colour."""

from collections.abc import Iterable
from typing import Literal

# Source: Okabe and Ito, "Color universal design" (2008): distinguishable with each kind of colour vision deficiency.
# Their black is left out, since pictures are dark.
ORANGE, SKY_BLUE, GREEN, YELLOW = "#e69f00", "#56b4e9", "#009e73", "#f0e442"
VERMILION, PURPLE, BLUE = "#d55e00", "#cc79a7", "#0072b2"
COLOURS = (ORANGE, SKY_BLUE, GREEN, YELLOW, VERMILION, PURPLE, BLUE)

# Lengths of dashes and gaps, in line widths; the first ones are the easiest to tell apart.
Dashes = tuple[float, ...]
SOLID: Dashes = ()
DASHES: tuple[Dashes, ...] = (
    SOLID,
    (4, 1.5),
    (1, 1.5),
    (6, 1.5, 1, 1.5),
    (10, 3),
    (6, 1.5, 1, 1.5, 1, 1.5),
    (2, 2),
    (10, 1.5, 3, 1.5),
    (1, 4),
    (5, 5),
    (3, 1.5, 3, 1.5, 1, 1.5),
    (14, 2, 1, 2),
)


def colour(value: int) -> str:
    """Return the colour, `#rrggbb`, of a label value of 1 or more; colours repeat after seven values."""
    return COLOURS[(value - 1) % len(COLOURS)]


def colour_answer(value: int, seen: bool, texts: int) -> str:
    """Return the colour of an answer to one of several questions.

    Args:
        value: Label value of the answer.
        seen: Whether it is a target of the training; other texts share a label value, and get one colour after another.
        texts: Number of other texts that were answered before.
    """
    return colour(value if seen else value + texts)


def choose_dashes(values: Iterable[int]) -> dict[int, Dashes]:
    """Choose line styles, so that no two label values have both colour and style in common.

    A value keeps the style that its number gives unless an earlier value has it; twelve values of one colour differ.

    Args:
        values: Label values of 1 or more, the most important first.

    Returns:
        Lengths of dashes and gaps, in line widths, by value; empty: a solid line.
    """
    chosen: dict[int, Dashes] = {}
    for value in values:
        taken = {dashes for other, dashes in chosen.items() if colour(other) == colour(value)}
        usual = DASHES[(value - 1) // len(COLOURS) % len(DASHES)]
        free = [dashes for dashes in (usual, *DASHES) if dashes not in taken]
        chosen.setdefault(value, free[0] if free else usual)
    return chosen


def to_line_style(dashes: Dashes) -> Literal["solid"] | tuple[float, Dashes]:
    """Return a line style in Matplotlib's form."""
    return (0, dashes) if dashes else "solid"
