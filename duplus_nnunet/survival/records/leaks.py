"""Finds covariates whose values encode the outcome: the time or the event of another endpoint, or its cause.

The limits are bounds of confidence intervals, so that a strong risk factor in a small table is not taken for a leak.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import fisher_exact, spearmanr

from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

_LEAST = 10  # patients with the event, or without it, below which no association is judged
_LEAST_VALUES = 10  # different numbers, below which a column is a code and not a time
_NORMAL = 3.3  # half the width of the interval of a rank correlation, in standard errors: a level of 0.1 %
_LOWEST_RANK_CORRELATION = 0.5  # of the lower bound, among those with the event
_LOWEST_PHI = 0.65  # of the lower bound, between a column of two values and the event
_SAME_TIME = 0.2  # share of patients whose value is their time of follow-up
_CENSORED_CORRELATION = 0.95
_FOLLOW_UP_CORRELATION = 0.95
_CHANCE = 1e-4


def explain_leak(name: str, kind: str, records: Sequence[Record]) -> str:
    """Say why a covariate seems to encode the outcome; empty if it does not seem so.

    Args:
        name: Name of the covariate.
        kind: numeric, categorical or ordinal.
        records: All patients of the table.
    """
    reasons = (_explain_time(name, records) if kind == "numeric" else "", _explain_event(name, records))
    return next((reason for reason in reasons if reason), "")


def _explain_time(name: str, records: Sequence[Record]) -> str:
    known = [(float(value), record) for record in records if (value := record.values[name]) is not None]
    if len({value for value, _ in known}) < _LEAST_VALUES:
        return ""
    same = sum(math.isclose(value, record.time, rel_tol=1e-3) for value, record in known) / len(known)
    if same > _SAME_TIME:
        return f"equal to the time in {same:.0%} of patients: it is the time of another endpoint, or of follow-up"
    seen = _correlate([pair for pair in known if pair[1].event == SEEN])
    if _lower_bound(*seen, _NORMAL) > _LOWEST_RANK_CORRELATION:
        return f"rank correlation with the time {seen[0]:.2f} among {seen[1]} patients with the event: it measures time"
    censored = _correlate([pair for pair in known if pair[1].event == CENSORED])
    if censored[1] >= _LEAST and censored[0] > _CENSORED_CORRELATION:
        return f"rank correlation with the time {censored[0]:.2f} among censored patients: it measures follow-up"
    return ""


def _correlate(pairs: Sequence[tuple[float, Record]]) -> tuple[float, int]:
    """Return Spearman's correlation of values and times, 0 if it is undefined, and the number of patients."""
    values, times = [value for value, _ in pairs], [record.time for _, record in pairs]
    if len(pairs) < _LEAST or len(set(values)) < 2 or len(set(times)) < 2:
        return 0.0, len(pairs)
    return float(spearmanr(values, times).statistic), len(pairs)


def _lower_bound(correlation: float, count: int, normal: float) -> float:
    """Return the lower bound of the size of a correlation, by Fisher's transformation; 0 or more."""
    if count < _LEAST:
        return 0.0
    size = math.atanh(min(abs(correlation), 1 - 1e-9))
    return math.tanh(max(0.0, size - normal / math.sqrt(count - 3)))


def _explain_event(name: str, records: Sequence[Record]) -> str:
    event = np.array([record.event == SEEN for record in records])
    values = [record.values[name] for record in records]
    known = np.array([value is not None for value in values])
    if _nearly_equal(known, event):
        return "known in nearly all patients of one outcome and in few of the others"
    counts = Counter(value for value in values if value is not None)
    if len(counts) != 2:
        return ""
    first = np.array([value == min(counts, key=str) for value in values])
    return "determines in nearly all patients who has the event" if _nearly_equal(first[known], event[known]) else ""


def _nearly_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two divisions of patients are nearly the same, whatever the side, beyond chance."""
    table = [[int(((one == a) & (other == b)).sum()) for b in (True, False)] for a in (True, False)]
    if min(map(sum, table)) == 0 or min(other.sum(), (~other).sum()) == 0 or len(one) < _LEAST:
        return False
    phi = float(np.corrcoef(one, other)[0, 1])
    return bool(_lower_bound(phi, len(one), 1.96) > _LOWEST_PHI and fisher_exact(table).pvalue < _CHANCE)
