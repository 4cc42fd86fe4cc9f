"""Normalised surface distance."""

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.reporting.surfaces import compute_nsd, find_box, measure_surfaces

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "surface_dice.json").read_text(encoding="utf-8"))
EMPTY = np.zeros((8, 8, 8), bool)


def unpack(text: str) -> np.ndarray[Any, Any]:
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))
    return bits[: math.prod(GOLDEN["shape"])].reshape(GOLDEN["shape"]).astype(bool)


def make_cube(start: int = 2, size: int = 3) -> np.ndarray[Any, Any]:
    mask = EMPTY.copy()
    mask[start : start + size, 2:5, 2:5] = True
    return mask


@pytest.mark.parametrize("pair", GOLDEN["pairs"], ids=lambda pair: pair["name"])
def test_values_are_those_of_another_program(pair: dict[str, Any]) -> None:
    prediction, reference = unpack(pair["prediction"]), unpack(pair["reference"])
    found = [compute_nsd(prediction, reference, pair["spacing"], mm) for mm in GOLDEN["tolerances"]]
    assert found == pytest.approx(pair["surface_dice"], abs=1e-6)


def test_same_masks_agree_without_tolerance() -> None:
    assert compute_nsd(make_cube(), make_cube(), (1, 1, 1), 0) == 1


def test_empty_mask_agrees_with_nothing() -> None:
    assert compute_nsd(EMPTY, make_cube(), (1, 1, 1), 100) == 0
    assert compute_nsd(make_cube(), EMPTY, (1, 1, 1), 100) == 0


def test_two_empty_masks_have_no_value() -> None:
    assert math.isnan(compute_nsd(EMPTY, EMPTY, (1, 1, 1), 1))


def test_shift_by_a_voxel_is_judged_in_millimetres() -> None:
    assert compute_nsd(make_cube(2), make_cube(3), (2, 1, 1), 2.0) == 1
    assert compute_nsd(make_cube(2), make_cube(3), (3, 1, 1), 2.0) < 1


def test_spacing_rounded_in_a_header_does_not_matter() -> None:
    assert compute_nsd(make_cube(2), make_cube(3), (2.0000002, 1, 1), 2.0) == 1


def test_order_of_the_masks_does_not_matter() -> None:
    small, large = make_cube(2, 2), make_cube(2, 4)
    assert compute_nsd(small, large, (1, 2, 3), 1) == compute_nsd(large, small, (1, 2, 3), 1)


def test_box_is_the_smallest_one() -> None:
    assert find_box(make_cube()) == (slice(2, 5),) * 3
    assert find_box(EMPTY) is None


@pytest.mark.parametrize("pair", GOLDEN["pairs"], ids=lambda pair: pair["name"])
def test_distances_are_those_of_another_program(pair: dict[str, Any]) -> None:
    distances = measure_surfaces(unpack(pair["prediction"]), unpack(pair["reference"]), pair["spacing"])
    assert distances.compute_hd95() == pytest.approx(pair["hd95_mm"], abs=1e-6)
    assert distances.compute_assd() == pytest.approx(pair["assd_mm"], abs=1e-6)


def test_distance_between_parallel_faces() -> None:
    distances = measure_surfaces(make_cube(2), make_cube(5), (1, 1, 1))
    assert distances.compute_hd95() == 3
    assert distances.compute_assd() <= 3
