"""Colours of label values, the same in pictures and legends: in comes a value, out comes a colour as `#rrggbb`."""

# Readable on grey, and apart from one another for the colour-blind as far as seven colours can be.
COLOURS = ("#e8743b", "#19a979", "#3f9bf4", "#f2cf3b", "#b565d9", "#ed4a7b", "#5be0e6", "#a3c644", "#c49a6c", "#9fa8da")


def colour(value: int) -> str:
    """Return the colour of a label value, 1 or more; they come round again after ten."""
    return COLOURS[(value - 1) % len(COLOURS)]
