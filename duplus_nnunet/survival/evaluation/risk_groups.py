"""Splits held-out patients into a high- and a low-risk group and compares them by Kaplan-Meier and log-rank test.

The cut-off comes from the training risks of each fold. The test is descriptive only: models of different folds share
training patients, so that held-out predictions are not independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.survival.evaluation.calibration import observe_with_interval
from duplus_nnunet.survival.evaluation.cross_validation import HIGH, LOW, HeldOut
from duplus_nnunet.survival.records.outcome import Outcome, require_sksurv

Names = NDArray[np.str_]


@dataclass(frozen=True)
class RiskGroup:
    """One risk group.

    Attributes:
        name: HIGH or LOW.
        outcome: Outcomes of its patients.
        survival: Kaplan-Meier survival at each horizon with its 95 % interval; None where no patient was followed that
            long.
    """

    name: str
    outcome: Outcome
    survival: tuple[tuple[float | None, tuple[float, float] | None], ...]


@dataclass(frozen=True)
class RiskGroups:
    """Risk groups of one cross-validation.

    Attributes:
        seed: Seed of its folds.
        groups: Low risk first; a group without patients is left out.
        p: p value of the log-rank test; None with a single group, without an event while both groups are at risk, and
            with delayed entry, which the test does not support.
        ungrouped: Number of patients without a risk cut-off.
    """

    seed: int
    groups: tuple[RiskGroup, ...]
    p: float | None
    ungrouped: int


def split_by_risk(seed: int, held: Sequence[HeldOut], outcome: Outcome, horizons: Sequence[float]) -> RiskGroups:
    """Split the held-out patients of one method and seed into risk groups.

    Args:
        seed: Seed of the folds.
        held: Predictions for N patients.
        outcome: Outcomes of the same patients, in the same order.
        horizons: In days.
    """
    names = np.array([prediction.group for prediction in held])
    groups = []
    for name in (LOW, HIGH):
        members = outcome.take(np.flatnonzero(names == name))
        if len(members):
            groups.append(
                RiskGroup(name, members, tuple(observe_with_interval(members, horizon) for horizon in horizons))
            )
    grouped = np.flatnonzero(names != "")
    return RiskGroups(
        seed, tuple(groups), _log_rank_p(outcome.take(grouped), names[grouped]), int(len(names) - len(grouped))
    )


def _log_rank_p(outcome: Outcome, names: Names) -> float | None:
    require_sksurv()
    from sksurv.compare import compare_survival

    if outcome.entry is not None or not _has_variance(outcome, names):
        return None
    _, p = compare_survival(outcome.to_sksurv(), names)
    return float(p)


def _has_variance(outcome: Outcome, names: Names) -> bool:
    """Whether an event occurred while both groups were at risk; otherwise the variance of the test is 0."""
    at_risk = outcome.time[None, :] >= outcome.time[outcome.event][:, None]
    had = outcome.event[None, :] & (outcome.time[None, :] == outcome.time[outcome.event][:, None])
    low = (at_risk & (names == LOW)[None, :]).sum(1)
    total = at_risk.sum(1)
    return bool(((low > 0) & (low < total) & (had.sum(1) < total)).any())
