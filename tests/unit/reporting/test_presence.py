"""Presence of targets: peak logits, and their Platt scaling."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from duplus_nnunet.reporting.presence import PlattScaling, PresenceCalibration, compute_peak_logits, fit_platt_scaling

# Peak logits.


def test_peak_logit_is_the_mean_of_the_largest_logits_of_100_cubic_millimetres() -> None:
    logits = torch.zeros(1, 10, 10, 10)
    logits[0, 3, 3, :4], logits[0, 7, 7, 7] = 6.0, 30.0
    assert compute_peak_logits(logits, (5, 2, 2)) == [(4 * 6 + 30) / 5]


def test_a_coarse_grid_gives_its_strongest_voxel() -> None:
    logits = torch.arange(8.0).reshape(1, 2, 2, 2) - 20
    assert compute_peak_logits(logits, (8, 8, 8)) == [-13]


def test_an_image_smaller_than_the_peak_is_taken_whole() -> None:
    assert compute_peak_logits(torch.full((1, 2, 2, 2), 3.0), (0.1, 0.1, 0.1)) == [3]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(1, 1, 1), (2, 2, 5), (3, 1, 1)]))
def test_peak_logit_is_that_of_all_voxels_sorted(seed: int, spacing: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, *rng.integers(1, 9, 3))).round(1)
    count = round(100 / math.prod(spacing))
    expected = [np.sort(channel.ravel())[-count:].mean() for channel in logits]
    assert compute_peak_logits(torch.from_numpy(logits), spacing) == pytest.approx(expected)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(4)))
def test_each_target_has_its_own_peak_logit_in_any_order(order: list[int]) -> None:
    logits = torch.randn(4, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    found = compute_peak_logits(logits, (2, 2, 2))
    assert compute_peak_logits(logits[order], (2, 2, 2)) == [found[index] for index in order]


def test_half_precision_is_enough() -> None:
    logits = 10 * torch.randn(1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    assert compute_peak_logits(logits.half(), (1, 1, 1)) == pytest.approx(
        compute_peak_logits(logits, (1, 1, 1)), abs=0.01
    )


# Platt scaling.


def draw(count: int, shift: float = 0.0, seed: int = 0, share: float = 0.5) -> list[tuple[float, bool]]:
    """Draw peak logits with known log odds: those of the share, plus 1.5 times the excess over the shift."""
    rng = np.random.default_rng(seed)
    present = rng.random(count) < share
    peaks = shift + rng.normal(np.where(present, 3.0, -3.0), 2.0)
    return [(float(peak), bool(label)) for peak, label in zip(peaks, present, strict=True)]


def calibrate(**samples: Sequence[tuple[float, bool]]) -> PresenceCalibration:
    fits = fit_platt_scaling(samples)
    return PresenceCalibration((fits,) if fits else ())


def test_the_fit_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    samples = draw(60, seed=3)
    peaks, present = np.array(samples).T
    positives = present.sum()
    labels = np.where(present == 1, (positives + 1) / (positives + 2), 1 / (60 - positives + 2))
    other = LogisticRegression(C=1e9, tol=1e-10, max_iter=10_000)
    other.fit(np.tile(peaks, 2)[:, None], np.repeat([1, 0], 60), np.concatenate([labels, 1 - labels]))
    curve = next(iter(fit_platt_scaling({"a": samples[:0], "b": samples}).values()))
    assert (curve.slope, curve.offset) == pytest.approx((other.coef_[0, 0], other.intercept_[0]), rel=1e-3)


def test_probabilities_hold_in_images_that_were_not_fitted() -> None:
    calibration, fresh = calibrate(a=draw(300)), draw(6000, seed=1)
    found = np.array([calibration.predict_presence("a", evidence) for evidence, _ in fresh])
    present = np.array([there for _, there in fresh])
    for low in np.arange(0, 1, 0.2):
        chosen = (found >= low) & (found < low + 0.2)
        error = (found[chosen] * (1 - found[chosen])).sum() ** 0.5 / chosen.sum()
        assert present[chosen].mean() == pytest.approx(found[chosen].mean(), abs=4 * error + 0.05)


SAMPLES = st.lists(st.tuples(st.floats(-100, 100), st.booleans()), max_size=8)


@settings(max_examples=60, deadline=None)
@given(SAMPLES, SAMPLES, st.lists(st.floats(-1000, 1000), min_size=2, max_size=5))
def test_probability_never_decreases_with_the_peak_logit_and_nothing_is_certain(
    one: list[tuple[float, bool]], other: list[tuple[float, bool]], evidence: list[float]
) -> None:
    calibration = calibrate(one=one, other=other)
    for target in ("one", "other"):
        found = [calibration.predict_presence(target, value) for value in sorted(evidence)]
        if len({present for _, present in one + other}) < 2:
            assert found == [None] * len(evidence)
        else:
            known = [value for value in found if value is not None]
            assert len(known) == len(evidence)
            assert known == sorted(known)
            assert all(0 < value < 1 for value in known)


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_cases_changes_nothing(random: Any) -> None:
    samples = draw(20)
    shuffled = random.sample(samples, len(samples))
    assert asdict(fit_platt_scaling({"a": shuffled})["a"]) == pytest.approx(
        asdict(fit_platt_scaling({"a": samples})["a"])
    )


def test_a_target_that_is_always_there_has_the_curve_of_all() -> None:
    curves = fit_platt_scaling({"always": [(8.0, True), (9.0, True)], "mixed": draw(20), "unseen": []})
    assert not curves["always"].own
    assert curves["mixed"].own
    assert curves["unseen"] == curves["always"]


def test_a_target_with_many_images_has_a_curve_of_its_own() -> None:
    calibration = calibrate(far=draw(300, shift=20.0, seed=1), near=draw(300, seed=2))
    assert calibration.predict_presence("far", 17) == pytest.approx(0, abs=0.1)
    assert calibration.predict_presence("far", 23) == pytest.approx(1, abs=0.1)
    assert calibration.predict_presence("near", 3) == pytest.approx(1, abs=0.1)


def test_two_images_do_not_outweigh_those_of_all_targets() -> None:
    calibration = calibrate(few=[(6.0, False), (5.9, True)], many=draw(200), none=[])
    few, common = (calibration.predict_presence(target, 6.0) for target in ("few", "none"))
    assert few is not None
    assert common is not None
    assert (few > 0.5) == (common > 0.5)
    assert few < common


def test_slope_is_never_negative() -> None:
    curve = fit_platt_scaling({"a": [(5.0, False), (5.0, False), (-5.0, True), (-5.0, True)]})["a"]
    assert curve.slope == 0
    assert curve.compute_log_odds(5.0) == pytest.approx(0, abs=1e-6)


def test_few_absent_images_do_not_make_absence_certain() -> None:
    calibration = calibrate(a=[*[(8.0, True)] * 20, (-8.0, False)])
    assert calibration.predict_presence("a", -100.0) == pytest.approx(1 / 3)
    assert calibration.predict_presence("a", 100.0) == pytest.approx(21 / 22)


@pytest.mark.parametrize("samples", [[], [(8.0, True)] * 5, [(-8.0, False)] * 5])
def test_without_both_kinds_of_image_there_is_no_answer(samples: list[tuple[float, bool]]) -> None:
    assert calibrate(a=samples).predict_presence("a", 3.0) is None


def test_a_text_that_is_none_of_the_models_targets_has_no_answer() -> None:
    assert calibrate(a=draw(20)).predict_presence("renal pelvis", 3.0) is None


def test_nan_has_no_probability() -> None:
    assert calibrate(a=draw(20)).predict_presence("a", math.nan) is None


def test_folds_are_averaged_in_log_odds() -> None:
    folds = [PlattScaling(slope, offset, 0.001, 0.999, True) for slope, offset in ((1.0, 0.0), (3.0, 1.0))]
    found = PresenceCalibration(tuple({"a": curve} for curve in folds)).predict_presence("a", 0.5)
    assert found == pytest.approx(1 / (1 + math.exp(-(0.5 + 2.5) / 2)))
