"""Compares predicted probabilities with what is observed: of voxels, and of the presence of a target in an image.

Expected calibration error (ECE): voxels are put into bins by their probability; the ECE is the mean over bins, weighted
by their number of voxels, of the absolute difference between the mean probability and the observed share of the target.
The maximum calibration error (MCE) is the largest of these differences over bins with a voxel. Voxels of all images are
pooled, so that large images weigh more. Bins of equal width divide 0 to 1 evenly; bins of equal mass are divided at the
quantiles of the probabilities. A bin includes its upper bound, the first one also its lower bound.

Source: Naeini et al. 2015, Obtaining well calibrated probabilities using Bayesian binning (ECE and MCE).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.reporting.bootstrap import BootstrapDraws, Interval, Values, find_interval

BINS = 10
# An image is predicted to contain a target if the probability of that is above this.
PRESENCE_THRESHOLD = 0.5
# Distance in mm, along each axis, up to which a voxel is near a target.
NEIGHBOURHOOD_MM = 10.0
ALL_TARGETS = "(all targets pooled)"
# Bit patterns of float16 from 0 to 1; as integers, they are in the order of the numbers.
_CODES = 0x3C00 + 1


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: The number; NaN if undefined.
        interval: 95 % interval by patient bootstrap; None if undefined.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Bin:
    """A bin of probabilities.

    Attributes:
        low: Lower bound, 0 to 1.
        high: Upper bound, 0 to 1.
        count: Number of voxels, or of images.
        mean_probability: Mean of their probabilities; NaN if there are none.
        observed_share: Share of them that belongs to the target; NaN if there are none.
    """

    low: float
    high: float
    count: int
    mean_probability: float
    observed_share: float


@dataclass(frozen=True)
class Binning:
    """Probabilities in bins, and how far they are from what is observed.

    Attributes:
        bins: The bins in rising order; of equal mass, fewer than ten where one probability is frequent.
        ece: Expected calibration error, 0 to 1, lower is better.
        mce: Maximum calibration error, 0 to 1, lower is better; a bin of few voxels counts as much as any other.
    """

    bins: tuple[Bin, ...]
    ece: Estimate
    mce: float


@dataclass(frozen=True)
class Reliability:
    """Calibration of the probabilities of voxels.

    Attributes:
        cases: Number of images that have such voxels; of pooled targets, of pairs of an image and a target.
        patients: Number of their patients.
        voxels: Number of voxels.
        observed_share: Share of the voxels that belongs to the target.
        equal_width: Bins of equal width.
        equal_mass: Bins of equal mass.
        brier: Brier score, the mean squared difference of probability and truth, 0 to 1, lower is better.
    """

    cases: int
    patients: int
    voxels: int
    observed_share: float
    equal_width: Binning
    equal_mass: Binning
    brier: Estimate


@dataclass(frozen=True)
class PresenceScore:
    """Quality of the predicted probability that an image contains a target.

    Attributes:
        cases: Number of images with a prediction of presence and a reference; of pooled targets, of pairs of an image
            and a target.
        present: Number of those that contain the target.
        brier: Brier score, 0 to 1, lower is better.
        sensitivity: Share of the images with the target whose probability is above 0.5; higher is better.
        specificity: Share of the images without the target whose probability is 0.5 or less; higher is better.
        auc: Area under the ROC curve, 0.5 (chance) to 1, higher is better; NaN unless some images have the target and
            others do not.
        equal_width: Bins of equal width, which count images.
    """

    cases: int
    present: int
    brier: Estimate
    sensitivity: Estimate
    specificity: Estimate
    auc: Estimate
    equal_width: Binning


@dataclass(frozen=True)
class TargetCalibration:
    """Calibration of one target in one source.

    Attributes:
        source: Name of the source.
        target: Name of the target; `(all targets pooled)` for all of the source.
        near: Of voxels near the target: at most 10 mm along each axis from the reference or from where the
            probability is above 0.5; None if there are none.
        all: Of all voxels of the images; background, which is easy, makes these numbers small.
        presence: Of the presence of the target in an image; None if it was not predicted.
    """

    source: str
    target: str
    near: Reliability | None
    all: Reliability | None
    presence: PresenceScore | None = None


@dataclass(frozen=True)
class VoxelCounts:
    """Number of voxels by probability and truth.

    Attributes:
        probabilities: Distinct probabilities in rising order, (V).
        absent: Number of voxels of each that do not belong to the target, (V).
        present: Number of those that do, (V).
    """

    probabilities: NDArray[np.float16]
    absent: NDArray[np.int64]
    present: NDArray[np.int64]


@dataclass(frozen=True)
class PresenceSample:
    """Predicted probability, 0 to 1, that an image of a patient contains a target, and whether it does."""

    patient: str
    probability: float
    present: bool


@dataclass(frozen=True)
class CalibrationReport:
    """Calibration of a folder of predictions.

    Attributes:
        rows: One for each target of each source, and one for all targets of a source.
        notes: Remarks for the reader, one sentence each.
    """

    rows: tuple[TargetCalibration, ...]
    notes: tuple[str, ...] = ()


class VoxelCounter:
    """Counts voxels by probability and truth, part by part, so that little memory is needed."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, _CODES), dtype=np.int64)

    def add(self, probabilities: NDArray[np.float16], truth: NDArray[np.bool_]) -> None:
        """Count voxels.

        Args:
            probabilities: float16, 0 to 1, of any shape.
            truth: Whether each belongs to the target, of the same shape.
        """
        codes = np.ascontiguousarray(probabilities + np.float16(0)).view(np.uint16)  # -0 becomes 0
        for row, chosen in enumerate((~truth, truth)):
            self._counts[row] += np.bincount(codes[chosen], minlength=_CODES)

    def finish(self) -> VoxelCounts:
        """Return the counts of all parts."""
        occurring = np.flatnonzero(self._counts.sum(0))
        absent, present = self._counts[:, occurring]
        return VoxelCounts(occurring.astype(np.uint16).view(np.float16), absent, present)


