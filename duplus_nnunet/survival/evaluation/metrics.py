"""How good are risks and survival curves? In come outcomes of held-out patients and what was predicted of them.

Patients are compared within their fold only, since another fold's model may have another scale. Every score is a ratio
of sums over patients or pairs of them, so that a patient bootstrap weighs what was summed once. Higher is better for
concordance and AUC, 0.5 being chance; lower is better for the Brier score.

Source: Harrell et al. 1982; Uno et al. 2011 (concordance) and 2007 (AUC); Graf et al. 1999 (Brier score). Weights of
the censoring are scikit-survival's, and all scores equal its own to 1e-6, the AUC at each horizon. A study's pooled AUC
is of the pairs of all horizons together, which is not its mean AUC: that averages horizons by how survival falls.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.records.outcome import Numbers, Outcome, require_sksurv

_TIED = 1e-8


@dataclass(frozen=True)
class Sums:
    """What a score is the ratio of, in one fold.

    Attributes:
        top: Shape (N) of patients, or (N, N) of pairs.
        bottom: The same.
    """

    top: Numbers
    bottom: Numbers

    def add_up(self, counts: Numbers) -> tuple[Numbers, Numbers]:
        """Add up in draws in which each patient is counted a number of times, counts (B, N); gives (B) and (B)."""
        if self.top.ndim == 1:
            return counts @ self.top, counts @ self.bottom
        return ((counts @ self.top) * counts).sum(1), ((counts @ self.bottom) * counts).sum(1)


def concordance(outcome: Outcome, risk: Numbers, weights: Numbers | None = None) -> Sums:
    """Compare every patient with the event with everybody who had none by then and was under observation.

    Args:
        outcome: Of N patients.
        risk: Higher is worse, (N).
        weights: Of each patient with the event, (N); None: 1, which makes Harrell's concordance of the ratio.
    """
    later = outcome.time[None, :] > outcome.time[:, None]
    at_once = (outcome.time[None, :] == outcome.time[:, None]) & ~outcome.event[None, :]
    comparable = (outcome.event[:, None] & (later | at_once)).astype(np.float64)
    if outcome.entry is not None:
        comparable *= outcome.entry[None, :] < outcome.time[:, None]
    if weights is not None:
        comparable *= weights[:, None]
    return Sums(comparable * _rank(risk), comparable)


def ipcw_weights(train: Outcome, test: Outcome, tau: float) -> Numbers:
    """Return 1 / G(t) of test patients with the event before tau, and 0 of others; G is of the training patients."""
    require_sksurv()
    from sksurv.nonparametric import CensoringDistributionEstimator

    weights = np.zeros(len(test))
    early = test.event & (test.time < tau)
    if early.any():
        estimator = CensoringDistributionEstimator().fit(train.to_sksurv())
        weights[early] = estimator.predict_ipcw(test.take(np.flatnonzero(early)).to_sksurv())
    return weights


def cumulative_dynamic_auc(test: Outcome, risk: Numbers, weights: Numbers, horizon: float) -> Sums:
    """Compare those with the event up to a horizon with those who were followed beyond it: cumulative, dynamic AUC.

    Args:
        test: Of N patients.
        risk: Higher is worse, (N).
        weights: As `ipcw_weights` gives them, of a tau above the horizon, (N).
        horizon: In days.
    """
    cases = weights * (test.event & (test.time <= horizon))
    pairs = cases[:, None] * (test.time > horizon)[None, :]
    return Sums(pairs * _rank(risk), pairs)


def brier_score(train: Outcome, test: Outcome, survival: Numbers, times: Numbers) -> Sums:
    """Sum up Brier scores, integrated over times, of each patient.

    Args:
        train: Whose censoring weighs.
        test: Of N patients.
        survival: Probability that each is free of the event at each time, (N, T).
        times: In days, ascending, (T); within the follow-up of both.
    """
    require_sksurv()
    from sksurv.nonparametric import CensoringDistributionEstimator

    estimator = CensoringDistributionEstimator().fit(train.to_sksurv())
    at_times = estimator.predict_proba(times)
    at_own = estimator.predict_proba(np.minimum(test.time, times[-1]))  # later ones do not count
    had = (test.time[:, None] <= times[None, :]) & test.event[:, None]
    free = test.time[:, None] > times[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(had, survival**2 / at_own[:, None], 0.0)
        parts += np.where(free, (1.0 - survival) ** 2 / at_times[None, :], 0.0)
    mean = parts[:, 0] if len(times) == 1 else np.trapezoid(parts, times, axis=1) / (times[-1] - times[0])
    return Sums(mean, np.ones(len(test)))


def pool(folds: Sequence[Sums], counts: Sequence[Numbers] | None = None) -> Numbers:
    """Return the score of all folds together in each draw, (B); NaN where there is nothing to compare.

    Args:
        folds: Sums of each fold.
        counts: How often each patient was drawn, (B, N) a fold; None: everybody once, B = 1.
    """
    if counts is None:
        counts = [np.ones((1, len(fold.top))) for fold in folds]
    sums = [fold.add_up(count) for fold, count in zip(folds, counts, strict=True)]
    top, bottom = (np.sum([one[part] for one in sums], axis=0) for part in (0, 1))
    found: Numbers = np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
    return found


def _rank(risk: Numbers) -> Numbers:
    """Say of each pair (i, j) whether i has the higher risk: 1, 0, or one half if they are tied."""
    difference = risk[:, None] - risk[None, :]
    ranks: Numbers = np.where(np.abs(difference) <= _TIED, 0.5, (difference > 0).astype(np.float64))
    return ranks
