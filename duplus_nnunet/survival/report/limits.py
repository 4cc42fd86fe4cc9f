"""What a study does not show: in come what it found and its patients, out come sentences."""

import math
from collections.abc import Iterator, Sequence

from duplus_nnunet.survival.evaluation.cross_validation import HeldOut
from duplus_nnunet.survival.evaluation.intervals import SCORES, Value
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.records.table import SEEN
from duplus_nnunet.survival.report.text import format_days

# Below as many, scores of a model are known to be too vague. Source: Collins et al. 2016 (doi 10.1002/sim.6787).
_ENOUGH_EVENTS = 100
_CONCORDANCE, _CHANCE = "Harrell's C", 0.5
_SKILL = "Brier skill"  # says of Kaplan-Meier what the integrated Brier score does
_STEEP = 2.0


def list_limits(study: Study, cohort: Cohort) -> Iterator[str]:
    """List what the intervals do not carry, and what is known of the data."""
    first = study.methods[0]
    if cohort.events < _ENOUGH_EVENTS:
        yield (
            f"{cohort.events} patients with the event; {_ENOUGH_EVENTS} or more are recommended to evaluate a model "
            "(Collins et al. 2016), and more to develop one."
        )
    yield from _compare_with_chance(first, study.scores[first][_CONCORDANCE])
    yield from _compare_with_others(study)
    yield from _list_calibration_limits(study, cohort)
    if len(cohort.count_centres()) < 2:
        yield "One centre, or centres that are not known: nothing is said of patients of another one."
    yield "No patients of another time or place were foretold; an external evaluation is needed before any use."
    yield from dict.fromkeys(study.notes)


def _compare_with_chance(first: str, found: Value) -> Iterator[str]:
    if found.interval is None:
        yield f"{_CONCORDANCE} of {first} has no interval: it may foretell nothing."
    elif found.interval[1] < _CHANCE:
        yield (
            f"The interval of {_CONCORDANCE} of {first} lies below {_CHANCE}: it foretells worse than chance, the risk "
            "of those who do better as the higher one. Check the codes of `event`, and do not use it."
        )
    elif found.interval[0] <= _CHANCE:
        yield f"The interval of {_CONCORDANCE} of {first} holds {_CHANCE}: it may foretell nothing."


def _compare_with_others(study: Study) -> Iterator[str]:
    first = study.methods[0]
    for score, higher_is_better in SCORES.items():
        sign = 1 if higher_is_better else -1
        bounds = {name: found[score].interval for name, found in study.differences.items() if score in found}
        better = [name for name, one in bounds.items() if one is not None and max(sign * one[0], sign * one[1]) < 0]
        if better and score != _SKILL:
            yield f"By {score}, {first} is shown to be worse than: {', '.join(better)}."
        level = [name for name, one in bounds.items() if one is None or one[0] <= 0 <= one[1]]
        if level and score == _CONCORDANCE:
            yield f"By {score}, {first} is neither shown to be better nor worse than: {', '.join(level)}."


def _list_calibration_limits(study: Study, cohort: Cohort) -> Iterator[str]:
    first = study.methods[0]
    own = [one for one in study.predictions if one.method == first]
    held = {one.patient for one in own}
    for place, found in enumerate(study.calibration.get(first, ())):
        between, when = found.slope.interval, f"At {format_days(found.horizon)} days"
        events = sum(one.event == SEEN and one.time <= found.horizon and one.patient in held for one in cohort.records)
        if math.isnan(found.slope.value) or between is None:
            why = _say_why_no_slope(own, place, events)
            yield f"{when} {first} has no slope of calibration: {why}."
        elif between[1] - between[0] > _STEEP:
            yield f"{when} the slope of calibration of {first} is hardly known, with {events} events by then."


def _say_why_no_slope(own: Sequence[HeldOut], place: int, events: int) -> str:
    if not events:
        return "nobody who was foretold has had the event by then"
    folds: dict[tuple[int, int], set[float]] = {}
    for one in own:
        folds.setdefault((one.seed, one.fold), set()).add(one.survival[place])
    if all(len(found) == 1 for found in folds.values()):
        return "it foretells the same of everybody in a fold"
    return "what it foretells hardly differs between those who are compared in a fold"