def find_neighbourhood(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.bool_]:
    """Find the voxels at most 10 mm from a mask along each axis, and at least its direct neighbours.

    Args:
        mask: Boolean mask, (D, H, W).
        spacing: Voxel size along these axes, in mm.
    """
    from scipy.ndimage import maximum_filter1d

    near = mask.astype(np.uint8)
    for axis, width in enumerate(spacing):
        reach = max(1, int(NEIGHBOURHOOD_MM / width + 1e-6))
        near = maximum_filter1d(near, 2 * reach + 1, axis=axis, mode="constant")
    return near.astype(np.bool_)


def measure_reliability(counts: Sequence[tuple[str, VoxelCounts]], draws: BootstrapDraws) -> Reliability | None:
    """Measure the calibration of voxels.

    Args:
        counts: Patient and counts of each image.
        draws: Bootstrap draws of patients.

    Returns:
        None if there is no voxel.
    """
    filled = [(patient, found) for patient, found in counts if len(found.probabilities)]
    if not filled:
        return None
    owners = np.concatenate([np.full(len(found.probabilities), draws.index[patient]) for patient, found in filled])
    probabilities = np.concatenate([found.probabilities for _, found in filled]).astype(np.float64)
    absent = np.concatenate([found.absent for _, found in filled]).astype(np.float64)
    present = np.concatenate([found.present for _, found in filled]).astype(np.float64)
    data = _Weighted(owners, probabilities, absent, present, draws, len({patient for patient, _ in filled}))
    return Reliability(
        cases=len(filled),
        patients=data.patients,
        voxels=int(data.counts.sum()),
        observed_share=float(present.sum() / data.counts.sum()),
        equal_width=_bin(data, np.linspace(0, 1, BINS + 1)),
        equal_mass=_bin(data, _find_quantiles(data)),
        brier=_score_brier(data),
    )


def measure_presence(samples: Sequence[PresenceSample], draws: BootstrapDraws) -> PresenceScore | None:
    """Measure the quality of predicted presence.

    Args:
        samples: One for each image.
        draws: Bootstrap draws of patients.

    Returns:
        None if there is no image.
    """
    if not samples:
        return None
    owners = np.array([draws.index[sample.patient] for sample in samples])
    probabilities = np.array([sample.probability for sample in samples], dtype=np.float64)
    present = np.array([sample.present for sample in samples], dtype=np.float64)
    data = _Weighted(owners, probabilities, 1 - present, present, draws, len(set(owners.tolist())))
    positive = (probabilities > PRESENCE_THRESHOLD).astype(np.float64)
    return PresenceScore(
        cases=len(samples),
        present=int(present.sum()),
        brier=_score_brier(data),
        sensitivity=data.divide(positive * present, present),
        specificity=data.divide((1 - positive) * (1 - present), 1 - present),
        auc=_score_auc(data),
        equal_width=_bin(data, np.linspace(0, 1, BINS + 1)),
    )


