"""Estimates hazard ratios of covariates by a Cox model of all patients, with confidence intervals.

They describe associations in these patients; the model is not the one whose predictions are evaluated.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.rubin import pool_imputations
from duplus_nnunet.survival.models.delayed_entry import differentiate, fit_delayed_entry
from duplus_nnunet.survival.records.encoding import RecordEncoder, fit_encoder
from duplus_nnunet.survival.records.imputation import has_missing, impute
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, read_outcome, require_sksurv
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record

_NORMAL = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
_SEED = 0
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

    Numbers are per standard deviation. Ties by Breslow's method, without a penalty. If the schema asks for imputations
    and values are missing, the coefficients of all imputations are pooled by Rubin's rules.

    Raises:
        DataError: There are no more events than parameters, or parameters determine one another.
    """
    encoder, outcome = fit_encoder(records, schema), read_outcome(records)
    encoded = _encode_imputations(records, schema, encoder)
    varying = np.ptp(encoded, axis=1).min(axis=0) > 0 if len(records) else np.zeros(0, bool)
    per = [
        f"{column.scale:.3g}" if not column.categories and not name.endswith(" is missing") else ""
        for column in encoder.columns
        for name in column.names
    ]
    names = [(name, unit) for name, unit, varies in zip(encoder.names, per, varying, strict=True) if varies]
    if not names:
        return ()
    fits = [fit_cox(x[:, varying], outcome) for x in encoded]
    coefficients, errors = (np.array(part) for part in zip(*fits, strict=True))
    finite = ((np.abs(coefficients) < _LARGEST_COEFFICIENT) & (errors < _LARGEST_ERROR)).all(0)
    if len(fits) == 1:
        values, widths = coefficients[0], _NORMAL * errors[0]
    else:
        pooled = pool_imputations(coefficients, np.where(finite, errors, 0.0))
        values, widths = pooled.values, pooled.half_widths
    ratios = [
        HazardRatio(name, unit, *(math.exp(value + sign * width) for sign in (0, -1, 1)))
        if known
        else HazardRatio(name, unit, math.nan, math.nan, math.nan)
        for (name, unit), value, width, known in zip(names, values, widths, finite, strict=True)
    ]
    return tuple(ratios)


def _encode_imputations(records: Sequence[Record], schema: ClinicalSchema, encoder: RecordEncoder) -> Numbers:
    """Return the encoded records of each imputation, (M, N, P); of the records as they are, (1, N, P), without any."""
    completed: list[Sequence[Record]] = [records]
    if schema.imputations and has_missing(records, schema):
        completed = [each.train for each in impute(records, (), schema, schema.imputations, _SEED)]
    return np.stack([encoder.encode(each)[0] for each in completed]).astype(np.float64)


def fit_cox(x: Numbers, outcome: Outcome) -> tuple[Numbers, Numbers]:
    """Fit a Cox model without a penalty; returns coefficients and standard errors, both (P).

    Args:
        x: Covariates, (N, P).
        outcome: Outcomes of the same patients.

    Raises:
        DataError: As in `estimate_hazard_ratios`, or the fit did not converge.
    """
    outcome = replace(outcome, competing=None)
    events, parameters = int(outcome.event.sum()), x.shape[1]
    if events <= parameters or np.linalg.matrix_rank(x - x.mean(0)) < parameters:
        raise DataError(
            f"Hazard ratios are not estimated: {events} events do not allow {parameters} parameters, or parameters "
            "determine one another. Use fewer covariates."
        )
    coefficients = _fit(x, outcome)
    fitted = differentiate(coefficients, x - x.mean(0), outcome)
    if not np.isfinite(fitted.score).all() or np.abs(fitted.score).max() > _LARGEST_SCORE * events:
        raise DataError("Hazard ratios are not estimated: the Cox model did not converge. Use fewer covariates.")
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(np.diag(np.linalg.pinv(fitted.information, hermitian=True)))
    return coefficients, np.where(np.diag(fitted.information) > 1e-6, errors, np.inf)


def _fit(x: Numbers, outcome: Outcome) -> Numbers:
    """Return the coefficients, (P), by scikit-survival, or by `fit_delayed_entry` where patients have entries."""
    require_sksurv()
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    try:
        if outcome.entry is not None:
            return fit_delayed_entry(x, outcome).coef_
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # convergence is tested by the caller
            model = CoxPHSurvivalAnalysis(alpha=0, n_iter=200, tol=1e-12).fit(x, outcome.to_sksurv())
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise DataError(f"Hazard ratios are not estimated: the Cox model cannot be fitted ({error}).") from error
    return np.asarray(model.coef_, np.float64)
