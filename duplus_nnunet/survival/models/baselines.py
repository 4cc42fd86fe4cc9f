"""Fits scikit-survival's models as baselines: Kaplan-Meier, Cox, Coxnet and the random survival forest."""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.names import is_pet
from duplus_nnunet.survival.models.breslow import fit_breslow_baseline
from duplus_nnunet.survival.models.delayed_entry import fit_delayed_entry
from duplus_nnunet.survival.models.forecasts import Forecast, Task, choose_cut_off
from duplus_nnunet.survival.models.icare import Icare
from duplus_nnunet.survival.models.image_inputs import LESION_VOLUME, fit_image_code
from duplus_nnunet.survival.models.predictors import Curve, ProportionalHazards
from duplus_nnunet.survival.models.stored_forest import export_forest
from duplus_nnunet.survival.records.encoding import Table, fit_encoder
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import Numbers, Outcome, read_outcome, require_sksurv
from duplus_nnunet.survival.records.table import SEEN

_RIDGE = 0.1
COX_PENALTY = (
    f"Breslow's partial likelihood with a ridge penalty of {_RIDGE:g} on standardised covariates, so that it can "
    "always be fitted; hazard ratios are of a model without a penalty (Efron)"
)
_INNER_FOLDS = 5
_LEAST_PATIENTS = 2  # to which Coxnet can be fitted
_PENALTIES = 30
FOREST_TIMES = 100  # distinct event times of a forest
# Largest ratio of the weakest to the strongest penalty of a path.
_LARGEST_RATIO = 0.9
_SMALL = 1e-300
_LESION_MAX = "lesion max"

# Returns the encoded training patients, (N, P), the encoded patients to predict, and notes for the reader.
Encode = Callable[[Task], tuple[Table, Table, tuple[str, ...]]]


