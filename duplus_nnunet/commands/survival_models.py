"""`duplus survival evaluate -m MODEL`: trained prognoses beside all baselines, on the models' own folds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.survival.study import Design, FindFeatures
    from duplus_nnunet.survival.table import Record

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
    from duplus_nnunet.survival.methods import METHODS
    from duplus_nnunet.trainers.survival_folds import TrainedForecast, place, read_folds

    trained = read_folds(folder)
    known = {patient for fold in trained for patient in fold.train | fold.held_out}
    used = tuple(record for record in records if record.patient in known)
    folds = place(trained, used)
    left = len(records) - len(used)
    numbers = ", ".join(str(fold.number) for fold in trained)
    notes = [f"The trained models' own folds ({numbers}): their number and seeds are not drawn."]
    notes += [f"{left} patient(s) of the table took part in no training, and are left out."] if left else []
    forecast = TrainedForecast({fold.held_out: fold for fold in trained})
    arranged = replace(
        design,
        folds=len(trained),
        seeds=(0,),
        given=(folds,),
        forecasts={NAME: forecast},
        methods=(NAME, *METHODS),
        settings=trained[0].model.settings,
    )
    return Arranged(used, arranged, lambda seed, number, fold: trained[number].frozen, tuple(notes))
