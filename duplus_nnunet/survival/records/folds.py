"""Who is tested when: in come patients, out come folds that hold the same share of events and of each centre."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.table import SEEN, Record

_SHOWN = 8


@dataclass(frozen=True)
class Fold:
    """One split of the patients.

    Attributes:
        train: Places of those to learn from.
        test: Places of those that are held out.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]


def make_folds(records: Sequence[Record], count: int, seed: int) -> list[Fold]:
    """Deal patients to folds, one stratum of event and centre after another.

    The order of records changes nothing: patients are sorted before they are shuffled.

    Raises:
        DataError: There are fewer patients with the event than folds, or fewer than 2 folds.
    """
    events = sum(record.event == SEEN for record in records)
    if count < 2 or events < count:
        raise DataError(f"{count} folds for {events} patients with the event; expected 2 folds or more, and one each.")
    rng = np.random.default_rng(seed)
    strata: dict[tuple[bool, str], list[int]] = {}
    for place in sorted(range(len(records)), key=lambda place: records[place].patient):
        strata.setdefault((records[place].event == SEEN, records[place].centre), []).append(place)
    held: list[list[int]] = [[] for _ in range(count)]
    turn = 0
    # Events first, so that each fold gets its share of them whatever the centres are.
    for _, places in sorted(strata.items(), key=lambda item: (not item[0][0], item[0][1])):
        for place in rng.permutation(places):
            held[turn % count].append(int(place))
            turn += 1
    everybody = range(len(records))
    return [Fold(tuple(place for place in everybody if place not in set(fold)), tuple(sorted(fold))) for fold in held]


def give_folds(
    records: Sequence[Record], splits: Sequence[tuple[Collection[str], Collection[str]]]
) -> tuple[Fold, ...]:
    """Make folds of those that a model was trained by, so that it is tested on whom it has not seen.

    Args:
        records: One a patient.
        splits: Patients to learn from and patients that were held out, a pair a fold.

    Raises:
        DataError: A patient has no record, or folds overlap.
    """
    places = {record.patient: place for place, record in enumerate(records)}
    absent = sorted({patient for split in splits for part in split for patient in part} - {*places})
    if absent:
        raise DataError(
            f"{len(absent)} patient(s) of the folds have no record: {', '.join(absent[:_SHOWN])}. Use the table of the "
            "training."
        )
    folds = tuple(Fold(*(tuple(sorted(places[patient] for patient in part)) for part in split)) for split in splits)
    check_folds(records, folds)
    return folds


def check_folds(records: Sequence[Record], folds: Sequence[Fold]) -> None:
    """Check that nobody is learned from and held out in a fold, or held out twice.

    Raises:
        DataError: Somebody is; a fold has no patient on one side; or there is no fold.
    """
    if not folds or not all(fold.train and fold.test for fold in folds):
        raise DataError("There is no fold, or one without patients to learn from or to hold out. Give one or more.")
    strange = {place for fold in folds for place in (*fold.train, *fold.test)} - {*range(len(records))}
    if strange:
        raise DataError(
            f"A fold has the place {min(strange)}, and there are {len(records)} records. Give their places."
        )
    held = [place for fold in folds for place in fold.test]
    twice = {place for place in held if held.count(place) > 1}
    both = {place for fold in folds for place in {*fold.train} & {*fold.test}}
    for found, what in ((both, "learned from and held out in the same fold"), (twice, "held out more than once")):
        if found:
            names = sorted(records[place].patient for place in found)
            raise DataError(
                f"{len(names)} patient(s) are {what}: {', '.join(names[:_SHOWN])}. Their scores would be no test."
            )
