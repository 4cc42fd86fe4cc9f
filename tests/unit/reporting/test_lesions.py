"""Counts of lesions, beside brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duplus_nnunet.reporting.lesions import Lesions, count_lesions


def find_components(mask):
    """Find connected components as sets of voxels, by flooding."""
    left, found = set(map(tuple, np.argwhere(mask))), []
    while left:
        component, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            component.add(voxel)
            near = {tuple(np.add(voxel, step)) for step in itertools.product((-1, 0, 1), repeat=3)} & left
            left -= near
            edge += near
        found.append(component)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.3), st.floats(0, 0.3))
def test_counts_are_those_of_brute_force(seed, ours, theirs):
    rng = np.random.default_rng(seed)
    prediction, reference = rng.random((4, 5, 6)) < ours, rng.random((4, 5, 6)) < theirs
    predicted, true = find_components(prediction), find_components(reference)
    assert count_lesions(prediction, reference) == Lesions(
        reference=len(true),
        found=sum(any(prediction[voxel] for voxel in component) for component in true),
        predicted=len(predicted),
        false=sum(not any(reference[voxel] for voxel in component) for component in predicted),
    )


@pytest.mark.parametrize(
    ("lesions", "sensitivity", "precision", "f1"),
    [
        (Lesions(0, 0, 0, 0), math.nan, math.nan, math.nan),
        (Lesions(2, 0, 0, 0), 0.0, math.nan, 0.0),
        (Lesions(0, 0, 3, 3), math.nan, 0.0, 0.0),
        (Lesions(2, 0, 1, 1), 0.0, 0.0, 0.0),
        (Lesions(2, 2, 1, 0), 1.0, 1.0, 1.0),
        (Lesions(4, 1, 2, 1), 0.25, 0.5, 1 / 3),
    ],
)
def test_shares(lesions, sensitivity, precision, f1):
    found = (lesions.sensitivity, lesions.precision, lesions.f1)
    assert found == pytest.approx((sensitivity, precision, f1), nan_ok=True)


def test_voxels_that_meet_at_a_corner_are_one_lesion():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert count_lesions(mask, mask) == Lesions(1, 1, 1, 0)
