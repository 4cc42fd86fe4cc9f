"""Measures permutation importance: the drop of concordance when an input is shuffled among held-out patients.

An input is a column of the clinical table, with its missing values, or all images of a context.
Source: Breiman 2001 (doi 10.1023/A:1010933404324).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.progress import track
from duplus_nnunet.survival.evaluation.attribution import IMAGE, RECORD, list_contexts
from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.table import Record

SEED, REPEATS = 0, 30


@dataclass(frozen=True)
class HeldOutFold:
    """Model and held-out patients of a fold.

    Attributes:
        model: Model fitted on the training patients of the fold.
        records: Records of the held-out patients.
        images: Features of their images; None: no images.
    """

    model: SurvivalModel
    records: tuple[Record, ...]
    images: FeatureTable | None


@dataclass(frozen=True)
class Importance:
    """Permutation importance of one input.

    Attributes:
        input: A column, or an image context.
        kind: RECORD or IMAGE.
        drop: Harrell's concordance minus that with the input shuffled, mean over shuffles; higher: more important;
            below 0: the models predict better without it.
        spread: Standard deviation over shuffles; it does not reflect the sampling of patients.
        interval: 95 % confidence interval of the drop, which reflects the sampling of evaluated patients; None: not
            measured.
    """

    input: str
    kind: str
    drop: float
    spread: float
    interval: tuple[float, float] | None = None


def measure_importance(
    folds: Sequence[HeldOutFold], repeats: int = REPEATS, seed: int = SEED
) -> tuple[float, list[Importance]]:
    """Measure the importance of all inputs.

    Args:
        folds: Folds of one cross-validation.
        repeats: Number of shuffles of each input.
        seed: Seed of the shuffles.

    Returns:
        Harrell's concordance over all folds, and the importance of each input, largest first.

    Raises:
        DataError: `repeats` is below 1, or there is no comparable pair of held-out patients.
    """
    if repeats < 1:
        raise DataError(f"`repeats`, the number of shuffles of each input, is {repeats}; expected 1 or more.")
    before = _measure(folds)
    if np.isnan(before):
        raise DataError(
            "There is no comparable pair of held-out patients, so importance cannot be measured. Use more patients, or "
            "fewer folds."
        )
    inputs = [(name, RECORD) for name in folds[0].model.schema.covariates]
    inputs += [(name, IMAGE) for name in list_contexts([fold.images for fold in folds])]
    importances = []
    numbered = track(enumerate(inputs), len(inputs), "importance", "input")
    for number, (name, kind) in numbered:
        rng = np.random.default_rng([seed, number])
        drops = [before - _measure([_shuffle(fold, name, kind, rng) for fold in folds]) for _ in range(repeats)]
        importances.append(Importance(name, kind, float(np.mean(drops)), float(np.std(drops))))
    return before, sorted(importances, key=lambda importance: -importance.drop)


def _measure(folds: Sequence[HeldOutFold]) -> float:
    sums = []
    for fold in folds:
        risk = fold.model.forecast(fold.records, fold.images, np.zeros(1)).risk
        sums.append(concordance(read_outcome(fold.records), risk))
    return pool(sums)


def _shuffle(fold: HeldOutFold, name: str, kind: str, rng: np.random.Generator) -> HeldOutFold:
    order = rng.permutation(len(fold.records))
    if kind == RECORD:
        values = [fold.records[row].values.get(name) for row in order]
        pairs = zip(fold.records, values, strict=True)
        return replace(
            fold, records=tuple(replace(record, values={**record.values, name: value}) for record, value in pairs)
        )
    if fold.images is None:
        return fold
    patients = [record.patient for record in fold.records]
    selected = np.array([context == name for context in fold.images.contexts], bool)
    before = fold.images.take(patients)
    after = np.where(selected, before[order], before)
    return replace(fold, images=replace(fold.images, rows=dict(zip(patients, after, strict=True))))


def tabulate_importance(importances: Sequence[Importance]) -> list[list[str]]:
    """Return importances as rows of a table, heading first."""
    head = ["input", "kind", "drop of Harrell's C", "standard deviation over shuffles"]
    rows = [[entry.input, entry.kind, f"{entry.drop:.6f}", f"{entry.spread:.6f}"] for entry in importances]
    return [head, *rows]
