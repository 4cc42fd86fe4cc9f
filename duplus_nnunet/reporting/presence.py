"""Absent is an answer: in come logits of a target in an image, out comes the probability that it is there at all.

The evidence is one number, the mean of the strongest logits, taken over as much tissue as a small lesion has. The
strongest voxel alone is noise, the more so the larger the image; the volume above 0 is 0 both for what was just missed
and for what is far from there, and means something else in each target. One number asks for two parameters, which is
what the few images of a validation can tell.

What evidence means is learned from validation cases that were not trained on, where the truth is known.
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

# mm³, a ball of 6 mm. A volume rather than a number of voxels, so that contexts of other spacing are comparable.
PEAK_VOLUME = 100.0
# As how many images all images of all targets count beside a target's own. In simulated validations of 5 to 30 images a
# target, 8 gave the best probabilities where both their sharpness and their mean count; 1 trusts few images too much.
_BORROWED = 8.0

# Evidence, and whether the target is there.
Sample = tuple[float, bool]
Values = NDArray[np.float64]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


def measure_evidence(logits: "torch.Tensor", spacing: Sequence[float]) -> list[float]:
    """Measure how strongly an image speaks for each target.

    Args:
        logits: Before they are resampled to the image's grid, (K, D, H, W), of any precision, on any device.
        spacing: Size of a voxel of that grid along (D, H, W), in mm.

    Returns:
        K logits, higher = more likely there: the mean over those voxels, 100 mm³ in all and at least one, that have the
        largest ones.
    """
    count = max(1, round(PEAK_VOLUME / math.prod(spacing)))
    return [_average_largest(channel, count) for channel in logits]


def _average_largest(channel: "torch.Tensor", count: int) -> float:
    rows = channel.reshape(-1, channel.shape[-1])
    # The largest values lie in the rows with the largest maxima; sorting the whole image takes 20 times as long.
    chosen = rows[rows.amax(1).topk(min(count, len(rows))).indices].flatten()
    return float(chosen.topk(min(count, len(chosen))).values.double().mean())


@dataclass(frozen=True)
class Curve:
    """What evidence means for a target; never falls as evidence grows.

    Attributes:
        slope: Log odds a unit of evidence, 0 or more.
        offset: Log odds of evidence 0.
        least: Smallest probability it gives: so many images without their targets cannot make one surer.
        most: Largest probability it gives, likewise.
        own: Whether the target's own images told it; False: those of all targets did.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    slope: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    offset: _Number
    least: _Share
    most: _Share
    own: bool

    def judge(self, evidence: float) -> float:
        """Return the log odds that the target is there."""
        least, most = (math.log(share / (1 - share)) for share in (self.least, self.most))
        return min(max(self.slope * evidence + self.offset, least), most)


@dataclass(frozen=True)
class PresenceCalibration:
    """What evidence means for a model.

    Attributes:
        folds: For each calibrated fold in use, the curve of each target.
        notes: Why other folds are not calibrated.
    """

    folds: tuple[Mapping[str, Curve], ...] = ()
    notes: tuple[str, ...] = ()

    def judge(self, target: str, evidence: float) -> float | None:
        """Return the probability, above 0 and below 1, that a target is in an image; folds are averaged in log odds.

        Args:
            target: Its name.
            evidence: What `measure_evidence` found, in the logits of one fold or in those averaged over all in use.

        Returns:
            None if no fold is calibrated, the target is none of the model's, or the evidence is NaN.
        """
        odds = [curves[target].judge(evidence) for curves in self.folds if target in curves]
        return None if not odds or math.isnan(evidence) else _squash(sum(odds) / len(odds))


def _squash(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))


def fit_curves(samples: Mapping[str, Sequence[Sample]]) -> dict[str, Curve]:
    """Learn what evidence means for each target.

    A target has a curve of its own if images with and without it are there; all targets' images together count as eight
    more of it. Else it has the common curve, of all targets' images. Curves say what is true of images like these: in a
    group of patients of whom more have the target, it is there more often.

    Args:
        samples: Evidence in images that were not trained on and whose truth is known, by target; every target of the
            model, those without any image too.

    Returns:
        Nothing if all images contain their targets, or none does: then it cannot be told.

    Source: Platt 1999, with the targets (N+ + 1) / (N+ + 2) and 1 / (N- + 2) for his 1 and 0.
    """
    everything = [sample for many in samples.values() for sample in many]
    if not _has_both(everything):
        return {}
    common = _soften(everything)
    wanted = common[:, 1]
    limits = float(wanted.min()), float(wanted.max())
    shared = Curve(*_fit(common, np.ones(len(common))), *limits, own=False)

    def make(many: Sequence[Sample]) -> Curve:
        if not _has_both(many):
            return shared
        weights = np.repeat([1.0, _BORROWED / len(common)], [len(many), len(common)])
        return Curve(*_fit(np.concatenate([_soften(many), common]), weights), *limits, own=True)

    return {target: make(many) for target, many in samples.items()}


def _has_both(samples: Sequence[Sample]) -> bool:
    return len({present for _, present in samples}) == 2


def _soften(samples: Sequence[Sample]) -> Values:
    """Return evidence and wanted probability, (N, 2), which is never 0 or 1, so that few images do not make one sure.

    They are sorted: sums, and with them the last digits, shall not depend on the order of cases.
    """
    found = np.array(sorted(samples), dtype=np.float64)
    there = found[:, 1].sum()
    found[:, 1] = np.where(found[:, 1] > 0, (there + 1) / (there + 2), 1 / (len(found) - there + 2))
    return found


def _fit(samples: Values, weights: Values) -> tuple[float, float]:
    """Fit log odds to samples (N, 2) of some weight (N): their slope, 0 or more, and offset."""
    from scipy.optimize import minimize
    from scipy.special import expit

    evidence, wanted = samples.T
    centre, width = evidence.mean(), evidence.std() or 1.0
    scaled = (evidence - centre) / width

    def measure(parameters: Values) -> tuple[Any, Values]:
        odds = parameters[0] * scaled + parameters[1]
        error = weights * (expit(odds) - wanted)
        loss = weights @ (np.logaddexp(0, odds) - wanted * odds)
        return loss, np.array([error @ scaled, error.sum()])

    bounds, accuracy = [(0, None), (None, None)], {"ftol": 1e-14, "gtol": 1e-8}
    found = minimize(measure, (0, 0), jac=True, method="L-BFGS-B", bounds=bounds, options=accuracy).x
    return float(found[0] / width), float(found[1] - found[0] * centre / width)
