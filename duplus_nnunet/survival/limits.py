"""What a study does not show: in come what it found and its patients, out come sentences."""

import math
from collections.abc import Iterator

from duplus_nnunet.survival.cohort import Cohort
from duplus_nnunet.survival.study import Study
from duplus_nnunet.survival.study_text import say_days

# Below as many, scores of a model are known to be too vague. Source: Collins et al. 2016 (doi 10.1002/sim.6787).
_ENOUGH_EVENTS = 100
_CONCORDANCE, _CHANCE = "Harrell's C", 0.5
_STEEP = 2.0


def list_limits(study: Study, cohort: Cohort) -> Iterator[str]:
    """List what the intervals do not carry, and what is known of the data."""
    first = study.methods[0]
    if cohort.events < _ENOUGH_EVENTS:
        yield (
            f"{cohort.events} patients with the event; {_ENOUGH_EVENTS} or more are recommended to evaluate a model "
            "(Collins et al. 2016), and more to develop one."
        )
    interval = study.scores[first][_CONCORDANCE].interval
    if interval is None or interval[0] <= _CHANCE:
        yield f"The interval of {_CONCORDANCE} of {first} holds {_CHANCE}: it may foretell nothing."
    level = [
        name
        for name, found in study.differences.items()
        if (between := found[_CONCORDANCE].interval) is not None and between[0] <= 0 <= between[1]
    ]
    if level:
        yield f"By {_CONCORDANCE}, {first} is neither shown to be better nor worse than: {', '.join(level)}."
    yield from _list_calibration_limits(study)
    if len(cohort.count_centres()) < 2:
        yield "One centre, or centres that are not known: nothing is said of patients of another one."
    yield "No patients of another time or place were foretold; an external evaluation is needed before any use."
    yield from dict.fromkeys(study.notes)


def _list_calibration_limits(study: Study) -> Iterator[str]:
    first = study.methods[0]
    for one in study.calibration.get(first, ()):
        between, when = one.slope.interval, f"At {say_days(one.horizon)} days"
        if math.isnan(one.slope.value) or between is None:
            yield f"{when} {first} foretells nearly the same of everybody, so that it has no slope."
        elif between[1] - between[0] > _STEEP:
            yield f"{when} the slope of calibration of {first} is hardly known: too few events by then."
