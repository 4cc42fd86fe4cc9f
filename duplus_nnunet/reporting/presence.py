"""Estimates the probability that an image contains a target from the target's logits, by Platt scaling.

The score of an image is its peak logit, the mean of the largest logits over the volume of a small lesion. The maximum
alone is noisy, the more so the larger the image; the volume above 0 does not distinguish a target that is narrowly
missed from one that is clearly absent, and its meaning differs between targets. Platt scaling of a single score has two
parameters, few enough for the small number of validation images. It is fitted to held-out validation cases.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

if TYPE_CHECKING:
    import torch

# mm³, a ball of 6 mm diameter. A volume rather than a number of voxels, so that contexts of different spacing are
# comparable.
PEAK_VOLUME = 100.0
# Total weight, in images, of the pooled images of all targets in the fit of one target. In simulated validations with 5
# to 30 images per target, 8 gave the best calibrated and sharpest probabilities; 1 overfits to few images.
_POOLED_WEIGHT = 8.0

# Peak logit, and whether the target is present.
Sample = tuple[float, bool]
Values = NDArray[np.float64]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


def compute_peak_logits(logits: "torch.Tensor", spacing: Sequence[float]) -> list[float]:
    """Compute the peak logit of each target: the mean of the largest logits over 100 mm³, at least one voxel.

    Args:
        logits: Logits before resampling to the image's grid, (K, D, H, W), of any precision, on any device.
        spacing: Voxel size of that grid along (D, H, W), in mm.

    Returns:
        K peak logits; higher = more likely present.
    """
    count = max(1, round(PEAK_VOLUME / math.prod(spacing)))
    return [_average_largest(channel, count) for channel in logits]


def _average_largest(channel: "torch.Tensor", count: int) -> float:
    rows = channel.reshape(-1, channel.shape[-1])
    # The largest values lie in the rows with the largest maxima; searching the whole image takes 20 times as long.
    chosen = rows[rows.amax(1).topk(min(count, len(rows))).indices].flatten()
    return float(chosen.topk(min(count, len(chosen))).values.double().mean())


@dataclass(frozen=True)
class PlattScaling:
    """Platt scaling of the peak logit of a target; the probability never decreases with the peak logit.

    Attributes:
        slope: Log odds per unit of the peak logit, 0 or more.
        offset: Log odds at a peak logit of 0.
        least: Lower limit of the probability, set by the number of images without their target.
        most: Upper limit of the probability, set by the number of images with their target.
        own: Whether it was fitted to the target's own images; False if to those of all targets.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    slope: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    offset: _Number
    least: _Share
    most: _Share
    own: bool

    def compute_log_odds(self, peak_logit: float) -> float:
        """Compute the log odds that the target is present."""
        least, most = (math.log(share / (1 - share)) for share in (self.least, self.most))
        return min(max(self.slope * peak_logit + self.offset, least), most)


@dataclass(frozen=True)
class PresenceCalibration:
    """The presence calibration of a model.

    Attributes:
        folds: Platt scaling of each target, for each calibrated fold in use.
        notes: Reasons why other folds are not calibrated.
    """

    folds: tuple[Mapping[str, PlattScaling], ...] = ()
    notes: tuple[str, ...] = ()

    def predict_presence(self, target: str, peak_logit: float) -> float | None:
        """Predict the probability, above 0 and below 1, that an image contains a target.

        The log odds of the folds are averaged.

        Args:
            target: Name of the target.
            peak_logit: Its peak logit, in the logits of one fold or in those averaged over all folds in use.

        Returns:
            The probability; None if no fold is calibrated, the model lacks the target, or the peak logit is NaN.
        """
        log_odds = [fits[target].compute_log_odds(peak_logit) for fits in self.folds if target in fits]
        return None if not log_odds or math.isnan(peak_logit) else _sigmoid(sum(log_odds) / len(log_odds))


def _sigmoid(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def fit_platt_scaling(samples: Mapping[str, Sequence[Sample]]) -> dict[str, PlattScaling]:
    """Fit Platt scaling for each target.

    A target with both positive and negative images gets a fit of its own, in which the pooled images of all targets
    together have the weight of eight images. Other targets share the fit to the pooled images. The probabilities hold
    at the prevalence of the given images: where a target is more prevalent, they are too low.

    Args:
        samples: Samples of held-out images with known truth, by target; with an entry for every target of the model,
            also for targets without images.

    Returns:
        Platt scaling by target; empty if all images contain their targets, or none does.

    Source: Platt 1999, with the target probabilities (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0.
    """
    all_samples = [sample for target_samples in samples.values() for sample in target_samples]
    if not _has_both_classes(all_samples):
        return {}
    pooled = _smooth_labels(all_samples)
    labels = pooled[:, 1]
    limits = float(labels.min()), float(labels.max())
    shared = PlattScaling(*_fit(pooled, np.ones(len(pooled))), *limits, own=False)

    def fit_target(target_samples: Sequence[Sample]) -> PlattScaling:
        if not _has_both_classes(target_samples):
            return shared
        weights = np.repeat([1.0, _POOLED_WEIGHT / len(pooled)], [len(target_samples), len(pooled)])
        return PlattScaling(*_fit(np.concatenate([_smooth_labels(target_samples), pooled]), weights), *limits, own=True)

    return {target: fit_target(target_samples) for target, target_samples in samples.items()}


def _has_both_classes(samples: Sequence[Sample]) -> bool:
    return len({present for _, present in samples}) == 2


def _smooth_labels(samples: Sequence[Sample]) -> Values:
    """Return peak logits and smoothed labels, (N, 2); labels strictly between 0 and 1 avoid overconfidence.

    Samples are sorted, so that rounding does not depend on the order of cases.
    """
    values = np.array(sorted(samples), dtype=np.float64)
    positives = values[:, 1].sum()
    values[:, 1] = np.where(values[:, 1] > 0, (positives + 1) / (positives + 2), 1 / (len(values) - positives + 2))
    return values


def _fit(samples: Values, weights: Values) -> tuple[float, float]:
    """Fit a weighted logistic regression to peak logits and labels (N, 2); return slope, 0 or more, and offset."""
    from scipy.optimize import minimize
    from scipy.special import expit

    peak_logits, labels = samples.T
    centre, width = peak_logits.mean(), peak_logits.std() or 1.0
    scaled = (peak_logits - centre) / width

    def compute_loss(parameters: Values) -> tuple[Any, Values]:
        log_odds = parameters[0] * scaled + parameters[1]
        error = weights * (expit(log_odds) - labels)
        loss = weights @ (np.logaddexp(0, log_odds) - labels * log_odds)
        return loss, np.array([error @ scaled, error.sum()])

    bounds, accuracy = [(0, None), (None, None)], {"ftol": 1e-14, "gtol": 1e-8}
    slope, offset = minimize(compute_loss, (0, 0), jac=True, method="L-BFGS-B", bounds=bounds, options=accuracy).x
    return float(slope / width), float(offset - slope * centre / width)
