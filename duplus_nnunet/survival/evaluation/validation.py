"""Validates the predictions of a fixed model in patients that it was not developed on: scores and calibration.

The model is taken as it is, so that the sampling of the patients alone is uncertain: intervals are percentiles of a
bootstrap of patients. The censoring distribution is estimated in the same patients.

Source: Riley et al. 2024 (doi 10.1136/bmj-2023-074820), external validation; McLernon et al. 2023 (doi
10.7326/M22-0844), fixed-time calibration; Efron and Tibshirani 1993, percentile bootstrap.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.evaluation.calibration import (
    STEEPEST,
    Group,
    HeldOutSurvival,
    group,
    measure_slope,
    observe_survival,
)
from duplus_nnunet.survival.evaluation.calibration_curve import CalibrationCurve, fit_calibration_curve
from duplus_nnunet.survival.evaluation.cross_validation import AUC, BRIER, HIGH, LOW, HeldOut, name_at
from duplus_nnunet.survival.evaluation.decision import DecisionCurve, measure_decision_curves
from duplus_nnunet.survival.evaluation.intervals import Value
from duplus_nnunet.survival.evaluation.metrics import (
    brier_score,
    concordance,
    cumulative_dynamic_auc,
    ipcw_weights,
    pool,
)
from duplus_nnunet.survival.evaluation.risk_groups import RiskGroups, split_by_risk
from duplus_nnunet.survival.models.competing_hazard import estimate_at
from duplus_nnunet.survival.records.outcome import Numbers, Outcome

HARRELL, UNO, INTEGRATED, SKILL = "Harrell's C", "Uno's C", "integrated Brier", "Brier skill"
POOLED_AUC = "pooled AUC"
RATIO, EXCESS, SLOPE = "O/E", "observed less predicted survival", "calibration slope"
REPLICATES = 500
_GRID = 20
_TAILS = (0.025, 0.975)
# Share of bootstrap samples in which a score must be defined for it to have an interval.
_LEAST_SHARE = 0.9
_LEAST_EVENTS = 2


@dataclass(frozen=True)
class Predictions:
    """Predictions of a fixed model for N patients, and their outcomes.

    Attributes:
        outcome: Observed outcomes.
        patients: Patient IDs, (N).
        risk: Predicted risk, (N); higher is worse.
        horizons: Days at which survival is reported, ascending, (H).
        at_horizons: Predicted event-free probability at the horizons, (N, H).
        grid: Days over which Brier scores are integrated, ascending, (G).
        on_grid: Predicted event-free probability on the grid, (N, G).
        groups: Risk group of each patient, HIGH or LOW, by the cut-off of the development; empty without one, (N).
    """

    outcome: Outcome
    patients: tuple[str, ...]
    risk: Numbers
    horizons: tuple[float, ...]
    at_horizons: Numbers
    grid: Numbers
    on_grid: Numbers
    groups: tuple[str, ...]

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Predictions":
        """Select patients by their rows; a row may occur several times."""
        index = np.asarray(rows, np.int64)
        return Predictions(
            self.outcome.take(index),
            tuple(self.patients[row] for row in index),
            self.risk[index],
            self.horizons,
            self.at_horizons[index],
            self.grid,
            self.on_grid[index],
            tuple(self.groups[row] for row in index),
        )


# Warning of a patient.
NOT_FINITE = "the prediction is not finite: values are too far from those of training. Leave it out"


def name_groups(risk: Numbers, cut: float | None) -> tuple[str, ...]:
    """Return HIGH or LOW for each of N patients, by a cut-off; empty without one, or for a risk that is no number."""
    if cut is None:
        return ("",) * len(risk)
    return tuple("" if np.isnan(value) else HIGH if value > cut else LOW for value in risk)


@dataclass(frozen=True)
class Validation:
    """Performance of a fixed model in N patients.

    Attributes:
        predictions: Predictions and outcomes.
        scores: Concordance, pooled AUC, integrated Brier score and its skill beside Kaplan-Meier, by name.
        at_horizons: AUC, Brier score, O/E, observed less predicted survival, and slope at each horizon, by name.
        groups: Groups of patients with similar predictions, by horizon.
        curves: Smooth calibration curve at each horizon; None where it cannot be fitted.
        risk_groups: Groups by the risk cut-off of the development.
        decision_curves: Net benefit at each horizon.
        replicates: Number of bootstrap samples.
    """

    predictions: Predictions
    scores: Mapping[str, Value]
    at_horizons: tuple[Mapping[str, Value], ...]
    groups: Mapping[float, tuple[Group, ...]]
    curves: tuple[CalibrationCurve | None, ...]
    risk_groups: RiskGroups
    decision_curves: tuple[DecisionCurve, ...]
    replicates: int

    @property
    def events(self) -> int:
        """Number of patients with the event."""
        return int(self.predictions.outcome.event.sum())


def choose_validation_times(
    outcome: Outcome, horizons: Sequence[float], known: float
) -> tuple[tuple[float, ...], Numbers, tuple[float, ...]]:
    """Choose the horizons that can be validated, and the grid of the integrated Brier score.

    Args:
        outcome: Outcomes of the patients.
        horizons: Horizons of the model in days, ascending.
        known: Follow-up of the development patients in days; later predictions are not defined.

    Returns:
        The horizons, the grid, and the horizons that were left out.

    Raises:
        DataError: There are fewer than two events, or no horizon is left.
    """
    if int(outcome.event.sum()) < _LEAST_EVENTS:
        raise DataError(
            f"{int(outcome.event.sum())} of {len(outcome)} patients have the event; a validation needs "
            f"{_LEAST_EVENTS} or more. Check the codes of the event."
        )
    first, last = float(outcome.time[outcome.event].min()), min(float(outcome.time.max()), known)
    kept = tuple(float(time) for time in horizons if first < time <= known and time < float(outcome.time.max()))
    if not kept:
        listed = ", ".join(f"{horizon:g}" for horizon in horizons)
        raise DataError(
            f"None of the horizons {listed} (days) lies between the first event, at {first:g} days, and the end of "
            f"follow-up, {last:g} days, of the patients and of the model. Name others: --horizons DAYS."
        )
    left_out = tuple(float(horizon) for horizon in horizons if horizon not in kept)
    return kept, np.linspace(first, kept[-1], _GRID), left_out


def validate(name: str, predictions: Predictions, replicates: int = REPLICATES, seed: int = 0) -> Validation:
    """Validate predictions.

    Args:
        name: Name of the model, for the decision curves.
        predictions: Predictions of a model that is fixed.
        replicates: Number of bootstrap samples of patients.
        seed: Seed of the samples.
    """
    values = measure(predictions)
    samples: dict[str, list[float]] = {key: [] for key in values}
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        sample = predictions.take(rng.integers(len(predictions.risk), size=len(predictions.risk)))
        try:
            measured = measure(sample)
        except DataError:  # in this sample, all patients were censored before the last horizon
            measured = dict.fromkeys(values, math.nan)
        for key, value in measured.items():
            samples[key].append(value)
    summary = {key: _summarise(value, samples[key]) for key, value in values.items()}
    held_out = _to_held_out(predictions)
    own = [HeldOut("", 0, 0, patient, 0.0, (), group=one) for patient, one in
           zip(predictions.patients, predictions.groups, strict=True)]  # fmt: skip
    horizons = predictions.horizons
    return Validation(
        predictions,
        {key: summary[key] for key in (HARRELL, UNO, POOLED_AUC, INTEGRATED, SKILL)},
        tuple({score: summary[name_at(score, horizon)] for score in _AT_HORIZONS} for horizon in horizons),
        {horizon: group(held_out, index, horizon) for index, horizon in enumerate(horizons)},
        tuple(
            fit_calibration_curve(predictions.outcome, predictions.at_horizons[:, index], horizon)
            for index, horizon in enumerate(horizons)
        ),
        split_by_risk(0, own, predictions.outcome, horizons),
        measure_decision_curves({name: [held_out]}, horizons),
        replicates,
    )


_AT_HORIZONS = (AUC, BRIER, RATIO, EXCESS, SLOPE)


def measure(predictions: Predictions) -> dict[str, float]:
    """Return all scores, those at horizons by `name_at`; NaN where one is not defined.

    Raises:
        DataError: All patients were censored before the last horizon.
    """
    outcome, risk, horizons = predictions.outcome, predictions.risk, np.array(predictions.horizons)
    weights = ipcw_weights(outcome, outcome, float(np.nextafter(horizons[-1], np.inf)))
    aucs = [cumulative_dynamic_auc(outcome, risk, weights, horizon) for horizon in horizons]
    brier = pool([brier_score(outcome, outcome, predictions.on_grid, predictions.grid)])
    null = np.tile(1 - estimate_at(outcome, predictions.grid), (len(risk), 1))
    reference = pool([brier_score(outcome, outcome, null, predictions.grid)])
    bottom = sum(float(auc.bottom.sum()) for auc in aucs)
    measured = {
        HARRELL: pool([concordance(outcome, risk)]),
        UNO: pool([concordance(outcome, risk, weights**2)]),
        POOLED_AUC: sum(float(auc.top.sum()) for auc in aucs) / bottom if bottom > 0 else math.nan,
        INTEGRATED: brier,
        SKILL: 1 - brier / reference if reference > 0 else math.nan,
    }
    held_out = _to_held_out(predictions)
    for index, horizon in enumerate(predictions.horizons):
        predicted, observed = predictions.at_horizons[:, index], observe_survival(outcome, horizon)[0]
        expected = 1 - float(predicted.mean())
        at_horizon = brier_score(outcome, outcome, predicted[:, None], np.array([horizon]))
        slope = measure_slope(held_out, index, horizon)[0]
        measured |= {
            name_at(AUC, horizon): pool([aucs[index]]),
            name_at(BRIER, horizon): pool([at_horizon]),
            name_at(RATIO, horizon): (1 - observed) / expected if expected > 0 else math.nan,
            name_at(EXCESS, horizon): observed - float(predicted.mean()),
            name_at(SLOPE, horizon): slope,
        }
    return measured


def _to_held_out(predictions: Predictions) -> HeldOutSurvival:
    """Return predictions in the form of a cross-validation of one fold."""
    count = len(predictions.risk)
    return HeldOutSurvival(predictions.outcome, predictions.at_horizons, np.zeros(count), np.arange(count))


def _summarise(value: float, samples: Sequence[float]) -> Value:
    """Return a value with the percentile interval of its bootstrap samples; a slope at its bound has none."""
    known = np.array([sample for sample in samples if math.isfinite(sample)])
    defined = len(samples) > 0 and len(known) >= _LEAST_SHARE * len(samples)
    if not math.isfinite(value) or not defined or abs(value) >= STEEPEST:
        return Value(value, None)
    low, high = np.quantile(known, _TAILS)
    return Value(value, (float(low), float(high)))
