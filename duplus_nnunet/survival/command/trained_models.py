"""`duplus survival evaluate -m MODEL`: evaluates trained models beside all other methods, and their importance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.survival.evaluation.study import Design, FindFeatures
    from duplus_nnunet.survival.records.schema import ClinicalSchema
    from duplus_nnunet.survival.records.table import Record

NAME = "trained model"
IMPORTANCE_NAME = "importance.csv"


@dataclass(frozen=True)
class Arranged:
    """Input of a study of trained models.

    Attributes:
        records: Records of the patients that the models were trained on or that were held out.
        design: Design with the folds of the models, and with their predictions as the first method.
        features: Image features of each fold, computed by the segmentation model.
        schema: Schema that the models were trained with.
        notes: Remarks for the reader.
    """

    records: "tuple[Record, ...]"
    design: "Design"
    features: "FindFeatures"
    schema: "ClinicalSchema"
    notes: tuple[str, ...]


def arrange(folder: Path, records: "Sequence[Record]", design: "Design") -> Arranged:
    """Prepare the study of a model folder.

    Args:
        folder: Model folder, with fold_X.
        records: All records of the clinical table.
        design: Design whose horizons are used; folds and seeds are those of the models.

    Raises:
        ModelError: The folder has no finished survival model, or a patient of the models has no record.
    """
    from duplus_nnunet.survival.models.methods import METHODS
    from duplus_nnunet.survival.training.folds import TrainedForecast, find_rows, group_folds, read_folds

    repeats = group_folds(read_folds(folder))
    trained = [fold for folds in repeats for fold in folds]
    known = {patient for fold in trained for patient in fold.train | fold.held_out}
    used = tuple(record for record in records if record.patient in known)
    unused = len(records) - len(used)
    draws = "; ".join(", ".join(str(fold.number) for fold in folds) for folds in repeats)
    notes = [f"The folds are those of the trained models ({draws}); --folds and --seeds are not used."]
    notes += (
        [f"{unused} patient(s) of the table are in no fold of the trained models and are left out."] if unused else []
    )
    seeds = tuple(range(len(repeats)))
    held = {(seed, fold.held_out): fold for seed, folds in enumerate(repeats) for fold in folds}
    arranged = replace(
        design,
        folds=len(repeats[0]),
        seeds=seeds,
        given=tuple(find_rows(folds, used) for folds in repeats),
        forecasts={NAME: TrainedForecast(held)},
        methods=(NAME, *(design.methods or METHODS)),
        settings=trained[0].model.settings,
    )
    schema = trained[0].model.schema
    return Arranged(used, arranged, lambda seed, number, fold: repeats[seed][number].frozen, schema, tuple(notes))


def check_options(importance: bool, model: Path | None, output: Path | None) -> None:
    """Check that --importance comes with a model folder and an output folder.

    Raises:
        DataError: Either is missing.
    """
    from duplus_nnunet.errors import DataError

    if importance and (model is None or output is None):
        raise DataError("--importance needs trained models and an output folder: give -m MODEL_FOLDER and -o FOLDER.")


def write_importance(model: Path, records: "Sequence[Record]", folder: Path) -> str:
    """Measure permutation importance and write importance.csv; returns a line for the terminal."""
    from duplus_nnunet.survival.evaluation.importance import (
        REPEATS,
        SEED,
        HeldOutFold,
        measure_importance,
        tabulate_importance,
    )
    from duplus_nnunet.survival.training.folds import find_rows, read_folds
    from duplus_nnunet.table_files import write_csv

    folds = read_folds(model)
    held_out = [
        HeldOutFold(fold.model, tuple(records[row] for row in rows.test), fold.used)
        for fold, rows in zip(folds, find_rows(folds, records), strict=True)
    ]
    concordance, importances = measure_importance(held_out)
    write_csv(folder / IMPORTANCE_NAME, tabulate_importance(importances))
    return (
        f"Wrote {folder / IMPORTANCE_NAME}: drop of Harrell's C ({concordance:.3f}) with each input shuffled among "
        f"held-out patients, {REPEATS} times, seed {SEED}."
    )
