"""Assigns colours to label values, the same in pictures and legends."""

# Readable on grey, and as distinguishable with colour vision deficiency as ten colours can be.
COLOURS = ("#e8743b", "#19a979", "#3f9bf4", "#f2cf3b", "#b565d9", "#ed4a7b", "#5be0e6", "#a3c644", "#c49a6c", "#9fa8da")


def colour(value: int) -> str:
    """Return the colour, `#rrggbb`, of a label value of 1 or more; colours repeat after ten values."""
    return COLOURS[(value - 1) % len(COLOURS)]
