"""Colours and line styles of label values."""

import matplotlib.colors
import numpy as np
import pytest
from numpy.typing import NDArray

from duplus_nnunet.reporting.colours import COLOURS, DASHES, SOLID, choose_dashes, colour

# Linear RGB as a person without one kind of cones sees it. Source: Machado, Oliveira, Fernandes, IEEE TVCG 15 (2009).
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def to_lab(colours: tuple[str, ...], deficiency: object) -> NDArray[np.float64]:
    """Return CIELAB coordinates, shape (N, 3), as seen with a deficiency."""
    values = np.array([matplotlib.colors.to_rgb(text) for text in colours])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(deficiency), 0, 1) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    x, y, z = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_differ_for_colour_blind_readers_too(deficiency: str) -> None:
    lab = to_lab(COLOURS, DEFICIENCIES[deficiency])
    distances = np.linalg.norm(lab[:, None] - lab, axis=2)[~np.eye(len(COLOURS), dtype=bool)]
    assert distances.min() > 15  # a difference of 2.3 is just noticeable; the palette before had 4.8


def test_colours_repeat_in_another_line_style() -> None:
    assert colour(1) == COLOURS[0] == colour(1 + len(COLOURS))
    assert choose_dashes([1, 1 + len(COLOURS)]) == {1: SOLID, 1 + len(COLOURS): DASHES[1]}


@pytest.mark.parametrize("values", [range(1, 85), range(1, 85, 7), (1, 85), (85, 1, 169)])
def test_no_two_values_have_colour_and_line_style_in_common(values: tuple[int, ...]) -> None:
    dashes = choose_dashes(values)
    assert len({(colour(value), dashes[value]) for value in values}) == len(values)


def test_line_style_does_not_depend_on_the_other_values_unless_it_must() -> None:
    assert choose_dashes([30, 9])[9] == choose_dashes([9])[9]


def test_more_values_than_styles_are_drawn_too() -> None:
    assert set(choose_dashes(range(1, 500))) == set(range(1, 500))
