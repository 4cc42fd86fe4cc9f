"""Estimates the baseline hazard of a model of proportional hazards.

All is computed in logarithms, so that risks may be as far apart as they are where a covariate encodes the outcome.

Source: Breslow 1972, JRSS B 34(2), discussion.
"""

import numpy as np

from duplus_nnunet.survival.records.outcome import Numbers, Outcome


def fit_breslow_baseline(log_hazards: Numbers, outcome: Outcome) -> tuple[Numbers, Numbers]:
    """Fit Breslow's cumulative baseline hazard, that of a patient whose log relative hazard is 0.

    Args:
        log_hazards: Log relative hazards of training patients, (N).
        outcome: Outcomes of the same patients, who are at risk after their entry.

    Returns:
        The distinct event times in days, ascending, and the cumulative hazard at each, both (K).
    """
    times, logs = fit_log_baseline(log_hazards, outcome)
    with np.errstate(over="ignore"):
        return times, np.exp(logs)


def fit_log_baseline(log_hazards: Numbers, outcome: Outcome) -> tuple[Numbers, Numbers]:
    """Fit the logarithm of Breslow's cumulative baseline hazard; otherwise as `fit_breslow_baseline`."""
    times, counts = np.unique(outcome.time[outcome.event], return_counts=True)
    steps = np.log(counts) - _sum_at_risk(np.asarray(log_hazards, np.float64), outcome, times)
    logs: Numbers = np.logaddexp.accumulate(steps) if len(steps) else steps
    return times, logs


def _sum_at_risk(logs: Numbers, outcome: Outcome, times: Numbers) -> Numbers:
    """Return the logarithm of the sum of the hazards of all who are at risk at each time, (K)."""
    if outcome.entry is not None:
        at_risk = outcome.find_at_risk(times)
        sums: Numbers = np.logaddexp.reduce(np.where(at_risk, logs[:, None], -np.inf), axis=0)
        return sums
    order = np.argsort(-outcome.time, kind="stable")
    sums = np.logaddexp.accumulate(logs[order])
    return sums[np.searchsorted(-outcome.time[order], -times, side="right") - 1]
