"""Who is tested when: in come patients, out come folds that hold the same share of events and of each centre."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.table import SEEN, Record


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
