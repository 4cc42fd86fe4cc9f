"""Each centre foretold by the others: in come patients of several centres, out come scores of each and of all.

A centre with few events tells nothing by itself: it is only learned from.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from duplus_nnunet.survival.evaluation.cross_validation import CrossValidation, Method, choose_times, cross_validate
from duplus_nnunet.survival.evaluation.intervals import Value, Values, average_seeds, conclude, describe
from duplus_nnunet.survival.models.forecasts import merge_notes
from duplus_nnunet.survival.records.folds import Fold
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.table import SEEN, Record

LEAST_EVENTS = 5
_LEAST_LEFT = 2


@dataclass(frozen=True)
class Centre:
    """One centre that was left out.

    Attributes:
        name: Of the centre.
        patients: How many it has.
        events: In how many of them the event was seen.
        scores: By method and score.
    """

    name: str
    patients: int
    events: int
    scores: Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True)
class Centres:
    """What came out.

    Attributes:
        centres: Each that was left out.
        scores: Of all of them together, by method and score; patients are compared within their centre.
        differences: The first method less each other one.
        notes: What a reader has to know.
    """

    centres: tuple[Centre, ...]
    scores: Values
    differences: Values
    notes: tuple[str, ...]


def choose_centres(records: Sequence[Record], horizon: float) -> tuple[dict[str, Fold], tuple[str, ...]]:
    """Choose the centres that can be left out, and say why others cannot.

    Args:
        records: One a patient; an empty centre is none.
        horizon: The last one, in days; the other centres must have followed somebody beyond it.

    Returns:
        A fold by centre, and a sentence for each centre that is not left out.
    """
    sizes = Counter(record.centre for record in records if record.centre)
    folds, notes = {}, []
    for name in sorted(sizes) if len(sizes) > 1 else ():
        test = tuple(place for place, record in enumerate(records) if record.centre == name)
        train = tuple(place for place, record in enumerate(records) if record.centre != name)
        events, left = (sum(records[place].event == SEEN for place in places) for places in (test, train))
        if events < LEAST_EVENTS:
            notes.append(f"The centre {name!r} has {events} patient(s) with the event, too few to be foretold alone.")
        elif left < _LEAST_LEFT or max(records[place].time for place in train) <= horizon:
            notes.append(f"Without the centre {name!r} there are too few events, or nobody is followed long enough.")
        else:
            folds[name] = Fold(train, test)
    return folds, tuple(notes)


def leave_centres_out(
    base: CrossValidation, methods: Mapping[str, Method], counts: Numbers, show: Callable[[str], None]
) -> Centres:
    """Foretell each centre by models of all others.

    Args:
        base: Its folds are one a centre.
        methods: By name; differences are to the first.
        counts: How often each patient is drawn, (1 + B, N).
        show: Takes a line for each method that is done.
    """
    place = replace(base, times=choose_times(base.outcome, base.folds, list(base.times.horizons)))
    rows: dict[str, dict[str, list[Numbers]]] = {}
    each: dict[str, list[dict[str, Numbers]]] = {}
    notes: dict[str, None] = {}
    for name, method in methods.items():
        result = cross_validate(name, method, place)
        notes |= dict.fromkeys(result.notes)
        rows[name] = {score: [values] for score, values in result.pool(place.folds, counts).items()}
        each[name] = [result.choose(number).pool([fold], counts) for number, fold in enumerate(place.folds)]
        show(f"{name}, centres left out")
    scores, differences = conclude(average_seeds(rows), next(iter(methods)), len(place.held))
    centres = tuple(_describe_centre(place, number, each) for number in range(len(place.folds)))
    return Centres(centres, scores, differences, merge_notes(notes))


def _describe_centre(
    place: CrossValidation, number: int, each: Mapping[str, Sequence[Mapping[str, Numbers]]]
) -> Centre:
    test = place.folds[number].test
    means = average_seeds(
        {name: {score: [values] for score, values in found[number].items()} for name, found in each.items()}
    )
    scores = {
        name: {score: describe(values, len(test)) for score, values in found.items()} for name, found in means.items()
    }
    events = sum(place.records[one].event == SEEN for one in test)
    return Centre(place.records[test[0]].centre, len(test), events, scores)
