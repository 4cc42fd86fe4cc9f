"""Evaluates models that were trained before: in come models of folds and their features, out comes a study.

Each fold's model foretells the patients whom it has not seen; all other methods learn in the same folds, from features
of the same networks.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.features import FeatureTable
from duplus_nnunet.survival.folds import give_folds
from duplus_nnunet.survival.forecasts import Forecast, Task, cut_risks
from duplus_nnunet.survival.model import SurvivalModel
from duplus_nnunet.survival.schema import ClinicalSchema
from duplus_nnunet.survival.study import Design, Study, list_methods, run_study
from duplus_nnunet.survival.table import Record

_SHOWN = 8


@dataclass(frozen=True)
class TrainedFold:
    """A model of one fold.

    Attributes:
        train: Patients that may be learned from.
        held: Patients that were held out.
        model: Fitted on some or all of `train`.
        own: Image features that the model sees, of all patients; None: it sees records alone.
        images: Image features that other methods learn from; None: as `own`. They differ where training has changed the
            network that gives them.
    """

    train: Collection[str]
    held: Collection[str]
    model: SurvivalModel
    own: FeatureTable | None = None
    images: FeatureTable | None = None


def evaluate_trained(
    name: str,
    data: tuple[Sequence[Record], ClinicalSchema],
    folds: Sequence[TrainedFold],
    horizons: tuple[float, ...] = (),
    show: Callable[[str], None] = lambda _: None,
) -> tuple[Study, Design]:
    """Score trained models beside all other methods; differences are to the trained one.

    Args:
        name: What to call the trained method.
        data: Records, one a patient, and the types of their covariates.
        folds: One a model.
        horizons: Days, ascending; empty: chosen by the events.
        show: Takes a line for each method that is done.

    Raises:
        DataError: A model was fitted on a patient that it shall foretell, folds overlap, or some have image features
            and others none.
    """
    records, schema = data
    given = give_folds(records, [(fold.train, fold.held) for fold in folds])
    _check(folds)
    has_images = _find_images(folds[0]) is not None
    design = Design(
        seeds=(0,),
        horizons=horizons,
        methods=(name, *list_methods(has_images)),
        given=(given,),
        forecasts={name: lambda task: _foretell(folds, task)},
    )
    features = (lambda seed, number, fold: _find_images(folds[number])) if has_images else None
    return run_study(records, schema, design, show, features), design


def _find_images(fold: TrainedFold) -> FeatureTable | None:
    return fold.images if fold.images is not None else fold.own


def _check(folds: Sequence[TrainedFold]) -> None:
    for number, fold in enumerate(folds):
        seen = sorted(set(fold.model.patients) & set(fold.held))
        if seen:
            raise DataError(
                f"The model of fold {number} was fitted on {len(seen)} patient(s) that it shall foretell: "
                f"{', '.join(seen[:_SHOWN])}. Its scores would be no test. Train it with the folds of the test."
            )
    if len({_find_images(fold) is None for fold in folds}) > 1:
        raise DataError("Some folds have image features and others have none. Extract them for all, or for none.")


def _foretell(folds: Sequence[TrainedFold], task: Task) -> Forecast:
    patients = {record.patient for record in task.test}
    (fold,) = (fold for fold in folds if set(fold.held) == patients)
    found = fold.model.forecast(task.test, fold.own, task.times)
    return replace(found, cut=cut_risks(fold.model.risks))
