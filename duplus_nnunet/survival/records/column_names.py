"""Recognises by its name a column that is known only after treatment began, such as the event of another endpoint."""

import re
from collections.abc import Collection

# Words in names of columns that are known only after treatment began, or that leak the outcome.
POST_TREATMENT = re.compile(
    r"relaps|recur|progress(?!ter)|metasta|death|dead|deceas|died|alive|surviv|vital|censor|follow.?up|(^|_)fu(_|$)|"
    r"outcome|(^|_)last(_|$)|cause|salvage|adjuvant|toxicit|post.?(op|treat)|locoregional|loco.regional|respon|"
    r"(^|_)(second|third|2nd|3rd)_line|cycles_(received|given|completed)|(received|given|completed)_cycles|"
    r"(^|_)(neoplasm|tumou?r)_(cancer_)?status|(^|_)cancer_status|regression_(grade|score)|(^|_)(recist|autopsy|gvhd)(_|$)|"
    r"discharge|(treatment|therapy)_duration|duration_of_(treatment|therapy)|new_tumou?r_event|"
    r"(^|[^a-z])(distant|mets|futime|lenfol|f?stat|r?cens|survtime|tte)([^a-z]|$)",
    re.IGNORECASE,
)
# Abbreviations of endpoints: survival (os, dss, css), recurrence (lr, dm, pfi), and times to an event (ttp).
_ABBREVIATION = (
    "os|dss|css|pfs|pfi|dfs|dfi|rfs|efs|mfs|lfs|ffs|lr|lrr|lrf|lrc|lrfs|lrffs|dm|dmfs|dmffs|"
    "ttp|ttr|ttf|tdm|ttdm|nrm|trm"
)
_ENDPOINTS = frozenset(_ABBREVIATION.split("|"))
# Abbreviations that may mean something else, such as the left eye or diabetes, unless a word of an outcome is beside.
_AMBIGUOUS = frozenset(("os", "lr", "dm", "css", "dss", "trm", "nrm", "tdm", "ttr", "ttf", "lrc", "lrr", "lrf"))
_OUTCOME = frozenset(
    ("time", "event", "status", "stat", "date", "days", "months", "years", "cens", "censor", "censored")
)
_COMMON = "time|times|to|event|events|status|stat|state|code|cens|censor|days?|weeks?|months?|years?|duration|e|t|d|of"
_ENDPOINT = re.compile(rf"({_COMMON})*({_ABBREVIATION})({_COMMON})*\d?")
_STATUS_ONLY = re.compile(rf"({_COMMON})*(status|stat|event)({_COMMON})*\d*")
_TIME_OF = re.compile(r"(?:time|days|months)(?:to)?([a-z]+)|([a-z]+?)(?:time|days|months)")
# A state before treatment, whatever else the name says: "metastasis at diagnosis", "prior relapse".
_BASELINE = frozenset(("baseline", "prior", "previous", "history", "family", "initial", "presentation", "pretreatment"))
_STAGE = frozenset(("stage", "staging", "grade"))
# What is known later although the name has a word of a state before treatment or of a stage, unless it says "prior".
_SURELY_LATER = re.compile(
    r"(^|_)after(_|$)|respon\w*_to|(^|_)(initial|best|first|overall)_respon|toxicit|gvhd|(stage|grade)_(at|of)_(recur|relaps)|"
    r"regression_(grade|score)|(treatment|therapy|received).*toxic"
)
_SURELY_BEFORE = frozenset(("prior", "previous", "history", "family", "baseline", "pretreatment"))
# Beside these, DM is diabetes mellitus rather than distant metastasis.
_COMORBIDITY = frozenset(
    ("htn", "hypertension", "cad", "copd", "chf", "ckd", "bmi", "diabetes", "hyperlipidemia", "sbp", "sysbp", "cvd")
)
_LEAST_LETTERS = 4  # of the name of an event, by which another column is of it, as `agvhdgd` is of `agvh`
# Letters that may follow such a stem: agvhdgd, but not Localisation beside Local.
_MOST_MORE = 3
_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def split_name_in_order(name: str) -> list[str]:
    """Split the name of a column into words, in lower case.

    >>> split_name_in_order("OSTime_months")
    ['os', 'time', 'months']
    """
    return re.findall("[a-z0-9]+", _CAMEL.sub("_", name).casefold())


def has_endpoint_word(name: str) -> bool:
    """Whether a word of a name is the abbreviation of an endpoint, such as OS."""
    return bool(split_name(name) & _ENDPOINTS)


def split_name(name: str) -> set[str]:
    """Split the name of a column into words, in lower case.

    >>> sorted(split_name("OSTime_months"))
    ['months', 'os', 'time']
    """
    return {*split_name_in_order(name)}


def is_known_later(name: str, others: Collection[str] = ()) -> bool:
    """Whether the name of a column says that it is known only after treatment began.

    Args:
        name: Name of the column.
        others: Names of all columns of the table: they tell distant metastasis (DM) from diabetes mellitus (DM), and
            an event by the time of the same name, such as `cgvh` beside `cgvhtime`.

    >>> is_known_later("Time_DM"), is_known_later("DM", ["BMI", "DM"]), is_known_later("metastasis at diagnosis")
    (True, False, False)
    """
    words, joined = split_name(name), "_".join(split_name_in_order(name))
    later = bool(_SURELY_LATER.search(joined)) and not words & _SURELY_BEFORE
    if not later and (words & _BASELINE or {"at", "diagnosis"} <= words or words & _STAGE):
        return False
    if later or POST_TREATMENT.search(name) or POST_TREATMENT.search(joined):
        return True
    compact = _compact(name)
    if "dm" in words and any(split_name(other) & _COMORBIDITY for other in others):
        return False
    if words & _ENDPOINTS and (words & _OUTCOME or words & _ENDPOINTS - _AMBIGUOUS):
        return True
    if _ENDPOINT.fullmatch(compact) or _STATUS_ONLY.fullmatch(compact):
        return True
    return _has_time_of_its_own(name, others)


def _has_time_of_its_own(name: str, others: Collection[str]) -> bool:
    """Whether another column is the time of this one, as `agvhtime` is of `agvh`, or this one is such a time."""
    stems = {_compact(other): _find_stem(other) for other in others}
    own = _compact(name)
    timed = {stem for compact, stem in stems.items() if stem and compact != own and stem in stems}
    return (
        own in {stem for compact, stem in stems.items() if stem and compact != own}
        or (bool(_find_stem(name)) and _find_stem(name) in stems)
        or any(
            own.startswith(stem) and len(own) - len(stem) <= _MOST_MORE for stem in timed if len(stem) >= _LEAST_LETTERS
        )
    )


def find_own_times(name: str, others: Collection[str]) -> list[str]:
    """List the columns whose names say that they are the time of an event, such as `Time_Distant` of `Distant`."""
    own = _compact(name)
    return [other for other in others if _find_stem(other) == own and _compact(other) != own]


def _find_stem(name: str) -> str:
    match = _TIME_OF.fullmatch(_compact(name))
    return "" if match is None else match[1] or match[2]


def _compact(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.casefold())
