"""Computes concordance, cumulative/dynamic AUC and Brier score of predictions for held-out patients.

Patients are compared within their fold only, as risks of different models may differ in scale. Every score is a ratio
of sums over patients or pairs of patients; the share of each patient in both sums is kept for the standard error.
Concordance and AUC: higher is better, 0.5 is chance. Brier score: lower is better.

Source: Harrell et al. 1982; Uno et al. 2011 (concordance) and 2007 (AUC); Graf et al. 1999 (Brier score). The weight of
a patient with the event at t is 1 / G(t-), where G(t-) is the probability of being uncensored just before t (see
censoring.py). scikit-survival takes 1 / G(t): its scores are the same to 1e-6 (the AUC at each horizon) where no event
and no censoring share a time, and differ where they do. The pooled AUC of a study pools the pairs of all horizons;
scikit-survival's mean AUC weights horizons by the drop of survival instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.censoring import estimate_censoring
from duplus_nnunet.survival.evaluation.pairs import compare_matrix, compare_pairs
from duplus_nnunet.survival.records.outcome import Numbers, Outcome


@dataclass(frozen=True)
class Sums:
    """Numerator and denominator of a score in one fold, as sums over its patients.

    Attributes:
        top: Share of each patient in the numerator, (N).
        bottom: Share of each patient in the denominator, (N).
        of_pairs: Whether the sums are over pairs of patients, each half to each of its two patients. Such a sum changes
            by twice the share of a patient who is added or left out.
    """

    top: Numbers
    bottom: Numbers
    of_pairs: bool = False


def concordance(outcome: Outcome, risk: Numbers, weights: Numbers | None = None) -> Sums:
    """Compare each patient with the event with every patient at risk who was event-free at that time.

    With competing events, also with patients who had one before: they stay free of the event (Wolbers' concordance).

    Args:
        outcome: Outcomes of N patients.
        risk: Higher is worse, (N).
        weights: Weight of each patient with the event, (N). None: Harrell's concordance; squared IPCW weights: Uno's.

    Example:
        >>> outcome = Outcome(np.array([True, True, False]), np.array([100.0, 200.0, 300.0]))
        >>> # The patient with the first event has the highest risk.
        >>> pool([concordance(outcome, np.array([3.0, 2.0, 1.0]))])
        1.0
        >>> pool([concordance(outcome, np.array([0.0, 0.0, 0.0]))])
        0.5
    """
    own = outcome.event.astype(np.float64) if weights is None else np.where(outcome.event, weights, 0.0)
    # At equal times, events come before censorings.
    order = (2 * np.unique(outcome.time, return_inverse=True)[1] + ~outcome.event).astype(np.float64)
    pairs = compare_pairs(risk, own, order, order)
    if outcome.entry is not None:
        # Who came under observation at that time or later, and so was followed for longer, was not at risk.
        pairs = pairs.subtract(compare_pairs(risk, own, np.nextafter(outcome.time, 0.0), outcome.entry))
    if outcome.competing is not None:
        pairs = pairs.add(compare_matrix(risk, list_pairs_with_ended(outcome, weights)))
    return Sums(pairs.better, pairs.all, of_pairs=True)


def list_pairs_with_ended(outcome: Outcome, weights: Numbers | None) -> Numbers:
    """Return the weights of pairs of a patient with the event and one with an earlier competing event, (N, N).

    The latter will never have the event, and so is expected to have the lower risk; the pair is censored by both, and
    weighs 1 / (G(s-) G(t-)). Source: Wolbers et al. 2009 (doi 10.1097/EDE.0b013e3181a39056) and 2014 (doi
    10.1093/biostatistics/kxt059).

    Args:
        outcome: Outcomes of N patients.
        weights: As in `concordance`: None, or squared IPCW weights, also of patients with a competing event.
    """
    competing = np.zeros(len(outcome), bool) if outcome.competing is None else outcome.competing
    earlier = outcome.time[None, :] < outcome.time[:, None]
    pairs = (outcome.event[:, None] & competing[None, :] & earlier).astype(np.float64)
    if weights is not None:
        pairs *= np.sqrt(weights)[:, None] * np.sqrt(weights)[None, :]
    return pairs


def ipcw_weights(train: Outcome, test: Outcome, tau: float) -> Numbers:
    """Return IPCW weights (N): 1 / G(t-) for test patients with the event at t before tau (days), else 0.

    Patients with a competing event have weights too; what compares patients with the event leaves them out.

    G, the probability of being uncensored, is estimated in the training patients.

    Raises:
        DataError: The event of a test patient is after the follow-up of the training patients, or where all of them
            were censored.
    """
    weights = np.zeros(len(test))
    early = test.ended & (test.time < tau)
    uncensored = estimate_censoring(train).before(test.time[early])
    _require_uncensored(uncensored, test.time[early])
    weights[early] = 1 / uncensored
    return weights


def _require_uncensored(uncensored: Numbers, times: Numbers) -> None:
    if (uncensored <= 0).any():
        raise DataError(
            f"All training patients were censored before {times[uncensored <= 0].min():g} days, so that later events "
            "have no weight. Choose an earlier horizon."
        )


def cumulative_dynamic_auc(test: Outcome, risk: Numbers, weights: Numbers, horizon: float) -> Sums:
    """Compare patients with the event by a horizon with patients followed beyond it: cumulative/dynamic AUC.

    Patients with a competing event by then are in neither group. Source: Blanche et al. 2013 (doi 10.1002/sim.5958),
    first definition.

    Args:
        test: Outcomes of N patients.
        risk: Higher is worse, (N).
        weights: IPCW weights for a tau above the horizon, (N).
        horizon: In days.
    """
    cases = weights * (test.event & (test.time <= horizon))
    pairs = compare_pairs(risk, cases, np.full(len(risk), 0.5), (test.time > horizon).astype(np.float64))
    return Sums(pairs.better, pairs.all, of_pairs=True)


def brier_score(train: Outcome, test: Outcome, survival: Numbers, times: Numbers) -> Sums:
    """Compute the Brier score, integrated over time, of each patient.

    At each time u, patients with the event at t <= u have the weight 1 / G(t-), patients free of it 1 / G(u), and
    patients censored by then 0.

    Args:
        train: Outcomes of the training patients, from which the censoring distribution is estimated.
        test: Outcomes of N patients.
        survival: Predicted event-free probability at each time, (N, T).
        times: In days, ascending, (T); within the follow-up of both.

    Raises:
        DataError: A time is after the follow-up of the training patients, or all of them were censored by then.
    """
    censoring = estimate_censoring(train)
    at_times = censoring.at(times)
    _require_uncensored(at_times, times)
    before_own = censoring.before(np.minimum(test.time, times[-1]))  # later times have no weight
    had = (test.time[:, None] <= times[None, :]) & test.event[:, None]
    free = test.time[:, None] > times[None, :]
    parts = np.where(had, survival**2 / before_own[:, None], 0.0)
    parts += np.where(free, (1.0 - survival) ** 2 / at_times[None, :], 0.0)
    if test.competing is not None:
        stays = (test.time[:, None] <= times[None, :]) & test.competing[:, None]
        parts += np.where(stays, (1.0 - survival) ** 2 / before_own[:, None], 0.0)
    mean = parts[:, 0] if len(times) == 1 else np.trapezoid(parts, times, axis=1) / (times[-1] - times[0])
    return Sums(mean, np.ones(len(test)))


def pool(folds: Sequence[Sums]) -> float:
    """Return the score over all folds; NaN if there is nothing to compare."""
    top, bottom = (float(sum(part.sum() for part in parts)) for parts in _list_parts(folds))
    return top / bottom if bottom > 0 else math.nan


def _list_parts(folds: Sequence[Sums]) -> tuple[list[Numbers], list[Numbers]]:
    return [fold.top for fold in folds], [fold.bottom for fold in folds]
