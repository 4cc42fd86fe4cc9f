"""`duplus survival evaluate -m MODEL`: trained prognoses beside all baselines, on the models' own folds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.survival.evaluation.study import Design, FindFeatures
    from duplus_nnunet.survival.records.table import Record

NAME = "trained model"


@dataclass(frozen=True)
class Arranged:
    """What a study of trained models is given.

    Attributes:
        records: Those of patients that they were trained with or held out.
        design: Their folds, and their forecasts first.
        features: Those of each fold, as its base sees them.
        notes: What a reader has to know.
    """

    records: "tuple[Record, ...]"
    design: "Design"
    features: "FindFeatures"
    notes: tuple[str, ...]


def arrange(folder: Path, records: "Sequence[Record]", design: "Design") -> Arranged:
    """Turn a model folder into a study.

    Args:
        folder: With fold_X.
        records: All of the clinical table.
        design: Whose horizons are kept; folds and seeds are the models' own.

    Raises:
        ModelError: The folder holds no finished prognosis, or the records are other ones.
    """
    from duplus_nnunet.survival.models.methods import METHODS
    from duplus_nnunet.survival.training.folds import TrainedForecast, group_folds, place, read_folds

    rounds = group_folds(read_folds(folder))
    trained = [fold for folds in rounds for fold in folds]
    known = {patient for fold in trained for patient in fold.train | fold.held_out}
    used = tuple(record for record in records if record.patient in known)
    left = len(records) - len(used)
    draws = "; ".join(", ".join(str(fold.number) for fold in folds) for folds in rounds)
    notes = [f"The trained models' own folds ({draws}): their number and seeds are not drawn."]
    notes += [f"{left} patient(s) of the table took part in no training, and are left out."] if left else []
    seeds = tuple(range(len(rounds)))
    held = {(seed, fold.held_out): fold for seed, folds in enumerate(rounds) for fold in folds}
    arranged = replace(
        design,
        folds=len(rounds[0]),
        seeds=seeds,
        given=tuple(place(folds, used) for folds in rounds),
        forecasts={NAME: TrainedForecast(held)},
        methods=(NAME, *METHODS),
        settings=trained[0].model.settings,
    )
    return Arranged(used, arranged, lambda seed, number, fold: rounds[seed][number].frozen, tuple(notes))
