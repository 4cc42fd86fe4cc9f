"""Pairs columns of events with columns of times by what their names have in common: the endpoints of a table."""

import re
from collections.abc import Sequence

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.column_names import split_name

# What the name of an endpoint means: os and death share their word.
_MEANING = {
    "death": r"os|dss|death|dead|died|deceased|vital|mortality", "relapse": r"rfs|dfs|dfi|relaps\w*|recur\w*",
    "progression": r"pfs|pfi|ttp|progress\w*", "distant": r"dm|dmfs|mfs|distant|mets|metasta\w*",
    "local": r"lr|lrc|lrfs|local|locoregional|loco",
}  # fmt: skip
# Words of column names that do not identify the event.
COMMON = frozenset(
    (
        *("time", "times", "event", "events", "status", "stat", "state", "code", "survival", "surv", "outcome", "t"),
        *("day", "days", "week", "weeks", "month", "months", "year", "years", "of", "in", "to", "cens", "censor", "e"),
        *("duration", "follow", "followup", "up", "fu", "lenfol"),
    )
)  # fmt: skip
# Parts of a name without blanks, such as agvhtime or fstat.
_GLUED = re.compile(r"^(time|days|months)(?=[a-z])|(?<=[a-z])(time|days|months|years|status|stat|cens|censor|event)$")


def pair_columns(events: Sequence[str], times: Sequence[str]) -> list[tuple[str, str]]:
    """Pair events and times of the same endpoint, such as os_status and os_time; each column is used once.

    Args:
        events: Columns that look like events, the likeliest first; one or more.
        times: Columns that look like times, the likeliest first; one or more.

    Raises:
        DataError: There are several times, and no name says which of them belongs to an event.
    """
    words = {name: _describe(name) for name in (*events, *times)}
    candidates = [(_compare(words[event], words[time]), event, time) for event in events for time in times]
    candidates = [candidate for candidate in candidates if candidate[1] != candidate[2]]
    if len(times) == 1 and candidates:
        return [max(candidates, key=lambda candidate: int(candidate[0]))[1:]]
    pairs = _take([candidate for candidate in candidates if candidate[0] > 0])
    left = [[name for name in names if name not in {*sum(pairs, ())}] for names in (events, times)]
    if len(left[0]) == len(left[1]) == 1 and _is_short_form(words[left[0][0]], words[left[1][0]]):
        pairs.append((left[0][0], left[1][0]))
    if not pairs:
        pairs = _pair_with_unnamed(events, [time for time in times if not words[time]])
    if not pairs:
        raise DataError(
            f"It is unclear which time belongs to which event. Events: {', '.join(map(repr, events))}; times: "
            f"{', '.join(map(repr, times))}. Name the pair: --event COLUMN --time COLUMN."
        )
    order = {event: number for number, event in enumerate(events)}
    return sorted(pairs, key=lambda pair: order[pair[0]])


def pair_by_name(events: Sequence[str], times: Sequence[str]) -> list[tuple[str, str]]:
    """Pair those events and times whose names share a word that identifies an event; each column is used once."""
    words = {name: _describe(name) for name in (*events, *times)}
    return _take(
        [
            (len(words[event] & words[time]), event, time)
            for event in events
            for time in times
            if event != time and words[event] & words[time]
        ]
    )


def _take(candidates: Sequence[tuple[float, str, str]]) -> list[tuple[str, str]]:
    """Take the pairs that are most alike, each column once."""
    pairs: list[tuple[str, str]] = []
    for _, event, time in sorted(candidates, key=lambda candidate: -candidate[0]):
        if not {event, time} & {*sum(pairs, ())}:
            pairs.append((event, time))
    return pairs


def _pair_with_unnamed(events: Sequence[str], unnamed: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the likeliest event with the only time that names no event, such as the follow-up."""
    return [(events[0], unnamed[0])] if len(unnamed) == 1 else []


def _compare(event: frozenset[str], time: frozenset[str]) -> float:
    """Return how much two names have in common: the number of words, or 0.5 if neither has any."""
    return len(event & time) if event or time else 0.5


def _is_short_form(event: frozenset[str], time: frozenset[str]) -> bool:
    """Whether one name is the beginning of the other, as `rcens` and `reltime` are."""
    return any(one.startswith(other) or other.startswith(one) for one in event for other in time)


def _describe(name: str) -> frozenset[str]:
    """Return the words of a name that identify its event, and what they mean."""
    words = {_strip(word) for word in split_name(name)} - COMMON - {""}
    meanings = {meaning for meaning, form in _MEANING.items() if any(re.fullmatch(form, word) for word in words)}
    return frozenset(words | meanings)


def _strip(word: str) -> str:
    stripped = _GLUED.sub("", word)
    return word if stripped == word else _strip(stripped)
