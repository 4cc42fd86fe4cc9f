"""Measures the permutation importance of the columns of a clinical table for any method, in cross-validation.

Source: Breiman 2001 (doi 10.1023/A:1010933404324).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from duplus_nnunet.survival.evaluation.attribution import RECORD
from duplus_nnunet.survival.evaluation.cross_validation import CrossValidation, Method
from duplus_nnunet.survival.evaluation.importance import Importance
from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.table import Record

REPEATS = 20


def measure_record_importance(
    method: Method, cv: CrossValidation, repeats: int = REPEATS, seed: int = 0
) -> tuple[float, list[Importance]]:
    """Measure by how much Harrell's concordance (Wolbers' with competing events) drops when a column is shuffled.

    A method is fitted once in each fold; values are shuffled among the held-out patients of the fold.

    Args:
        method: Fits and predicts a fold; its prediction of a patient may not depend on the other patients to predict.
        cv: Data and folds.
        repeats: Number of shuffles of each column.
        seed: Seed of the shuffles.

    Returns:
        The concordance over all folds, and the importance of each column, largest first.
    """
    names = list(cv.schema.covariates)
    rng = np.random.default_rng(seed)
    folds = [_predict_shuffled(method, cv, number, (names, repeats), rng) for number in range(len(cv.folds))]
    outcomes = [cv.outcome.take(fold.test) for fold in cv.folds]

    def score(variant: int) -> float:
        sums = [concordance(outcome, risks[variant]) for outcome, risks in zip(outcomes, folds, strict=True)]
        return pool(sums)

    before = score(0)
    importances = []
    for column, name in enumerate(names):
        drops = [before - score(1 + column * repeats + number) for number in range(repeats)]
        importances.append(Importance(name, RECORD, float(np.mean(drops)), float(np.std(drops))))
    return before, sorted(importances, key=lambda importance: -importance.drop)


def _predict_shuffled(
    method: Method, cv: CrossValidation, number: int, shuffles: tuple[Sequence[str], int], rng: np.random.Generator
) -> Numbers:
    """Return the risks of the held-out patients, first as they are, then with each column shuffled, (1 + P * R, N)."""
    names, repeats = shuffles
    fold = cv.folds[number]
    train, test = ([cv.records[row] for row in rows] for rows in (fold.train, fold.test))
    variants = [test] + [_shuffle(test, name, rng) for name in names for _ in range(repeats)]
    together = [record for variant in variants for record in variant]
    task = Task(train, together, cv.schema, cv.times.join(), cv.seed, cv.images[number], cv.settings)
    return np.asarray(method(task).risk, np.float64).reshape(len(variants), len(test))


def _shuffle(records: Sequence[Record], name: str, rng: np.random.Generator) -> list[Record]:
    values = [records[row].values.get(name) for row in rng.permutation(len(records))]
    return [
        replace(record, values={**record.values, name: value}) for record, value in zip(records, values, strict=True)
    ]
