"""`duplus survival evaluate -m MODEL --importance`: what each input is worth to the patients that folds held out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.survival.records.table import Record

NAME = "importance.csv"


def check_options(importance: bool, model: Path | None, output: Path | None) -> None:
    """Check that there are trained models to ask, and a folder to write to.

    Raises:
        DataError: Either is missing.
    """
    from duplus_nnunet.errors import DataError

    if importance and (model is None or output is None):
        raise DataError("--importance is of trained models and goes to a file: give -m MODEL_FOLDER and -o FOLDER.")


def write_importance(model: Path, records: "Sequence[Record]", folder: Path) -> str:
    """Measure and write importance.csv; returns a line for people."""
    from duplus_nnunet.outputs.files import open_new_file
    from duplus_nnunet.survival.evaluation.importance import (
        REPEATS,
        SEED,
        HeldOutFold,
        measure_importance,
        tabulate_importance,
    )
    from duplus_nnunet.survival.prediction.files import write_rows
    from duplus_nnunet.survival.training.folds import place, read_folds

    folds = read_folds(model)
    places = place(folds, records)
    judged = [
        HeldOutFold(fold.model, tuple(records[one] for one in own.test), fold.used)
        for fold, own in zip(folds, places, strict=True)
    ]
    concordance, found = measure_importance(judged)
    with open_new_file(folder / NAME) as file:
        write_rows(file, tabulate_importance(found))
    return (
        f"Wrote {folder / NAME}: drops of Harrell's C, {concordance:.3f}, with an input shuffled among held-out "
        f"patients, {REPEATS} times, seed {SEED}."
    )
