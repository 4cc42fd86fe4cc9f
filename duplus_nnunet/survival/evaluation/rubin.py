"""Pools estimates of several imputations by Rubin's rules.

Source: Rubin 1987, Multiple Imputation for Nonresponse in Surveys (doi 10.1002/9780470316696), section 3.1.
"""

from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.records.outcome import Numbers

_LEVEL = 0.95


@dataclass(frozen=True)
class PooledEstimates:
    """Estimates of P parameters over several imputations.

    Attributes:
        values: Means over imputations, (P).
        errors: Standard errors, from the variance within and between imputations, (P).
        freedom: Degrees of freedom of the t distribution of each; infinite where imputations agree, (P).
    """

    values: Numbers
    errors: Numbers
    freedom: Numbers

    @property
    def half_widths(self) -> Numbers:
        """Half of the width of each 95 % confidence interval, (P)."""
        from scipy.stats import t

        widths: Numbers = t.ppf((1 + _LEVEL) / 2, self.freedom) * self.errors
        return widths


def pool_imputations(values: Numbers, errors: Numbers) -> PooledEstimates:
    """Pool estimates.

    Args:
        values: Estimates of each imputation, (M, P); M is 2 or more.
        errors: Their standard errors, (M, P).
    """
    count = len(values)
    within, between = np.mean(np.square(errors), axis=0), (1 + 1 / count) * np.var(values, axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(between > 0, (count - 1) * np.square(1 + within / between), np.inf)
    return PooledEstimates(np.mean(values, axis=0), np.sqrt(within + between), freedom)