def encode_records(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode the covariates; the encoder is fitted on the training records."""
    encoder = fit_encoder(task.train, task.schema)
    train, _ = encoder.encode(task.train)
    test, notes = encoder.encode(task.test)
    return train, test, tuple(notes)


def encode_lesion_measures(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode the log lesion volume in each modality, and the maximum lesion uptake in PET."""
    table = task.images or FeatureTable((), (), (), {})
    names = [
        name
        for name, context, kind in zip(table.names, table.contexts, table.kinds, strict=True)
        if kind == "measure" and (name.endswith(LESION_VOLUME) or (name.endswith(_LESION_MAX) and is_pet(context)))
    ]
    return _encode_images(table.choose(names), task)


def encode_frozen_features(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode the covariates and all image features."""
    images, records = _encode_images(task.images or FeatureTable((), (), (), {}), task), encode_records(task)
    train, test = (np.concatenate([records[part], images[part]], axis=1) for part in (0, 1))
    return train, test, (*records[2], *images[2])


def _encode_images(table: FeatureTable, task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Standardise image features; missing ones become the mean, and modalities get missing indicators."""
    code, notes = fit_image_code(table, [record.patient for record in task.train], None)
    parts = []
    for records in (task.train, task.test):
        numbers, more = code.align(table, [record.patient for record in records])
        inputs, present = code.encode(torch.from_numpy(numbers).double())
        parts.append(np.concatenate([inputs.numpy(), 1.0 - present.numpy()], axis=1).astype(np.float32))
    varies = np.ptp(parts[0], axis=0) > 0  # by rounding, the standard deviation of a constant need not be 0
    return parts[0][:, varies], parts[1][:, varies], (*notes, *more)


def predict_kaplan_meier(task: Task) -> Forecast:
    """Predict the Kaplan-Meier curve of the training patients, and the same risk, for all patients."""
    require_sksurv()
    from sksurv.nonparametric import kaplan_meier_estimator

    outcome = read_outcome(task.train)
    times, curve = kaplan_meier_estimator(outcome.event, outcome.time, outcome.entry)
    return predict_curve(Curve(times, curve), task)


def predict_curve(curve: Curve, task: Task) -> Forecast:
    """Predict the same curve, and the same risk, for all patients."""
    shape = np.zeros((len(task.test), 0))
    return Forecast(curve.predict_risk(shape), curve.predict_survival(shape, task.times), fitted=lambda: curve)


def predict_without_covariates(task: Task, notes: tuple[str, ...]) -> Forecast:
    """Predict the same for all patients, because no covariate varies in training."""
    note = "In a fold, no covariate varies between training patients: all patients get the same prediction."
    return replace(predict_kaplan_meier(task), notes=(*notes, note))


@dataclass(frozen=True)
class _Fitted:
    """A model of scikit-survival, with the encoded patients (N, P) that it was fitted to, and those to predict."""

    model: Any
    train: Numbers
    test: Numbers
    notes: tuple[str, ...]


def _fit_encoded(task: Task, encode: Encode, fit: Callable[[Any, Any], Any]) -> Forecast | _Fitted:
    """Fit a model; where no covariate varies, return the forecast of a model without covariates."""
    train, test, notes = encode(task)
    if train.shape[1] == 0:
        return predict_without_covariates(task, notes)
    x = train.astype(np.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _fit(fit, x, read_outcome(task.train))
    return _Fitted(model, x, test.astype(np.float64), (*notes, *_report_convergence(caught)))


def _predict_proportional(
    task: Task, encode: Encode, fit: Callable[[Any, Any], Any], with_entry: bool = False
) -> Forecast:
    """Predict by a model of proportional hazards, whose baseline hazard is Breslow's.

    Survival is that of the model as it is saved. scikit-survival's own is a power of the baseline survival, which is 0
    by rounding where risks are far apart, whatever the risk.
    """
    fitted = _fit_encoded(task, encode, fit)
    if isinstance(fitted, Forecast):
        return fitted
    outcome = read_outcome(task.train)
    outcome = outcome if with_entry else Outcome(outcome.event, outcome.time)
    predictor = _export_proportional(fitted.model, fitted.train, outcome)
    cut = choose_cut_off(predictor.predict_risk(fitted.train))
    survival = predictor.predict_survival(fitted.test, task.times)
    return Forecast(predictor.predict_risk(fitted.test), survival, fitted.notes, cut, fitted=lambda: predictor)


def _export_proportional(model: Any, x: Numbers, outcome: Outcome) -> ProportionalHazards:
    """Return a model of proportional hazards of scikit-survival, fitted to patients (N, P), as plain arrays."""
    risks = np.asarray(model.predict(x), np.float64)
    weights = np.asarray(model.coef_, np.float64)
    weights = weights if weights.ndim == 1 else weights[:, -1]  # of a path of penalties, the last one
    offset = float(np.mean(x @ weights - risks))
    return ProportionalHazards(weights, offset, *fit_breslow_baseline(risks, outcome))


def _fit(fit: Callable[[Any, Any], Any], x: Numbers, outcome: Outcome) -> Any:
    try:
        return fit(x, outcome.to_sksurv())
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise DataError(
            f"A baseline model cannot be fitted to {len(outcome)} training patients with {int(outcome.event.sum())} "
            f"events and {x.shape[1]} encoded covariates ({error}). Use fewer covariates, or more patients a fold."
        ) from error


def _report_convergence(caught: Iterable[warnings.WarningMessage]) -> tuple[str, ...]:
    """Say that a fit did not converge; other warnings of scikit-survival concern programmers only."""
    from sklearn.exceptions import ConvergenceWarning

    texts = [str(warning.message) for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    if not texts:
        return ()
    return (f"A fit of scikit-survival did not converge in a fold, and its scores may be too low: {texts[0]}",)


def predict_cox(task: Task, encode: Encode = encode_records) -> Forecast:
    """Predict by Cox regression with a small ridge penalty; delayed entry is taken into account."""
    require_sksurv()
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    outcome = read_outcome(task.train)

    def fit(x: Any, y: Any) -> Any:
        if outcome.entry is not None:
            return fit_delayed_entry(x, outcome, _RIDGE)
        return CoxPHSurvivalAnalysis(alpha=_RIDGE).fit(x, y)

    return _predict_proportional(task, encode, fit, with_entry=True)


def predict_icare(task: Task, encode: Encode = encode_records) -> Forecast:
    """Predict by bagged signs of the covariates (ICARE)."""
    return _predict_proportional(task, encode, lambda x, y: Icare(task.seed).fit(x, y))


def predict_coxnet(task: Task, encode: Encode = encode_records) -> Forecast:
    """Predict by Cox regression with an elastic net, whose penalty is chosen by inner cross-validation."""
    require_sksurv()

    def fit(x: Any, y: Any) -> Any:
        alphas = _fit_coxnet(x, y, n_alphas=_PENALTIES, alpha_min_ratio=0.01).alphas_
        scores = _score_penalties(x, y, alphas, task)
        best = int(np.argmax(scores)) if len(scores) else 0
        return _fit_coxnet(x, y, alphas=alphas[: best + 1], fit_baseline_model=False)

    return _predict_proportional(task, encode, fit)


def _fit_coxnet(x: Any, y: Any, **options: Any) -> Any:
    """Fit a path of penalties, strongest first, shortened until it can be fitted; weak penalties may not converge."""
    from sksurv.linear_model import CoxnetSurvivalAnalysis

    try:
        return CoxnetSurvivalAnalysis(l1_ratio=0.5, **options).fit(x, y)
    except ArithmeticError:
        alphas = options.get("alphas")
        if alphas is None and options["alpha_min_ratio"] < _LARGEST_RATIO:
            ratio = math.sqrt(options["alpha_min_ratio"])
            return _fit_coxnet(x, y, **{**options, "alpha_min_ratio": ratio})
        if alphas is None or len(alphas) == 1:
            raise
        return _fit_coxnet(x, y, **{**options, "alphas": alphas[: len(alphas) // 2]})


def _score_penalties(x: Any, y: Any, alphas: Any, task: Task) -> Numbers:
    """Return the cross-validated partial likelihood of each penalty that could be fitted in all inner folds.

    Higher is better. Concordance would not do, as it is blind to shrinkage. The result is empty if there are too few
    patients for inner folds.

    Source: Verweij and van Houwelingen 1993, Statistics in Medicine 12(24).
    """
    folds = make_folds(task.train, count_inner_folds(task), task.seed)
    if min(len(fold.train) for fold in folds) < _LEAST_PATIENTS:
        return np.zeros(0)
    sums = []
    for fold in folds:
        train = list(fold.train)
        weights = _fit_coxnet(x[train], y[train], alphas=alphas).coef_
        sums.append(_log_partial_likelihood(x, y, weights) - _log_partial_likelihood(x[train], y[train], weights))
    shortest = min(map(len, sums))
    scores: Numbers = np.sum([likelihoods[:shortest] for likelihoods in sums], axis=0)
    return scores


def _log_partial_likelihood(x: Any, y: Any, weights: Numbers) -> Numbers:
    """Return the log partial likelihood (K) of patients (N, P) for weights (P, K); ties by Breslow's method."""
    logs = x @ weights
    logs = logs - logs.max(axis=0)
    at_risk = (y["time"][None, :] >= y["time"][y["event"]][:, None]).astype(np.float64)
    likelihood: Numbers = (logs[y["event"]] - np.log(np.maximum(at_risk @ np.exp(logs), _SMALL))).sum(axis=0)
    return likelihood


def count_inner_folds(task: Task) -> int:
    """Return the number of inner folds: one per event, from 2 to 5."""
    return max(2, min(_INNER_FOLDS, sum(record.event == SEEN for record in task.train)))


def predict_forest(task: Task) -> Forecast:
    """Predict by a random survival forest."""
    require_sksurv()
    from sksurv.ensemble import RandomSurvivalForest

    options: dict[str, Any] = {"n_estimators": 200, "min_samples_leaf": 5, "random_state": task.seed, "n_jobs": 1}

    def fit(x: Any, y: Any) -> Any:
        return RandomSurvivalForest(**options).fit(x, coarsen_times(y))

    fitted = _fit_encoded(task, encode_records, fit)
    if isinstance(fitted, Forecast):
        return fitted
    risk, own = (np.asarray(fitted.model.predict(x), np.float64) for x in (fitted.test, fitted.train))
    # Survival is 1 before the first training time, at which scikit-survival's curves begin.
    survival = np.stack(
        [
            np.where(task.times < curve.x[0], 1.0, curve(np.clip(task.times, *curve.domain)))
            for curve in fitted.model.predict_survival_function(fitted.test)
        ]
    )
    return Forecast(risk, survival, fitted.notes, choose_cut_off(own), fitted=partial(export_forest, fitted.model))


def coarsen_times(y: Any, most: int = FOREST_TIMES) -> Any:
    """Return outcomes with few distinct event times, as the memory of a forest grows with their number.

    Events move to the next of `most` quantiles of the event times, and censored patients to the last one that they
    were followed to; those before the first one are censored halfway to it. Nothing changes if there are `most`
    distinct event times or fewer.

    Args:
        y: Outcomes, scikit-survival's structured array (N).
        most: Largest number of distinct event times.
    """
    times = np.unique(y["time"][y["event"]])
    if len(times) <= most:
        return y
    edges = np.unique(np.quantile(times, np.linspace(0, 1, most + 1)[1:], method="higher"))
    after = np.searchsorted(edges, y["time"], side="left")
    before = np.searchsorted(edges, y["time"], side="right")
    coarse = y.copy()
    reached = np.concatenate([[edges[0] / 2], edges])
    coarse["time"] = np.where(y["event"], edges[np.minimum(after, len(edges) - 1)], reached[before])
    return coarse
