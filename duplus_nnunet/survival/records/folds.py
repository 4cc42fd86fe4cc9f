"""Splits patients into cross-validation folds, stratified by event and centre."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.table import SEEN, Record, join_names


@dataclass(frozen=True)
class Fold:
    """One split of the patients.

    Attributes:
        train: Indices of the training records.
        test: Indices of the held-out records.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]


def make_folds(records: Sequence[Record], count: int, seed: int) -> list[Fold]:
    """Split patients into folds, stratified by event and centre.

    The result does not depend on the order of the records: patients are sorted before they are shuffled.

    Raises:
        DataError: There are fewer than 2 folds, or fewer patients with the event than folds.
    """
    events = sum(record.event == SEEN for record in records)
    if count < 2 or events < count:
        raise DataError(
            f"{count} folds were requested for {events} patients with the event; expected 2 folds or more, and at most "
            "one fold per event."
        )
    rng = np.random.default_rng(seed)
    strata: dict[tuple[bool, str], list[int]] = {}
    for index in sorted(range(len(records)), key=lambda index: records[index].patient):
        strata.setdefault((records[index].event == SEEN, records[index].centre), []).append(index)
    held_out: list[list[int]] = [[] for _ in range(count)]
    position = 0
    # Strata with the event come first, so that each fold gets its share of events whatever the centres are.
    for _, stratum in sorted(strata.items(), key=lambda item: (not item[0][0], item[0][1])):
        for index in rng.permutation(stratum):
            held_out[position % count].append(int(index))
            position += 1
    indices = range(len(records))
    return [Fold(tuple(index for index in indices if index not in set(fold)), tuple(sorted(fold))) for fold in held_out]


def check_folds(records: Sequence[Record], folds: Sequence[Fold]) -> None:
    """Check that no patient is both in training and held out in a fold, or held out twice.

    Raises:
        DataError: A patient is; a fold has no training or no held-out patient; an index is out of range; or there is
            no fold.
    """
    if not folds or not all(fold.train and fold.test for fold in folds):
        raise DataError("There is no fold, or a fold without training or held-out patients. Give one fold or more.")
    unknown = {index for fold in folds for index in (*fold.train, *fold.test)} - {*range(len(records))}
    if unknown:
        raise DataError(
            f"A fold has the index {min(unknown)}, but there are {len(records)} records. Use indices of the records."
        )
    held_out = [index for fold in folds for index in fold.test]
    twice = {index for index in held_out if held_out.count(index) > 1}
    both = {index for fold in folds for index in {*fold.train} & {*fold.test}}
    for overlap, problem in ((both, "in training and held out in the same fold"), (twice, "held out more than once")):
        if overlap:
            names = sorted(records[index].patient for index in overlap)
            raise DataError(
                f"{len(names)} patient(s) are {problem}: {join_names(names)}. Use folds that hold out each patient at "
                "most once, apart from training."
            )
