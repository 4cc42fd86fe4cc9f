"""Estimates hazard ratios of covariates by a Cox model of all patients, with confidence intervals.

They describe associations in these patients; the model is not the one whose predictions are evaluated.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.encoding import fit_encoder
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, read_outcome, require_sksurv
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record

_NORMAL = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
_LARGEST_SCORE = 1e-4
# Beyond these, an estimate diverges: a covariate separates patients with and without the event.
_LARGEST_COEFFICIENT, _LARGEST_ERROR = 15.0, 10.0


@dataclass(frozen=True)
class HazardRatio:
    """Hazard ratio of one encoded covariate, adjusted for all others.

    Attributes:
        name: Name of the covariate, with the category where there are several; the most common one is the reference.
        per: What the ratio is per: the standard deviation of a number, or "".
        ratio: Hazard ratio; above 1: worse. NaN: it has no finite estimate.
        low: Lower limit of its 95 % confidence interval (Wald); NaN without an estimate.
        high: Upper limit.
    """

    name: str
    per: str
    ratio: float
    low: float
    high: float


def estimate_hazard_ratios(records: Sequence[Record], schema: ClinicalSchema) -> tuple[HazardRatio, ...]:
    """Estimate the hazard ratios of all covariates that vary; with competing events, cause-specific ones.

    Numbers are per standard deviation. Ties by Breslow's method, without a penalty.

    Raises:
        DataError: A patient has a delayed entry, which the model does not support, there are no more events than
            parameters, or parameters determine one another.
    """
    encoder, outcome = fit_encoder(records, schema), read_outcome(records)
    encoded, _ = encoder.encode(records)
    varying = np.ptp(encoded, axis=0) > 0 if len(records) else np.zeros(0, bool)
    per = [
        f"{column.scale:.3g}" if not column.categories and not name.endswith(" is missing") else ""
        for column in encoder.columns
        for name in column.names
    ]
    names = [(name, unit) for name, unit, varies in zip(encoder.names, per, varying, strict=True) if varies]
    if not names:
        return ()
    coefficients, errors = fit_cox(encoded[:, varying].astype(np.float64), outcome)
    finite = (np.abs(coefficients) < _LARGEST_COEFFICIENT) & (errors < _LARGEST_ERROR)
    ratios = [
        HazardRatio(name, unit, *(math.exp(value + factor * error) for factor in (0, -_NORMAL, _NORMAL)))
        if known
        else HazardRatio(name, unit, math.nan, math.nan, math.nan)
        for (name, unit), value, error, known in zip(names, coefficients, errors, finite, strict=True)
    ]
    return tuple(ratios)


def fit_cox(x: Numbers, outcome: Outcome) -> tuple[Numbers, Numbers]:
    """Fit a Cox model without a penalty; returns coefficients and standard errors, both (P).

    Args:
        x: Covariates, (N, P).
        outcome: Outcomes of the same patients.

    Raises:
        DataError: As in `estimate_hazard_ratios`, or the fit did not converge.
    """
    require_sksurv()
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    outcome = replace(outcome, competing=None)
    events, parameters = int(outcome.event.sum()), x.shape[1]
    if outcome.entry is not None:
        raise DataError("Hazard ratios are not estimated: Cox here does not support delayed entry (left truncation).")
    if events <= parameters or np.linalg.matrix_rank(x - x.mean(0)) < parameters:
        raise DataError(
            f"Hazard ratios are not estimated: {events} events do not allow {parameters} parameters, or parameters "
            "determine one another. Use fewer covariates."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # convergence is tested below
            model = CoxPHSurvivalAnalysis(alpha=0, n_iter=200, tol=1e-12).fit(x, outcome.to_sksurv())
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise DataError(f"Hazard ratios are not estimated: the Cox model cannot be fitted ({error}).") from error
    score, information = _differentiate(np.asarray(model.coef_), x, outcome)
    if not np.isfinite(score).all() or np.abs(score).max() > _LARGEST_SCORE * events:
        raise DataError("Hazard ratios are not estimated: the Cox model did not converge. Use fewer covariates.")
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(np.diag(np.linalg.pinv(information, hermitian=True)))
    return np.asarray(model.coef_, np.float64), np.where(np.diag(information) > 1e-6, errors, np.inf)


def _differentiate(coefficients: Numbers, x: Numbers, outcome: Outcome) -> tuple[Numbers, Numbers]:
    """Return score (P) and information (P, P) of Breslow's partial likelihood."""
    logs = x @ coefficients
    weights = np.exp(logs - logs.max())
    score, information = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    for time, count in zip(*np.unique(outcome.time[outcome.event], return_counts=True), strict=True):
        at_risk = outcome.time >= time
        share = weights[at_risk] / weights[at_risk].sum()
        mean = share @ x[at_risk]
        centred = x[at_risk] - mean
        score += x[outcome.event & (outcome.time == time)].sum(0) - count * mean
        information += count * (centred.T * share) @ centred
    return score, information
