"""Folds and test cases of a converted dataset: as published with it, or by patient."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from duplus_nnunet.conversion.found_cases import FoundCase
from duplus_nnunet.conversion.recipe import Recipe, SplitTable
from duplus_nnunet.conversion.templates import find_paths
from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.composing.splits import Splits, read_splits, split_cases
from duplus_nnunet.errors import DataError
from duplus_nnunet.table_files import read_csv

_FOLDS, _SEED = 5, 12345


def mark_tests(recipe: Recipe, root: Path, cases: Sequence[FoundCase]) -> list[FoundCase]:
    """Make test cases of those that a published table names as such."""
    if not isinstance(recipe.splits, SplitTable):
        return [*cases]
    parts, test = _read_parts(recipe.splits, root), recipe.splits.test
    return [
        replace(case, group=case.group.model_copy(update={"test": True})) if parts.get(case.name) == test else case
        for case in cases
    ]


def make_splits(recipe: Recipe, root: Path, training: Sequence[FoundCase]) -> tuple[Splits | None, str]:
    """Take the published folds, or make folds by patient where some patient has several cases.

    Args:
        recipe: The recipe.
        root: The download.
        training: The training cases.

    Returns:
        The folds, None if nnU-Net may make them, and a sentence on them.
    """
    cases = {case.name: Case(recipe.dataset, case.patient, (), ()) for case in training}
    note = ""
    if recipe.splits is not None:
        try:
            return _take_published(recipe.splits, root, cases)
        except DataError as error:
            note = f"Folds: those published were not taken. {error} "
    patients = {case.patient for case in training}
    if len(patients) == len(training) or len(patients) == 1:
        return None, f"{note}nnU-Net makes them." if note else ""
    folds = min(_FOLDS, len(patients))
    return split_cases(cases, folds, _SEED), f"{note}{folds} folds by patient were made." if note else ""


def _take_published(given: str | SplitTable, root: Path, cases: Mapping[str, Case]) -> tuple[Splits, str]:
    """Take the published folds.

    Raises:
        DataError: They are not in the download, or do not fit the cases.
    """
    if isinstance(given, SplitTable):
        parts = _read_parts(given, root)
        val = sorted(name for name in cases if parts.get(name) == given.validation)
        train = sorted(cases.keys() - set(val))
        if not val or not train:
            raise DataError(
                f"{root / given.table} names {len(val)} of {len(cases)} training cases as {given.validation!r} in "
                f"{given.column!r}."
            )
        others = sum(name not in parts for name in train)
        more = f"; {others} cases that it does not have are training cases" if others else ""
        return [{"train": train, "val": val}], f"Folds: one, as published in {Path(given.table).name}{more}."
    file = next((path for _, path in find_paths(root, given)), None)
    if file is None:
        raise DataError(f"There is no {given} in the download.")
    return read_splits(file, cases), f"Folds: as published, {file.name}."


def _read_parts(given: SplitTable, root: Path) -> dict[str, str]:
    """Read the part of each case; empty without the table or its columns."""
    file = next((path for _, path in find_paths(root, given.table)), None)
    if file is None:
        return {}
    table = read_csv(file, "Download it again.", (given.key.casefold(), given.column.casefold()))
    rows = [dict(zip(table.columns, row.cells, strict=False)) for row in table.rows]
    return {row[given.key]: row[given.column] for row in rows if given.key in row and given.column in row}
