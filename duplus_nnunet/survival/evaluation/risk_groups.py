"""Patients of high and of low risk: in come held-out patients, out come Kaplan-Meier's curves and a log-rank test.

The cut is of each fold's training risks. The test describes: models of different folds share training patients, so that
held-out patients are not as independent as it takes them to be.
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
    """One group.

    Attributes:
        name: HIGH or LOW.
        outcome: What became of its patients.
        survival: At each horizon with its 95 % interval; None where nobody was followed that long.
    """

    name: str
    outcome: Outcome
    survival: tuple[tuple[float | None, tuple[float, float] | None], ...]


@dataclass(frozen=True)
class RiskGroups:
    """The groups of one cross-validation.

    Attributes:
        seed: Of its folds.
        groups: Low risk first; one that has no patient is left out.
        p: Of the log-rank test; None unless there are both groups, and an event that can tell them apart, and if some
            entered late: the test knows nothing of entries.
        ungrouped: Number of patients without a cut.
    """

    seed: int
    groups: tuple[RiskGroup, ...]
    p: float | None
    ungrouped: int


def split_by_risk(seed: int, held: Sequence[HeldOut], outcome: Outcome, horizons: Sequence[float]) -> RiskGroups:
    """Split held-out patients of one method and seed.

    Args:
        seed: Of the folds.
        held: Predictions of N patients.
        outcome: Of the same, in the same order.
        horizons: In days.
    """
    names = np.array([one.group for one in held])
    groups = []
    for name in (LOW, HIGH):
        own = outcome.take(np.flatnonzero(names == name))
        if len(own):
            groups.append(RiskGroup(name, own, tuple(observe_with_interval(own, horizon) for horizon in horizons)))
    grouped = np.flatnonzero(names != "")
    return RiskGroups(seed, tuple(groups), _test(outcome.take(grouped), names[grouped]), int(len(names) - len(grouped)))


def _test(outcome: Outcome, names: Names) -> float | None:
    require_sksurv()
    from sksurv.compare import compare_survival

    if outcome.entry is not None or not _has_variance(outcome, names):
        return None
    _, p = compare_survival(outcome.to_sksurv(), names)
    return float(p)


def _has_variance(outcome: Outcome, names: Names) -> bool:
    """Whether an event came to some of those who were followed, of both groups: else the test divides by nothing."""
    at_risk = outcome.time[None, :] >= outcome.time[outcome.event][:, None]
    had = outcome.event[None, :] & (outcome.time[None, :] == outcome.time[outcome.event][:, None])
    low = (at_risk & (names == LOW)[None, :]).sum(1)
    everybody = at_risk.sum(1)
    return bool(((low > 0) & (low < everybody) & (had.sum(1) < everybody)).any())
