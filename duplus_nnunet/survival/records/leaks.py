"""Finds covariates whose values encode the outcome: the time or the event of another endpoint, or its cause.

The limits are bounds of confidence intervals, so that a strong risk factor in a small table is not taken for a leak.
What is known before treatment may tell when the event comes, but not who will be censored before it. Patients with a
value that is given after the event are hardly ever censored, however long they are followed. This assumes that
censoring does not depend on the calendar time or the centre.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact, spearmanr

from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST = 10  # patients with the event, or without it, below which no association is judged
_LEAST_VALUES = 10  # different numbers, below which a column is a code and not a time
_NORMAL = 3.3  # half the width of the interval of a rank correlation, in standard errors: a level of 0.1 %
_LOWEST_RANK_CORRELATION = 0.5  # of the lower bound, among those with the event
_LOWEST_PHI = 0.65  # of the lower bound, between a column of two values and the event
_SAME_TIME = 0.2  # share of patients whose value is their time of follow-up, in some unit
_SAME_RATIO = 0.02  # relative width within which two ratios of value and time are the same, as of rounded times
_TIMES_CHANCE = 2  # that share, in multiples of the one with permuted times
_PERMUTATIONS = 20
_MOST_GROUPS = 12  # values of a column, above which it is not a code
_EVENT_SHARE = 0.9  # of the patients of a value that is given after the event
_LEAST_HAZARD_RATIO = 2.0  # of such patients to the others
_FEW_CENSORED = -3.3  # standardised difference of observed and expected censorings (log-rank): a level of 0.05 %
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
    same = _measure_same_time(np.array([value for value, _ in known]), np.array([record.time for _, record in known]))
    if same > _SAME_TIME:
        return (
            f"proportional to the time in {same:.0%} of patients: it is the time of another endpoint, or of follow-up"
        )
    seen = _correlate([pair for pair in known if pair[1].event == SEEN])
    if _lower_bound(*seen, _NORMAL) > _LOWEST_RANK_CORRELATION:
        return f"rank correlation with the time {seen[0]:.2f} among {seen[1]} patients with the event: it measures time"
    censored = _correlate([pair for pair in known if pair[1].event == CENSORED])
    if censored[1] >= _LEAST and censored[0] > _CENSORED_CORRELATION:
        return f"rank correlation with the time {censored[0]:.2f} among censored patients: it measures follow-up"
    return ""


def _measure_same_time(values: Numbers, times: Numbers) -> float:
    """Return the share of patients whose value is their time in one unit; 0 if that is as frequent by chance."""
    positive = values > 0
    logs = np.log(values[positive]), np.log(times[positive])
    if len(logs[0]) < _LEAST:
        return 0.0
    share = _count_most_alike(logs[0] - logs[1]) / len(values)
    if share <= _SAME_TIME:
        return 0.0
    draw = np.random.default_rng(0)
    chance = max(_count_most_alike(logs[0] - draw.permutation(logs[1])) for _ in range(_PERMUTATIONS)) / len(values)
    return share if share > _TIMES_CHANCE * chance else 0.0


def _count_most_alike(logs: Numbers) -> int:
    """Return the largest number of logarithms of ratios that lie as close together as equal ratios do."""
    ordered = np.sort(logs)
    return int((np.searchsorted(ordered, ordered + _SAME_RATIO, side="right") - np.arange(len(ordered))).max())


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
    worse = _find_worse(values, event)
    if 1 < len(counts) <= _MOST_GROUPS and _nearly_equal(worse[known], event[known]):
        return "determines in nearly all patients who has the event"
    times = np.array([record.time for record in records])
    censored = np.array([record.event == CENSORED for record in records])
    for what, group, among in _list_groups(values, counts):
        if _follows_event(group[among], times[among], event[among], censored[among]):
            count = int(group[among].sum())
            return (
                f"hardly any of the {count} patients {what} is censored: it follows the event, or these patients were "
                "followed longer"
            )
    return ""


def _find_worse(values: Sequence[float | str | None], event: Mask) -> Mask:
    """Return which patients have a value with which the event is more frequent than among all whose value is known."""
    events = Counter(value for value, seen in zip(values, event, strict=True) if seen and value is not None)
    counts = Counter(value for value in values if value is not None)
    share = events.total() / max(1, counts.total())
    worse = {value for value, count in counts.items() if events[value] > share * count}
    return np.array([value in worse for value in values])


def _list_groups(
    values: Sequence[float | str | None], counts: Counter[float | str]
) -> Iterator[tuple[str, Mask, Mask]]:
    """List groups of patients by what is known of them: which patients, and among which others."""
    known = np.array([value is not None for value in values])
    everyone = np.ones(len(values), bool)
    yield "in whom it is known", known, everyone
    if len(counts) <= _MOST_GROUPS:
        for value in sorted(counts, key=str):
            yield f"with {value!r}", np.array([own == value for own in values]), known
    elif counts and counts.most_common(1)[0][1] > _SAME_TIME * len(values):
        usual = counts.most_common(1)[0][0]
        yield f"without {usual!r}", known & np.array([own != usual for own in values]), known


def _follows_event(group: Mask, times: Numbers, event: Mask, censored: Mask) -> bool:
    """Whether patients of a group have the event far more often than others, and are not censored as others are.

    Censoring is compared by the log-rank test, that is among patients who are followed for as long.
    """
    if group.sum() < _LEAST or (~group).sum() < _LEAST or event[group].mean() < _EVENT_SHARE:
        return False
    seen, expected, _ = _compare_hazards(group, times, event)
    others, expected_others = event.sum() - seen, event.sum() - expected
    if seen * expected_others < _LEAST_HAZARD_RATIO * others * expected:
        return False
    few, usual, variance = _compare_hazards(group, times, censored)
    return variance > 0 and (few - usual) / math.sqrt(variance) < _FEW_CENSORED


def _compare_hazards(group: Mask, times: Numbers, ended: Mask) -> tuple[float, float, float]:
    """Return the number of ends in a group, the expected one, and its variance, of the log-rank test."""
    points = np.unique(times[ended])
    at_risk, of_group = (_count_from(times[mask], points) for mask in (np.ones(len(times), bool), group))
    ends = _count_from(times[ended], points) - _count_from(times[ended], np.append(points[1:], np.inf))
    share = of_group / at_risk
    left = np.where(at_risk > 1, (at_risk - ends) / np.maximum(at_risk - 1, 1), 0.0)
    variance = float((ends * share * (1 - share) * left).sum())
    return float((ended & group).sum()), float((ends * share).sum()), variance


def _count_from(times: Numbers, points: Numbers) -> Numbers:
    """Return the number of times at or after each point."""
    return len(times) - np.searchsorted(np.sort(times), points, side="left").astype(np.float64)


def _nearly_equal(one: Mask, other: Mask) -> bool:
    """Whether two divisions of patients are nearly the same, whatever the side, beyond chance."""
    table = [[int(((one == a) & (other == b)).sum()) for b in (True, False)] for a in (True, False)]
    if min(map(sum, table)) == 0 or min(other.sum(), (~other).sum()) == 0 or len(one) < _LEAST:
        return False
    phi = float(np.corrcoef(one, other)[0, 1])
    return bool(_lower_bound(phi, len(one), 1.96) > _LOWEST_PHI and fisher_exact(table).pvalue < _CHANCE)
