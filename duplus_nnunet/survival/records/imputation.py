"""Imputes missing covariates several times by chained equations (multiple imputation).

Training patients are imputed with their outcomes among the predictors: the event, and the Nelson-Aalen estimate of the
cumulative hazard at their time; without them, associations with the outcome would be weakened. Other patients are
imputed without outcomes, by equations that are fitted to the imputed training patients, each from its own values alone.

Each equation is fitted to a bootstrap sample of the training patients in whom the covariate is known, so that the
imputations reflect its uncertainty. Numbers and ordinal values are drawn by predictive mean matching, so that they are
values that occur; categories from their predicted probabilities. The regressions are scikit-learn's.

Source: White and Royston 2009 (doi 10.1002/sim.3618), outcome among the predictors; van Buuren 2018, Flexible
Imputation of Missing Data, sections 3.2.1, 3.4 and 4.5; White et al. 2011 (doi 10.1002/sim.4067).
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.survival.records.encoding import ColumnCode, fit_encoder
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record

IMPUTED = (
    "Held-out patients are imputed from their own values, without outcomes. Predictions are averaged over imputations, "
    "survival as log(-log S); hazard ratios are pooled by Rubin's rules. Methods with images mark missing values "
    "instead."
)
# Known values of training patients below which a covariate is not imputed.
LEAST_KNOWN = 10
ROUNDS = 5
_DONORS = 5  # half of LEAST_KNOWN, or fewer
_JITTER = 1e-6  # in standard deviations
_MOST_ITERATIONS = 1000

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Imputation:
    """Records without missing values, but for covariates that cannot be imputed.

    Attributes:
        train: Records of the training patients.
        test: Records of the other patients.
    """

    train: tuple[Record, ...]
    test: tuple[Record, ...]


@dataclass(frozen=True)
class _Variable:
    """One covariate of N training patients.

    Attributes:
        code: Its encoding, without a missing indicator.
        targets: Numbers, or indices of categories, (N); NaN where missing.
    """

    code: ColumnCode
    targets: Numbers

    @property
    def is_category(self) -> bool:
        """Whether values are categories."""
        return bool(self.code.categories)

    @property
    def known(self) -> Rows:
        """Rows in which the value is known."""
        return np.flatnonzero(~np.isnan(self.targets))

    def encode(self, targets: Numbers) -> Numbers:
        """Return the numbers by which a value predicts other covariates, (N, C)."""
        if not self.is_category:
            standardised: Numbers = ((targets - self.code.mean) / self.code.scale)[:, None]
            return standardised
        others = np.arange(1, len(self.code.categories) + bool(self.code.pooled))
        return np.asarray(targets[:, None] == others[None, :], np.float64)

    def decode(self, target: float) -> float | str:
        """Return the value of a record; a rare category is the most common one of them."""
        if not self.is_category:
            return target
        names = (*self.code.categories, *self.code.pooled)
        return names[int(target)]


@dataclass(frozen=True)
class _Equation:
    """A fitted regression of one covariate on the others.

    Attributes:
        model: Regression of scikit-learn; None: all patients of the bootstrap sample had the same category.
        values: Categories; or the known numbers, by ascending moved prediction, (D).
        predicted: Predictions of these numbers, ascending, (D); empty for categories.
        moved: The same, moved at random by a small amount, ascending, so that equal ones come in random order, (D).
        jitter: Largest amount.
    """

    model: Any
    values: Numbers
    predicted: Numbers
    moved: Numbers
    jitter: float = 0.0

    def draw(self, x: Numbers, uniform: Numbers) -> Numbers:
        """Draw a value for each of N patients from predictors (N, Q) and numbers between 0 and 1, (N)."""
        if self.model is None:
            return np.full(len(x), self.values[0])
        if not len(self.predicted):
            steps = np.cumsum(self.model.predict_proba(x), axis=1)
            index = (uniform[:, None] > steps).sum(1)
            return np.asarray(self.values[np.minimum(index, len(self.values) - 1)])
        # Predictive mean matching: one of the patients whose predictions are nearest to the nearest one. The digits of
        # the random number that do not choose the donor choose among equal predictions.
        donor, rest = np.divmod(uniform * _DONORS, 1.0)
        nearest = self.predicted[_find_nearest(self.predicted, self.model.predict(x))[:, 0]]
        near = _find_nearest(self.moved, nearest + self.jitter * (2 * rest - 1))
        return np.asarray(self.values[near[np.arange(len(x)), donor.astype(np.int64)]])


def list_imputed(records: Sequence[Record], schema: ClinicalSchema) -> tuple[str, ...]:
    """List the covariates that are imputed: known in ten training patients or more, and not all the same."""
    return tuple(variable.code.name for variable in _read_variables(records, schema))


def count_parameters(records: Sequence[Record], schema: ClinicalSchema) -> int:
    """Count the numbers by which covariates are encoded, after rare categories are pooled.

    An indicator of missing values counts, unless the values are imputed.
    """
    imputed = list_imputed(records, schema) if schema.imputations else ()
    columns = fit_encoder(records, schema).columns
    return sum(len(column.names) - (column.marks_missing and column.name in imputed) for column in columns)


def has_missing(records: Sequence[Record], schema: ClinicalSchema) -> bool:
    """Whether a covariate is missing in a record."""
    return any(record.values.get(name) is None for record in records for name in schema.covariates)


def impute(
    train: Sequence[Record], test: Sequence[Record], schema: ClinicalSchema, count: int, seed: int
) -> list[Imputation]:
    """Impute the covariates of training patients and of others several times.

    Args:
        train: Training records, whose outcomes are used.
        test: Records of other patients; their outcomes are not used, and each is imputed from its own values.
        schema: Types of the covariates.
        count: Number of imputations.
        seed: Seed of all draws.
    """
    variables = _read_variables(train, schema)
    outcome = _describe_outcome(read_outcome(train))
    imputations = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        targets = _impute_training(variables, outcome, rng)
        others = _impute_others(variables, targets, test, rng, (seed, number)) if test else []
        imputations.append(Imputation(_fill(train, variables, targets), _fill(test, variables, others) if test else ()))
    return imputations


def _read_variables(records: Sequence[Record], schema: ClinicalSchema) -> tuple[_Variable, ...]:
    variables = []
    for code in fit_encoder(records, schema).columns:
        variable = _Variable(replace(code, marks_missing=False), _read_targets(code, records))
        known = variable.targets[variable.known]
        if len(known) >= LEAST_KNOWN and len(np.unique(known)) > 1:
            variables.append(variable)
    return tuple(variables)


def _read_targets(code: ColumnCode, records: Sequence[Record]) -> Numbers:
    """Return numbers, or indices of categories, (N); NaN where missing, or where a category is unknown."""
    values = [record.values.get(code.name) for record in records]
    if not code.categories:
        return np.array([np.nan if value is None else float(value) for value in values], np.float64)
    indices = [code.find_category(value) for value in values]
    return np.array([np.nan if index is None else index for index in indices], np.float64)


def _describe_outcome(outcome: Outcome) -> Numbers:
    """Return event and cumulative hazard over the time at risk, for each kind of event, standardised, (N, C)."""
    kinds = [outcome.event] if outcome.competing is None else [outcome.event, outcome.competing]
    columns = [column for kind in kinds for column in (kind.astype(np.float64), _estimate_hazard(outcome, kind))]
    described = np.stack(columns, axis=1)
    spread = described.std(0)
    return np.asarray((described - described.mean(0)) / np.where(spread > 0, spread, 1.0))


def _estimate_hazard(outcome: Outcome, had: NDArray[np.bool_]) -> Numbers:
    """Return the Nelson-Aalen estimate at the time of each patient, less that at the entry, (N)."""
    times, counts = np.unique(outcome.time[had], return_counts=True)
    hazards = np.concatenate([[0.0], np.cumsum(counts / outcome.find_at_risk(times).sum(0))])
    hazard: Numbers = hazards[np.searchsorted(times, outcome.time, side="right")]
    if outcome.entry is not None:
        hazard = hazard - hazards[np.searchsorted(times, outcome.entry, side="right")]
    return hazard


def _impute_training(variables: Sequence[_Variable], outcome: Numbers, rng: np.random.Generator) -> list[Numbers]:
    """Return the targets of all variables without missing values, each (N)."""
    targets = []
    for variable in variables:
        filled, missing = variable.targets.copy(), np.isnan(variable.targets)
        filled[missing] = rng.choice(variable.targets[variable.known], missing.sum())
        targets.append(filled)
    # The covariates with the fewest missing values first.
    order = sorted(range(len(variables)), key=lambda index: -len(variables[index].known))
    incomplete = [index for index in order if len(variables[index].known) < len(targets[index])]
    for _ in range(ROUNDS if len(incomplete) > 1 else 1):
        for index in incomplete:
            x = _join(variables, targets, index, outcome)
            missing = np.isnan(variables[index].targets)
            equation = _fit_equation(variables[index], x, rng)
            targets[index][missing] = equation.draw(x[missing], rng.random(int(missing.sum())))
    return targets


def _impute_others(
    variables: Sequence[_Variable],
    completed: Sequence[Numbers],
    records: Sequence[Record],
    rng: np.random.Generator,
    seed: tuple[int, int],
) -> list[Numbers]:
    """Return the targets of all variables of other patients, from equations without outcomes, each (N)."""
    read = [_read_targets(variable.code, records) for variable in variables]
    incomplete = [index for index, targets in enumerate(read) if np.isnan(targets).any()]
    if not incomplete:
        return read
    # All equations are fitted, so that those of a patient do not depend on what is missing in others.
    x = [_join(variables, completed, index) for index in range(len(variables))]
    equations = [_fit_equation(*pair, rng) for pair in zip(variables, x, strict=True)]
    uniform = _draw_for_patients(records, (ROUNDS + 1, len(variables)), seed)
    targets = [targets.copy() for targets in read]
    for index in incomplete:
        missing, known = np.isnan(read[index]), variables[index].targets[variables[index].known]
        targets[index][missing] = known[(uniform[missing, 0, index] * len(known)).astype(np.int64)]
    for step in range(1, ROUNDS + 1):
        for index in incomplete:
            missing = np.isnan(read[index])
            own = _join(variables, targets, index)[missing]
            targets[index][missing] = equations[index].draw(own, uniform[missing, step, index])
    return targets


def _draw_for_patients(records: Sequence[Record], shape: tuple[int, int], seed: tuple[int, int]) -> Numbers:
    """Return numbers from 0 to below 1 that depend on the patient and the seed alone, (N, *shape)."""
    seeds = [[*seed, zlib.crc32(record.patient.encode("utf-8"))] for record in records]
    return np.stack([np.random.default_rng(own).random(shape) for own in seeds])


def _join(variables: Sequence[_Variable], targets: Sequence[Numbers], index: int, *more: Numbers) -> Numbers:
    """Return the predictors of one variable: all others, and more columns (N, C) of each patient, (N, Q)."""
    others = [
        variable.encode(own)
        for number, (variable, own) in enumerate(zip(variables, targets, strict=True))
        if number != index
    ]
    # A constant, so that there is a predictor where there is no other variable.
    return np.concatenate([np.zeros((len(targets[index]), 1)), *others, *more], axis=1)


def _fit_equation(variable: _Variable, x: Numbers, rng: np.random.Generator) -> _Equation:
    """Fit the regression of a variable on predictors (N, Q) of the training patients, to a bootstrap sample.

    In predictive mean matching, the predictions of donors are those of a regression of all of them (type 1 matching).
    """
    from sklearn.linear_model import BayesianRidge, LogisticRegression

    known = variable.known
    sample = rng.choice(known, len(known))
    y = variable.targets[sample]
    if variable.is_category:
        categories = np.unique(y)
        single = len(categories) == 1
        model = None if single else LogisticRegression(max_iter=_MOST_ITERATIONS).fit(x[sample], y)
        return _Equation(model, categories, np.zeros(0), np.zeros(0))
    values = variable.targets[known]
    jitter = _JITTER * float(values.std())
    predicted = BayesianRidge().fit(x[known], values).predict(x[known])
    moved = predicted + rng.uniform(-jitter, jitter, len(known))
    order = np.argsort(moved)
    model = BayesianRidge().fit(x[sample], y)
    return _Equation(model, values[order], np.sort(predicted), moved[order], jitter)


def _find_nearest(ascending: Numbers, values: Numbers) -> Rows:
    """Return the indices of the five of ascending numbers (D) that are nearest to N values, nearest first, (N, 5)."""
    start = np.clip(np.searchsorted(ascending, values) - _DONORS, 0, len(ascending) - 2 * _DONORS)
    window = start[:, None] + np.arange(2 * _DONORS)[None, :]
    order = np.argsort(np.abs(ascending[window] - values[:, None]), axis=1)[:, :_DONORS]
    return np.take_along_axis(window, order, axis=1)


def _fill(records: Sequence[Record], variables: Sequence[_Variable], targets: Sequence[Numbers]) -> tuple[Record, ...]:
    """Return records whose missing values are those of the targets."""
    filled = []
    for row, record in enumerate(records):
        own: Mapping[str, float | str | None] = {
            variable.code.name: variable.decode(float(column[row]))
            for variable, column in zip(variables, targets, strict=True)
            if record.values.get(variable.code.name) is None
        }
        filled.append(replace(record, values={**record.values, **own}) if own else record)
    return tuple(filled)
