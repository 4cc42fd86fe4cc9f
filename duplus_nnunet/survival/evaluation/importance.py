"""What inputs are worth to a cohort: in come folds' models and whom each held out, out come drops of concordance.

A column of the records, or all images of a context, is shuffled among the held-out patients of each fold. Whole columns
go together with whether they are missing. Source: Breiman 2001 (doi 10.1023/A:1010933404324).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.attribution import EHR, IMAGE, list_contexts
from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.table import Record

SEED, REPEATS = 0, 30


@dataclass(frozen=True)
class HeldOutFold:
    """A fold's model, and those that it did not see.

    Attributes:
        model: Fitted on the training patients of the fold.
        records: Of the held-out patients.
        images: Features of their images, or None.
    """

    model: SurvivalModel
    records: tuple[Record, ...]
    images: FeatureTable | None


@dataclass(frozen=True)
class Importance:
    """What one input is worth.

    Attributes:
        input: A column, or a context of images.
        kind: EHR or IMAGE.
        drop: Harrell's concordance as it is less that with the input shuffled, mean over shuffles; higher: worth more;
            below 0: the models foretell better without it.
        spread: Standard deviation over shuffles; it says nothing of other patients.
    """

    input: str
    kind: str
    drop: float
    spread: float


def measure_importance(
    folds: Sequence[HeldOutFold], repeats: int = REPEATS, seed: int = SEED
) -> tuple[float, list[Importance]]:
    """Measure all inputs.

    Args:
        folds: Of one cross-validation.
        repeats: Number of shuffles of each input.
        seed: Of the shuffles.

    Returns:
        Harrell's concordance, folds pooled, and the importance of each input, the largest first.

    Raises:
        DataError: There are no repeats, or no two held-out patients can be compared.
    """
    if repeats < 1:
        raise DataError(f"{repeats} shuffles of each input were asked for; expected 1 or more.")
    before = _measure(folds)
    if np.isnan(before):
        raise DataError("No two held-out patients can be compared, so that no input's importance can be measured.")
    inputs = [(name, EHR) for name in folds[0].model.schema.covariates]
    inputs += [(name, IMAGE) for name in list_contexts([fold.images for fold in folds])]
    found = []
    for place, (name, kind) in enumerate(inputs):
        rng = np.random.default_rng([seed, place])
        drops = [before - _measure([_shuffle(fold, name, kind, rng) for fold in folds]) for _ in range(repeats)]
        found.append(Importance(name, kind, float(np.mean(drops)), float(np.std(drops))))
    return before, sorted(found, key=lambda one: -one.drop)


def _measure(folds: Sequence[HeldOutFold]) -> float:
    sums = []
    for fold in folds:
        risk = fold.model.forecast(fold.records, fold.images, np.zeros(1)).risk
        sums.append(concordance(read_outcome(fold.records), risk))
    return float(pool(sums)[0])


def _shuffle(fold: HeldOutFold, name: str, kind: str, rng: np.random.Generator) -> HeldOutFold:
    order = rng.permutation(len(fold.records))
    if kind == EHR:
        values = [fold.records[place].values.get(name) for place in order]
        pairs = zip(fold.records, values, strict=True)
        return replace(fold, records=tuple(replace(one, values={**one.values, name: value}) for one, value in pairs))
    if fold.images is None:
        return fold
    patients = [record.patient for record in fold.records]
    own = np.array([context == name for context in fold.images.contexts], bool)
    before = fold.images.take(patients)
    after = np.where(own, before[order], before)
    return replace(fold, images=replace(fold.images, rows=dict(zip(patients, after, strict=True))))


def tabulate_importance(found: Sequence[Importance]) -> list[list[str]]:
    """Write importances as rows of a table, the first one its head."""
    head = ["input", "kind", "drop of Harrell's C", "standard deviation over shuffles"]
    return [head, *([one.input, one.kind, f"{one.drop:.6f}", f"{one.spread:.6f}"] for one in found)]
