"""Splits the cases of a composed dataset into folds by patient, balanced by source, in the form of nnU-Net."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.errors import DataError, list_nearest_first
from duplus_nnunet.table_files import read_json
from duplus_nnunet.text_files import load_json

FILE_NAME = "splits_final.json"

Splits = list[dict[str, list[str]]]


def split_cases(cases: Mapping[str, Case], folds: int, seed: int) -> Splits:
    """Split training cases into folds; the same cases and seed always give the same folds.

    Patients are assigned one by one, those with most cases first and otherwise in random order, to the fold that has
    the smallest share of their sources.

    Raises:
        DataError: There are fewer patients than folds.
    """
    of_patient: dict[str, list[str]] = defaultdict(list)
    for identifier in sorted(cases):
        of_patient[cases[identifier].patient].append(identifier)
    if len(of_patient) < folds:
        raise DataError(
            f"{len(of_patient)} patient(s) cannot be split into {folds} folds. Request fewer in the specification, "
            f"`folds: {max(2, len(of_patient))}`, or add cases."
        )
    totals = Counter(case.source for case in cases.values())
    patients = sorted(of_patient)
    random.Random(seed).shuffle(patients)  # noqa: S311 - not used for security
    counts: list[Counter[str]] = [Counter() for _ in range(folds)]
    chosen: list[list[str]] = [[] for _ in range(folds)]
    for patient in sorted(patients, key=lambda name: -len(of_patient[name])):
        own = Counter(cases[identifier].source for identifier in of_patient[patient])

        def rank(fold: int, own: Counter[str] = own) -> tuple[float, int, int]:
            share = sum(count * counts[fold][source] / totals[source] for source, count in own.items())
            return round(share, 9), counts[fold].total(), fold

        fold = min(range(folds), key=rank)
        counts[fold].update(own)
        chosen[fold] += of_patient[patient]
    return [{"train": sorted(set(cases) - set(fold)), "val": sorted(fold)} for fold in chosen]


def read_splits(file: Path, cases: Mapping[str, Case]) -> Splits:
    """Read folds that the user defined.

    Raises:
        DataError: The file does not have the form of nnU-Net's, names an unknown case, or has a patient in both the
            training and the validation cases of a fold.
    """
    splits = read_json(file, "Correct `splits` in the specification, or the file.")
    if not isinstance(splits, list) or not splits or not all(_is_fold(fold) for fold in splits):
        raise DataError(f'{file}: expected a list of folds such as [{{"train": ["CASE"], "val": ["CASE"]}}, ...].')
    for index, fold in enumerate(splits):
        _check_fold(f"{file}, fold {index}", fold, cases)
    return splits


def check_preprocessed(folder: Path, splits: Splits) -> None:
    """Check that the folds which nnU-Net copied when it preprocessed the data are the same.

    Raises:
        DataError: They differ, in which case nnU-Net's planning would stop without a message.
    """
    file = folder / FILE_NAME
    try:
        earlier = load_json(file)[: len(splits)]
        same = [_freeze(fold) for fold in earlier] == [_freeze(fold) for fold in splits]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError):
        same = False
    if not same:
        raise DataError(
            f"{file} holds other folds, of data preprocessed earlier, and nnU-Net would refuse to plan. Remove "
            f"{folder}, or compose with another number."
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
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise DataError(f"{where}: {repeated[0]!r} occurs twice in {part}. Remove one.")
    trained = {cases[name].patient: name for name in fold["train"]}
    for name in fold["val"]:
        patient = cases[name].patient
        if patient in trained:
            raise DataError(
                f"{where}: the patient {patient!r} is in train (case {trained[patient]!r}) and in val (case {name!r}), "
                "so that the validation would not be on held-out patients. Move one of them."
            )
