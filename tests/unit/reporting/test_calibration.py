"""Calibration of probabilities, compared with scikit-learn and with sums over all voxels."""

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score

from duplus_nnunet.reporting.bootstrap import draw_patients
from duplus_nnunet.reporting.calibration import (
    BINS,
    Binning,
    PresenceSample,
    Reliability,
    VoxelCounter,
    measure_presence,
    measure_reliability,
)

DRAWS = draw_patients({"ct": ["a", "b", "c"]}, draws=300)


def make_voxels(seed: int, zeros: int = 0, size: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = np.concatenate([np.zeros(zeros), rng.random(size) ** 2, [1.0, 0.5]]).astype(np.float16)
    return probabilities, rng.random(len(probabilities)) < probabilities.astype(float) ** 1.5


def measure(voxels: dict[str, tuple[np.ndarray, np.ndarray]]) -> Reliability:
    counts = []
    for patient, (probabilities, truth) in voxels.items():
        counter = VoxelCounter()
        for part in np.array_split(np.arange(len(truth)), 3):
            counter.add(probabilities[part], truth[part])
        counts.append((patient, counter.finish()))
    found = measure_reliability(counts, DRAWS)
    assert found is not None
    return found


def join(voxels: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    probabilities, truth = (np.concatenate(parts) for parts in zip(*voxels.values(), strict=True))
    return probabilities.astype(np.float64), truth


@pytest.mark.parametrize("zeros", [0, 300, 5000])
@pytest.mark.parametrize(("strategy", "binning"), [("uniform", "equal_width"), ("quantile", "equal_mass")])
def test_bins_equal_those_of_scikit_learn(strategy: str, binning: str, zeros: int) -> None:
    voxels = {patient: make_voxels(seed, zeros) for seed, patient in enumerate("abc")}
    probabilities, truth = join(voxels)
    shares, means = calibration_curve(truth, probabilities, n_bins=BINS, strategy=strategy)
    found: Binning = getattr(measure(voxels), binning)
    filled = [each for each in found.bins if each.count]
    assert [each.mean_probability for each in filled] == pytest.approx(means.tolist(), abs=1e-9)
    assert [each.observed_share for each in filled] == pytest.approx(shares.tolist(), abs=1e-9)
    assert sum(each.count for each in filled) == len(truth)


def test_ece_mce_and_brier_equal_sums_over_voxels() -> None:
    voxels = {patient: make_voxels(seed, 40) for seed, patient in enumerate("abc")}
    probabilities, truth = join(voxels)
    found = measure(voxels)
    gaps, weights = [], []
    for row in range(BINS):
        inside = (probabilities > row / BINS) & (probabilities <= (row + 1) / BINS)
        inside |= (probabilities == 0) & (row == 0)
        gaps.append(abs(probabilities[inside].mean() - truth[inside].mean()))
        weights.append(inside.mean())
    assert found.equal_width.ece.value == pytest.approx(np.dot(gaps, weights), abs=1e-9)
    assert found.equal_width.mce == pytest.approx(max(gaps), abs=1e-9)
    assert found.brier.value == pytest.approx(brier_score_loss(truth, probabilities), abs=1e-9)
    assert (found.voxels, found.cases, found.patients) == (len(truth), 3, 3)
    assert found.observed_share == pytest.approx(truth.mean())


def test_intervals_are_those_of_drawn_patients() -> None:
    voxels = {patient: make_voxels(seed) for seed, patient in enumerate("abc")}
    found = measure(voxels)
    briers = []
    for draw in DRAWS.counts:
        drawn = [voxels[patient] for patient in "abc" for _ in range(int(draw[DRAWS.index[patient]]))]
        probabilities, truth = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        briers.append(brier_score_loss(truth, probabilities.astype(np.float64)))
    assert found.brier.interval == pytest.approx(tuple(np.quantile(briers, [0.025, 0.975])), abs=1e-9)
    low, high = found.equal_width.ece.interval or (math.nan, math.nan)
    assert 0 <= low < high < 1


def test_probabilities_that_are_observed_have_no_error() -> None:
    probabilities = np.repeat(np.float16([0.25, 0.75]), 8)
    truth = np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0], bool)
    found = measure({"a": (probabilities, truth)})
    assert (found.equal_width.ece.value, found.equal_width.mce, found.equal_mass.ece.value) == (0, 0, 0)
    assert found.equal_width.ece.interval is None


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_images_of_one_probability_are_one_bin(value: float) -> None:
    found = measure({"a": (np.full(5, value, np.float16), np.zeros(5, bool))})
    assert [each.count for each in found.equal_mass.bins] == [5]
    assert found.equal_width.ece.value == found.equal_mass.ece.value == found.brier.value == value


def test_no_voxel_has_no_calibration() -> None:
    assert measure_reliability([("a", VoxelCounter().finish())], DRAWS) is None


def test_presence_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.random(40).round(1)
    truth = rng.random(40) < probabilities
    samples = [
        PresenceSample("abc"[row % 3], float(probability), bool(present))
        for row, (probability, present) in enumerate(zip(probabilities, truth, strict=True))
    ]
    found = measure_presence(samples, DRAWS)
    assert found is not None
    assert found.brier.value == pytest.approx(brier_score_loss(truth, probabilities))
    assert found.auc.value == pytest.approx(roc_auc_score(truth, probabilities))
    assert found.sensitivity.value == pytest.approx(recall_score(truth, probabilities > 0.5))
    assert found.specificity.value == pytest.approx(recall_score(~truth, probabilities <= 0.5))
    aucs = []
    for draw in DRAWS.counts:
        weights = np.array([draw[DRAWS.index[sample.patient]] for sample in samples])
        aucs.append(roc_auc_score(truth, probabilities, sample_weight=weights))
    assert found.auc.interval == pytest.approx(tuple(np.quantile(aucs, [0.025, 0.975])))


def test_presence_of_one_class_has_no_auc() -> None:
    found = measure_presence([PresenceSample("a", 0.9, True), PresenceSample("b", 0.2, True)], DRAWS)
    assert found is not None
    assert (found.sensitivity.value, found.brier.value) == (0.5, pytest.approx((0.01 + 0.64) / 2))
    assert math.isnan(found.auc.value)
    assert math.isnan(found.specificity.value)
    assert measure_presence([], DRAWS) is None
