"""Leave-one-centre-out validation: predicts the patients of each centre by models of all other centres.

Centres with too few events are used for training only.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from duplus_nnunet.progress import track
from duplus_nnunet.survival.evaluation.cross_validation import CrossValidation, Method, choose_times, cross_validate
from duplus_nnunet.survival.evaluation.horizon_scores import keep_overall_scores
from duplus_nnunet.survival.evaluation.intervals import (
    Estimate,
    Value,
    Values,
    average_seeds,
    conclude,
    summarise_scores,
)
from duplus_nnunet.survival.models.forecasts import merge_notes
from duplus_nnunet.survival.records.folds import Fold
from duplus_nnunet.survival.records.table import SEEN, Record

LEAST_EVENTS = 5
_LEAST_LEFT = 2


@dataclass(frozen=True)
class Centre:
    """Scores of one left-out centre.

    Attributes:
        name: Name of the centre.
        patients: Number of patients.
        events: Number of patients with the event.
        scores: By method and score.
    """

    name: str
    patients: int
    events: int
    scores: Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True)
class Centres:
    """Result of leaving centres out.

    Attributes:
        centres: Scores of each left-out centre.
        scores: All left-out centres together, by method and score; patients are compared within their centre.
        differences: The first method minus each other method.
        notes: Remarks for the reader.
    """

    centres: tuple[Centre, ...]
    scores: Values
    differences: Values
    notes: tuple[str, ...]


def choose_centres(records: Sequence[Record], horizon: float) -> tuple[dict[str, Fold], tuple[str, ...]]:
    """Choose the centres that can be left out.

    Args:
        records: One for each patient; an empty centre means that it is not known.
        horizon: The last horizon, in days; a patient of another centre must have been followed beyond it.

    Returns:
        A fold for each centre that is left out, and a sentence for each one that is not.
    """
    sizes = Counter(record.centre for record in records if record.centre)
    folds, notes = {}, []
    for name in sorted(sizes) if len(sizes) > 1 else ():
        test = tuple(row for row, record in enumerate(records) if record.centre == name)
        train = tuple(row for row, record in enumerate(records) if record.centre != name)
        events, training_events = (sum(records[row].event == SEEN for row in rows) for rows in (test, train))
        if events < LEAST_EVENTS:
            notes.append(f"The centre {name!r} has {events} patient(s) with the event, too few to be evaluated alone.")
        elif training_events < _LEAST_LEFT or max(records[row].time for row in train) <= horizon:
            notes.append(
                f"Without the centre {name!r}, too few events or too short a follow-up would be left to train on."
            )
        else:
            folds[name] = Fold(train, test)
    return folds, tuple(notes)


def leave_centres_out(base: CrossValidation, methods: Mapping[str, Method]) -> Centres:
    """Predict each centre by models of all other centres.

    Args:
        base: Cross-validation with one fold for each centre.
        methods: By name; differences are to the first.

    Intervals take the models as they are: they reflect the sampling of the patients of these centres alone.
    """
    cv = replace(base, times=choose_times(base.outcome, base.folds, list(base.times.horizons)))
    pooled: dict[str, dict[str, list[Estimate]]] = {}
    of_centres: dict[str, list[dict[str, Estimate]]] = {}
    notes: dict[str, None] = {}
    patients = len(cv.records)
    for name, method in track(methods.items(), len(methods), "leaving centres out", "method"):
        result = cross_validate(name, method, cv)
        notes |= dict.fromkeys(result.notes)
        pooled[name] = {score: [values] for score, values in result.estimate(cv.folds, patients, 0.0).items()}
        of_centres[name] = [
            result.choose(number).estimate([fold], patients, 0.0) for number, fold in enumerate(cv.folds)
        ]
    scores, differences = conclude(keep_overall_scores(average_seeds(pooled)), next(iter(methods)))
    centres = tuple(_describe_centre(cv, number, of_centres) for number in range(len(cv.folds)))
    return Centres(centres, scores, differences, merge_notes(notes))


def _describe_centre(
    cv: CrossValidation, number: int, of_centres: Mapping[str, Sequence[Mapping[str, Estimate]]]
) -> Centre:
    test = cv.folds[number].test
    means = average_seeds(
        {name: {score: [values] for score, values in drawn[number].items()} for name, drawn in of_centres.items()}
    )
    scores = {name: summarise_scores(estimates) for name, estimates in keep_overall_scores(means).items()}
    events = sum(cv.records[row].event == SEEN for row in test)
    return Centre(cv.records[test[0]].centre, len(test), events, scores)
