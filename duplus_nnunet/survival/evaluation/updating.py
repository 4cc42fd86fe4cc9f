"""Estimates how a model is recalibrated in new patients: in the large, or with its slope.

In the large, the cumulative hazard is multiplied so that the mean predicted risk at the last horizon equals the
observed risk (Kaplan-Meier, or cumulative incidence by Aalen-Johansen). With the slope, the logarithm of the cumulative
hazard at that horizon is first multiplied by the calibration slope. Ten events are needed for each parameter.

Source: van Houwelingen 2000 and Crowson et al. 2016, see models.recalibration; Peduzzi et al. 1995 (doi
10.1016/0895-4356(95)00048-8), events per parameter.
"""

import math

import numpy as np
from scipy.optimize import brentq

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.survival.evaluation.calibration import (
    STEEPEST,
    HeldOutSurvival,
    measure_slope,
    observe_survival,
)
from duplus_nnunet.survival.evaluation.validation import Predictions
from duplus_nnunet.survival.models.patient_hashes import hash_patients
from duplus_nnunet.survival.models.recalibration import LARGE, SLOPE, Recalibration

# Parameters of each kind, and events by the horizon for each of them.
PARAMETERS = {LARGE: 1, SLOPE: 2}
EVENTS_PER_PARAMETER = 10
RULE = (
    f"{EVENTS_PER_PARAMETER} events by the horizon for each parameter that is estimated: "
    f"{EVENTS_PER_PARAMETER * PARAMETERS[LARGE]} in the large, {EVENTS_PER_PARAMETER * PARAMETERS[SLOPE]} with the "
    "slope (Peduzzi et al. 1995)"
)
_LOGS = (-30.0, 30.0)


def estimate_recalibration(kind: str, name: str, predictions: Predictions) -> Recalibration:
    """Estimate a recalibration at the last horizon.

    Args:
        kind: LARGE or SLOPE.
        name: Name of the table of the patients.
        predictions: Predictions and outcomes.

    Raises:
        DataError: The kind is unknown, there are too few events, or the observed risk or the slope cannot be matched.
    """
    if kind not in PARAMETERS:
        raise DataError(describe_unknown("recalibration", kind, PARAMETERS))
    outcome, horizon = predictions.outcome, predictions.horizons[-1]
    events, needed = int((outcome.event & (outcome.time <= horizon)).sum()), EVENTS_PER_PARAMETER * PARAMETERS[kind]
    if events < needed:
        raise DataError(
            f"{name} has {events} patients with the event within {horizon:g} days; recalibration {kind!r} needs "
            f"{needed}. The rule: {RULE}. Collect more patients"
            + (", or recalibrate in the large." if kind == SLOPE and events >= EVENTS_PER_PARAMETER else ".")
        )
    at_horizon = predictions.at_horizons[:, -1]
    slope = _estimate_slope(predictions) if kind == SLOPE else 1.0
    observed = observe_survival(outcome, horizon)[0]
    if not 0 < observed < 1:
        raise DataError(f"The observed survival at {horizon:g} days is {observed:g}: no factor matches it.")

    def differ(log_factor: float) -> float:
        changed = Recalibration(kind, horizon, slope, math.exp(log_factor), name, len(outcome), events)
        return float(changed.apply(at_horizon[:, None], at_horizon).mean()) - observed

    if differ(_LOGS[0]) <= 0 or differ(_LOGS[1]) >= 0:
        raise DataError(f"No factor matches the observed survival at {horizon:g} days, {observed:g}.")
    factor = math.exp(float(brentq(differ, *_LOGS, xtol=1e-12)))
    return Recalibration(kind, horizon, slope, factor, name, len(outcome), events, *hash_patients(predictions.patients))


def _estimate_slope(predictions: Predictions) -> float:
    count = len(predictions.risk)
    held_out = HeldOutSurvival(predictions.outcome, predictions.at_horizons[:, -1:], np.zeros(count), np.arange(count))
    slope, _ = measure_slope(held_out, 0, predictions.horizons[-1])
    if not 0 < slope < STEEPEST:
        raise DataError(
            f"The calibration slope at {predictions.horizons[-1]:g} days is {slope:.3g}: the order of the predictions "
            "does not hold in these patients, or cannot be estimated, and no recalibration mends that. Recalibrate in "
            "the large, or develop a model on patients like these."
        )
    return slope