@dataclass(frozen=True)
class _Weighted:
    """Probabilities with the number of voxels or images behind them, all (V), and the patients that they are of."""

    owners: NDArray[np.int64]
    probabilities: Values
    absent: Values
    present: Values
    draws: BootstrapDraws
    patients: int

    @property
    def counts(self) -> Values:
        """Number of voxels or images."""
        return self.absent + self.present

    def sum_patients(self, values: Values) -> Values:
        """Sum values over each patient, (P)."""
        return np.bincount(self.owners, weights=values, minlength=len(self.draws.index)).astype(np.float64)

    def divide(self, values: Values, by: Values) -> Estimate:
        """Divide the sum of values by another sum, overall and in every draw."""
        if not by.sum():
            return Estimate(math.nan, None)
        drawn, divisors = self.draws.counts @ self.sum_patients(values), self.draws.counts @ self.sum_patients(by)
        ratios = np.divide(drawn, divisors, out=np.full(len(drawn), np.nan), where=divisors > 0)
        return Estimate(float(values.sum() / by.sum()), find_interval(ratios, self.patients))


def _bin(data: _Weighted, edges: Values) -> Binning:
    number = len(edges) - 1
    index = np.searchsorted(edges[1:-1], data.probabilities)
    counts, expected, observed = (
        np.bincount(index, weights=values, minlength=number)
        for values in (data.counts, data.counts * data.probabilities, data.present)
    )
    filled = counts > 0
    means, shares = (
        np.divide(sums, counts, out=np.full(number, np.nan), where=filled) for sums in (expected, observed)
    )
    bins = tuple(
        Bin(float(edges[row]), float(edges[row + 1]), int(counts[row]), float(means[row]), float(shares[row]))
        for row in range(number)
        if counts[row] or edges[row] < edges[row + 1]  # several quantiles may be equal
    )
    errors = np.zeros(len(data.draws.counts))
    excess = data.counts * data.probabilities - data.present
    for row in range(number):
        errors += np.abs(data.draws.counts @ data.sum_patients(np.where(index == row, excess, 0.0)))
    totals = data.draws.counts @ data.sum_patients(data.counts)
    drawn = np.divide(errors, totals, out=np.full(len(errors), np.nan), where=totals > 0)
    ece = float(np.abs(expected - observed).sum() / counts.sum())
    mce = float(np.nanmax(np.abs(means - shares)))
    return Binning(bins, Estimate(ece, find_interval(drawn, data.patients)), mce)


def _find_quantiles(data: _Weighted) -> Values:
    """Find the quantiles of all probabilities that bound bins of equal mass, (BINS + 1), interpolated linearly."""
    order = np.argsort(data.probabilities, kind="stable")
    values, ranks = data.probabilities[order], np.cumsum(data.counts[order])
    wanted: Values = np.linspace(0, 1, BINS + 1) * (ranks[-1] - 1)
    lower, upper = (values[np.searchsorted(ranks, rank, side="right")] for rank in (np.floor(wanted), np.ceil(wanted)))
    quantiles: Values = lower + (upper - lower) * (wanted - np.floor(wanted))
    return quantiles


def _score_brier(data: _Weighted) -> Estimate:
    errors = data.present * (1 - data.probabilities) ** 2 + data.absent * data.probabilities**2
    return data.divide(errors, data.counts)


def _score_auc(data: _Weighted) -> Estimate:
    """Compute the area under the ROC curve: the share of pairs of a present and an absent target in the right order."""
    from sklearn.metrics import roc_auc_score

    present = data.present > 0
    if present.all() or not present.any():
        return Estimate(math.nan, None)
    value = float(roc_auc_score(present, data.probabilities))
    first, second = data.probabilities[present][:, None], data.probabilities[~present][None]
    pairs = (first > second) + 0.5 * (first == second)
    weights = data.draws.counts[:, data.owners]
    ours, others = weights[:, present], weights[:, ~present]
    divisors = ours.sum(1) * others.sum(1)
    drawn = np.divide(
        ((ours @ pairs) * others).sum(1), divisors, out=np.full(len(divisors), np.nan), where=divisors > 0
    )
    return Estimate(value, find_interval(drawn, data.patients))
