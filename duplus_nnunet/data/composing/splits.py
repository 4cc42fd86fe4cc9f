"""Folds of a composed dataset, in nnU-Net's form: a patient's cases stay together, every source is in every fold.

In: each case's source and patient, or a file of the user's own. Out: a list of {"train": [...], "val": [...]}.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.errors import DataError, list_nearest_first

FILE_NAME = "splits_final.json"

Splits = list[dict[str, list[str]]]


def split_cases(cases: Mapping[str, Case], folds: int, seed: int) -> Splits:
    """Split training cases into folds; the same cases and seed always give the same folds.

    Patients, those with most cases first and else in random order, go one by one to the fold that has least of their
    sources.

    Raises:
        DataError: There are fewer patients than folds.
    """
    of_patient: dict[str, list[str]] = defaultdict(list)
    for identifier in sorted(cases):
        of_patient[cases[identifier].patient].append(identifier)
    if len(of_patient) < folds:
        raise DataError(
            f"{len(of_patient)} patient(s) cannot be split into {folds} folds. Write fewer into the specification, "
            f"`folds: {max(2, len(of_patient))}`, or add cases."
        )
    totals = Counter(case.source for case in cases.values())
    patients = sorted(of_patient)
    random.Random(seed).shuffle(patients)  # noqa: S311 - folds are no secret
    held: list[Counter[str]] = [Counter() for _ in range(folds)]
    chosen: list[list[str]] = [[] for _ in range(folds)]
    for patient in sorted(patients, key=lambda one: -len(of_patient[one])):
        mine = Counter(cases[identifier].source for identifier in of_patient[patient])

        def weigh(fold: int, mine: Counter[str] = mine) -> tuple[float, int, int]:
            share = sum(count * held[fold][source] / totals[source] for source, count in mine.items())
            return round(share, 9), held[fold].total(), fold

        fold = min(range(folds), key=weigh)
        held[fold].update(mine)
        chosen[fold] += of_patient[patient]
    return [{"train": sorted(set(cases) - set(fold)), "val": sorted(fold)} for fold in chosen]


def read_splits(file: Path, cases: Mapping[str, Case]) -> Splits:
    """Read a split of the user's own.

    Raises:
        DataError: It is not of nnU-Net's form, names an unknown case, or has a patient on both sides.
    """
    try:
        splits = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}). Mend `splits` in the specification, or the file.") from error
    if not isinstance(splits, list) or not splits or not all(_is_fold(fold) for fold in splits):
        raise DataError(f'{file}: expected a list of folds such as [{{"train": ["CASE"], "val": ["CASE"]}}, ...].')
    for index, fold in enumerate(splits):
        _check_fold(f"{file}, fold {index}", fold, cases)
    return splits


def check_preprocessed(folder: Path, splits: Splits) -> None:
    """Check that an earlier split, which nnU-Net copied when it preprocessed the data, is still this one.

    Raises:
        DataError: It is another one, over which nnU-Net's planning would stop without a message.
    """
    file = folder / FILE_NAME
    try:
        known = json.loads(file.read_text(encoding="utf-8"))[: len(splits)]
        same = [_freeze(fold) for fold in known] == [_freeze(fold) for fold in splits]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError):
        same = False
    if not same:
        raise DataError(
            f"{file} holds another split, of data preprocessed earlier, and nnU-Net would refuse to plan. Remove "
            f"{folder}, or compose under another number."
        )


def _freeze(fold: Mapping[str, Iterable[str]]) -> tuple[frozenset[str], ...]:
    return frozenset(fold["train"]), frozenset(fold["val"])


def _is_fold(fold: object) -> bool:
    return (
        isinstance(fold, dict)
        and set(fold) == {"train", "val"}
        and all(
            isinstance(part, list) and part and all(isinstance(name, str) for name in part) for part in fold.values()
        )
    )


def _check_fold(where: str, fold: Mapping[str, list[str]], cases: Mapping[str, Case]) -> None:
    for part, names in fold.items():
        for name in names:
            if name not in cases:
                near = ", ".join(repr(other) for other in list_nearest_first(name, cases)[:3])
                raise DataError(f"{where}: there is no training case {name!r} ({part}). Nearest: {near}.")
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(f"{where}: {twice[0]!r} stands twice in {part}. Remove one.")
    trained = {cases[name].patient: name for name in fold["train"]}
    for name in fold["val"]:
        patient = cases[name].patient
        if patient in trained:
            raise DataError(
                f"{where}: the patient {patient!r} is in train (case {trained[patient]!r}) and in val (case {name!r}), "
                "so the validation would not be of new patients. Move one of them."
            )
