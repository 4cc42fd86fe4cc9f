"""Scores of one target: every metric beside an independent computation, and the rules for empty masks."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from duplus_nnunet.reporting.target_scores import score_masks

SPACING = (3.0, 1.0, 0.5)
EMPTY = np.zeros((4, 5, 6), bool)
DIAGONAL = math.sqrt(12**2 + 5**2 + 3**2)


def fill(*voxels):
    mask = EMPTY.copy()
    for voxel in voxels:
        mask[voxel] = True
    return mask


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9), st.floats(0.05, 0.9))
def test_overlap_is_that_of_scikit_learn(seed, ours, theirs):
    rng = np.random.default_rng(seed)
    prediction, reference = rng.random((4, 5, 6)) < ours, rng.random((4, 5, 6)) < theirs
    prediction[0, 0, 0] = reference[1, 1, 1] = True
    score, flat = score_masks(prediction, reference, SPACING, 2.0), (reference.ravel(), prediction.ravel())
    assert score.dice == pytest.approx(f1_score(*flat), abs=1e-12)
    assert score.sensitivity == pytest.approx(recall_score(*flat), abs=1e-12)
    assert score.precision == pytest.approx(precision_score(*flat), abs=1e-12)


def test_volumes_in_ml():
    score = score_masks(fill((0, 0, 0), (0, 0, 1), (3, 4, 5)), fill((0, 0, 0), (0, 0, 1)), SPACING, 2.0)
    assert (score.reference_ml, score.predicted_ml) == pytest.approx((0.003, 0.0045))
    assert (score.volume_difference_ml, score.volume_difference_percent) == pytest.approx((0.0015, 50.0))


def test_neither_has_it():
    values = asdict(score_masks(EMPTY, EMPTY, SPACING, 2.0, is_lesion=True))
    zero = ("reference_ml", "predicted_ml", "reference_lesions", "found_lesions", "predicted_lesions", "false_lesions")
    assert [values.pop(name) for name in zero] == [0] * 6
    assert (values.pop("present"), values.pop("predicted")) == (False, False)
    assert all(math.isnan(value) for value in values.values())


def test_false_positive():
    score = score_masks(fill((1, 1, 1), (3, 4, 5)), EMPTY, SPACING, 2.0, is_lesion=True)
    assert (score.present, score.predicted) == (False, True)
    assert (score.dice, score.nsd, score.precision, score.lesion_f1, score.false_lesions) == (0, 0, 0, 0, 2)
    assert (score.hd95_mm, score.assd_mm) == pytest.approx((DIAGONAL, DIAGONAL))
    assert math.isnan(score.sensitivity)
    assert math.isnan(score.volume_difference_percent)
    assert math.isnan(score.lesion_sensitivity)


def test_missed():
    score = score_masks(EMPTY, fill((1, 1, 1)), SPACING, 2.0, is_lesion=True)
    assert (score.present, score.predicted) == (True, False)
    assert (score.dice, score.nsd, score.sensitivity, score.lesion_f1, score.lesion_sensitivity) == (0, 0, 0, 0, 0)
    assert (score.hd95_mm, score.assd_mm, score.false_lesions) == pytest.approx((DIAGONAL, DIAGONAL, 0))
    assert score.volume_difference_percent == -100
    assert math.isnan(score.precision)


def test_single_voxels_at_opposite_corners():
    score = score_masks(fill((0, 0, 0)), fill((3, 4, 5)), SPACING, 2.0)
    # Between the nearest and the farthest corner of the voxels.
    assert (
        math.dist((3, 1, 0.5), (9, 4, 2.5)) - 1e-9
        <= score.assd_mm
        <= score.hd95_mm
        <= math.dist((0, 0, 0), (9, 4, 2.5)) + 1e-9
    )


def test_organ_has_no_scores_of_lesions():
    score = score_masks(fill((1, 1, 1)), fill((1, 1, 1)), SPACING, 2.0)
    assert math.isnan(score.false_lesions)
    assert math.isnan(score.lesion_f1)
