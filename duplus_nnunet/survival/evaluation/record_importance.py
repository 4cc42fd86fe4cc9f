"""Measures the permutation importance of the columns of a clinical table for any method, in cross-validation.

Source: Breiman 2001 (doi 10.1023/A:1010933404324).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from duplus_nnunet.survival.evaluation.attribution import RECORD
from duplus_nnunet.survival.evaluation.cross_validation import CrossValidation, Method, make_task
from duplus_nnunet.survival.evaluation.importance import Importance
from duplus_nnunet.survival.evaluation.intervals import Estimate, estimate_score
from duplus_nnunet.survival.evaluation.metrics import concordance
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.table import Record

REPEATS, LEAST_REPEATS = 20, 5
# Shuffled records of a fold, which bound memory and time: with more of them, columns are shuffled less often.
_MOST_RECORDS = 100_000


@dataclass(frozen=True)
class RecordImportance:
    """Permutation importance of the columns of a clinical table for one method.

    Attributes:
        method: Name of the method.
        concordance: Harrell's concordance (Wolbers' with competing events) of the held-out patients.
        repeats: Number of shuffles of each column.
        columns: Importance of each column, largest first.
    """

    method: str
    concordance: float
    repeats: int
    columns: tuple[Importance, ...]


def measure_record_importance(
    method: Method, cv: CrossValidation, repeats: int = REPEATS, seed: int = 0, name: str = ""
) -> RecordImportance:
    """Measure by how much Harrell's concordance (Wolbers' with competing events) drops when a column is shuffled.

    A method is fitted once in each fold; values are shuffled among the held-out patients of the fold. The confidence
    interval is that of a paired difference of two concordances, of the mean over shuffles. It reflects the sampling of
    evaluated patients; the fitted models are taken as they are.

    Args:
        method: Fits and predicts a fold; its prediction of a patient may not depend on the other patients to predict.
        cv: Data and folds.
        repeats: Number of shuffles of each column; with many patients and columns fewer, at least 5.
        seed: Seed of the shuffles.
        name: Name of the method.
    """
    names = list(cv.schema.covariates)
    held_out = max(len(fold.test) for fold in cv.folds)
    repeats = min(repeats, max(LEAST_REPEATS, _MOST_RECORDS // max(1, held_out * len(names))))
    rng = np.random.default_rng(seed)
    folds = [_predict_shuffled(method, cv, number, (names, repeats), rng) for number in range(len(cv.folds))]
    outcomes, rows = [cv.outcome.take(fold.test) for fold in cv.folds], [fold.test for fold in cv.folds]

    def score(variant: int) -> Estimate:
        sums = [concordance(outcome, risks[variant]) for outcome, risks in zip(outcomes, folds, strict=True)]
        return estimate_score(sums, rows, len(cv.records), 0.0)

    before = score(0)
    importances = []
    for column, covariate in enumerate(names):
        drops = [before.subtract(score(1 + column * repeats + number)) for number in range(repeats)]
        mean = _average(drops).summarise()
        spread = float(np.std([drop.value for drop in drops]))
        importances.append(Importance(covariate, RECORD, mean.value, spread, mean.interval))
    ranked = tuple(sorted(importances, key=lambda importance: -importance.drop))
    return RecordImportance(name, before.value, repeats, ranked)


def _average(drops: Sequence[Estimate]) -> Estimate:
    """Average estimates of the same patients and folds."""
    values, influences = [drop.value for drop in drops], [drop.influence for drop in drops]
    folds = tuple(np.mean([drop.folds[seed] for drop in drops], axis=0) for seed in range(len(drops[0].folds)))
    return Estimate(float(np.mean(values)), np.mean(influences, axis=0), folds, drops[0].ratio)


def _predict_shuffled(
    method: Method, cv: CrossValidation, number: int, shuffles: tuple[Sequence[str], int], rng: np.random.Generator
) -> Numbers:
    """Return the risks of the held-out patients, first as they are, then with each column shuffled, (1 + P * R, N)."""
    names, repeats = shuffles
    task = make_task(cv, number)
    variants = [task.test] + [_shuffle(task.test, name, rng) for name in names for _ in range(repeats)]
    together = [record for variant in variants for record in variant]
    # The risk alone is used: one time saves memory.
    whole = replace(task, test=together, times=np.array([cv.times.join().max()]))
    return np.asarray(method(whole).risk, np.float64).reshape(len(variants), len(task.test))


def _shuffle(records: Sequence[Record], name: str, rng: np.random.Generator) -> list[Record]:
    values = [records[row].values.get(name) for row in rng.permutation(len(records))]
    return [
        replace(record, values={**record.values, name: value}) for record, value in zip(records, values, strict=True)
    ]
