"""Lists the limitations of a study as sentences for the model card."""

import math
from collections.abc import Iterator, Sequence

from duplus_nnunet.survival.evaluation.calibration import STEEPEST
from duplus_nnunet.survival.evaluation.cross_validation import HeldOut
from duplus_nnunet.survival.evaluation.intervals import SCORES, Value
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.survival.records.cohort import Cohort
from duplus_nnunet.survival.records.table import SEEN
from duplus_nnunet.survival.report.text import format_days

# Fewer events make performance estimates too imprecise. Source: Collins et al. 2016 (doi 10.1002/sim.6787).
_ENOUGH_EVENTS = 100
_CONCORDANCE, _CHANCE = "Harrell's C", 0.5
_SKILL = "Brier skill"  # adds nothing to the integrated Brier score in a comparison of methods
_WIDE_SLOPE_INTERVAL = 2.0


def list_limits(study: Study, cohort: Cohort) -> Iterator[str]:
    """List the limitations that follow from the confidence intervals and from the data."""
    first = study.methods[0]
    if study.events < _ENOUGH_EVENTS:
        yield (
            f"{study.events} of the {study.patients} scored patients have the event; {_ENOUGH_EVENTS} or more are "
            "recommended to validate a model (Collins et al. 2016), and more to develop one."
        )
    if study.claims.compares and first not in study.claims.unsupported:
        yield from _compare_with_chance(first, study.scores[first][_CONCORDANCE])
        yield from _compare_with_others(study)
    yield from _list_calibration_limits(study, cohort)
    if len(cohort.count_centres()) < 2:
        yield "One centre, or unknown centres: performance in patients of other centres was not assessed."
    yield "No external validation: performance in patients of another time or place must be assessed before any use."
    yield from dict.fromkeys(study.notes)


def _compare_with_chance(first: str, value: Value) -> Iterator[str]:
    if value.interval is None:
        yield f"{_CONCORDANCE} of {first} has no confidence interval: discrimination may be no better than chance."
    elif value.interval[1] < _CHANCE:
        yield (
            f"The confidence interval of {_CONCORDANCE} of {first} lies below {_CHANCE}: discrimination is worse than "
            "chance, as patients with a better outcome have the higher risk. Check the codes of `event`; do not use "
            "this model."
        )
    elif value.interval[0] <= _CHANCE:
        yield (
            f"The confidence interval of {_CONCORDANCE} of {first} includes {_CHANCE}: discrimination may be no better "
            "than chance."
        )


def _compare_with_others(study: Study) -> Iterator[str]:
    first = study.methods[0]
    for score, higher_is_better in SCORES.items():
        sign = 1 if higher_is_better else -1
        intervals = {
            name: scores[score].interval
            for name, scores in study.differences.items()
            if score in scores and name not in study.claims.unsupported
        }
        worse_than = [
            name
            for name, interval in intervals.items()
            if interval is not None and max(sign * interval[0], sign * interval[1]) < 0
        ]
        if worse_than and score != _SKILL:
            yield (
                f"{score}: {first} is worse than {', '.join(worse_than)} (the 95 % confidence interval of the "
                "difference excludes 0)."
            )
        undecided = [
            name for name, interval in intervals.items() if interval is None or interval[0] <= 0 <= interval[1]
        ]
        if undecided and score == _CONCORDANCE:
            yield (
                f"{score}: {first} is not shown to be better or worse than {', '.join(undecided)} (the 95 % confidence "
                "interval of the difference includes 0)."
            )


def _list_calibration_limits(study: Study, cohort: Cohort) -> Iterator[str]:
    first = study.methods[0]
    predictions = [held for held in study.predictions if held.method == first]
    patients = {held.patient for held in predictions}
    seen = [record for record in cohort.records if record.event == SEEN and record.patient in patients]
    for index, calibration in enumerate(study.calibration.get(first, ())):
        interval, when = calibration.slope.interval, f"At {format_days(calibration.horizon)} days"
        events = sum(record.time <= calibration.horizon for record in seen)
        if abs(calibration.slope.value) >= STEEPEST:
            yield (
                f"{when} the calibration slope of {first} is not defined: its estimate diverges and is at its bound "
                f"({calibration.slope.value:.0f}), with {events} events by then."
            )
        elif math.isnan(calibration.slope.value) or interval is None:
            reason = _explain_missing_slope(predictions, index, events)
            yield f"{when} the calibration slope of {first} is not defined: {reason}."
        elif interval[1] - interval[0] > _WIDE_SLOPE_INTERVAL:
            yield f"{when} the calibration slope of {first} is very imprecise, with {events} events by then."


def _explain_missing_slope(predictions: Sequence[HeldOut], horizon: int, events: int) -> str:
    if not events:
        return "no held-out patient had the event by then"
    folds: dict[tuple[int, int], set[float]] = {}
    for held in predictions:
        folds.setdefault((held.seed, held.fold), set()).add(held.survival[horizon])
    if all(len(values) == 1 for values in folds.values()):
        return "all patients of a fold have the same predicted survival"
    return "predicted survival hardly differs between the patients compared within a fold"
