"""What our models have to beat: scikit-survival's, each fitted on a training fold and nothing else.

In comes a task, and how its patients become numbers; out comes a forecast.
"""

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from duplus_nnunet.survival.models.forecasts import Forecast, Task, choose_cut_off
from duplus_nnunet.survival.models.image_inputs import LESION_VOLUME, fit_image_code
from duplus_nnunet.survival.records.encoding import Table, fit_encoder
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import Numbers, read_outcome, require_sksurv
from duplus_nnunet.survival.records.table import SEEN

_RIDGE = 0.1
_INNER = 5
_LEAST_TO_LEARN = 2  # patients that Coxnet can be fitted to
# Strengths of Coxnet's penalty that are tried.
_PENALTIES = 30
# No path of penalties is shorter than this.
_LARGEST_RATIO = 0.9
_SMALL = 1e-300
_LESION_MAX = "lesion max"
# Contexts whose intensities mean something across scanners as they are: uptake in PET.
_PET = re.compile(r"(?<![a-z])(pet|pt|suv|fdg)(?![a-z])|positron", re.IGNORECASE)

# Numbers of training patients (N, P), of those to predict, and what a reader has to know.
Encode = Callable[[Task], tuple[Table, Table, tuple[str, ...]]]


def encode_records(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode covariates; the encoder is fitted on the training records."""
    encoder = fit_encoder(task.train, task.schema)
    train, _ = encoder.encode(task.train)
    test, notes = encoder.encode(task.test)
    return train, test, tuple(notes)


def encode_lesion_measures(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode the logarithm of the lesion's volume in each modality, and of PET its highest uptake."""
    table = task.images or FeatureTable((), (), (), {})
    names = [
        name
        for name, context, kind in zip(table.names, table.contexts, table.kinds, strict=True)
        if kind == "measure" and (name.endswith(LESION_VOLUME) or (name.endswith(_LESION_MAX) and _PET.search(context)))
    ]
    return _encode_images(table.choose(names), task)


def encode_frozen_features(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode all image features beside the EHR."""
    images, records = _encode_images(task.images or FeatureTable((), (), (), {}), task), encode_records(task)
    train, test = (np.concatenate([records[place], images[place]], axis=1) for place in (0, 1))
    return train, test, (*records[2], *images[2])


def _encode_images(table: FeatureTable, task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Standardise; what is missing is the mean, and a modality that some lack is marked."""
    code, notes = fit_image_code(table, [record.patient for record in task.train], None)
    parts = []
    for records in (task.train, task.test):
        numbers, more = code.align(table, [record.patient for record in records])
        inputs, there = code.encode(torch.from_numpy(numbers).double())
        parts.append(np.concatenate([inputs.numpy(), 1.0 - there.numpy()], axis=1).astype(np.float32))
    differ = np.ptp(parts[0], axis=0) > 0  # not the deviation, of which rounding leaves some
    return parts[0][:, differ], parts[1][:, differ], (*notes, *more)


def predict_kaplan_meier(task: Task) -> Forecast:
    """Tell everybody the same: what any curve has to beat."""
    require_sksurv()
    from sksurv.nonparametric import kaplan_meier_estimator

    outcome = read_outcome(task.train)
    times, curve = kaplan_meier_estimator(outcome.event, outcome.time, outcome.entry)
    steps = np.concatenate([[1.0], curve])[np.searchsorted(times, task.times, side="right")]
    return Forecast(np.zeros(len(task.test)), np.tile(steps, (len(task.test), 1)))


def predict_without_covariates(task: Task, notes: tuple[str, ...]) -> Forecast:
    """Tell everybody the same, for want of anything that differs."""
    return replace(
        predict_kaplan_meier(task), notes=(*notes, "In a fold no covariate differs between training patients.")
    )


def _fit_sksurv(task: Task, encode: Encode, fit: Callable[[Any, Any], Any]) -> Forecast:
    train, test, notes = encode(task)
    if train.shape[1] == 0:
        return predict_without_covariates(task, notes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence in a fold; the scores show what it is worth
        model = fit(train.astype(np.float64), read_outcome(task.train).to_sksurv())
        risk = np.asarray(model.predict(test.astype(np.float64)), np.float64)
        curves = model.predict_survival_function(test.astype(np.float64))
        cut = choose_cut_off(np.asarray(model.predict(train.astype(np.float64)), np.float64))
    # Before the first training time nobody had the event; scikit-survival's curves start with what comes at it.
    survival = np.stack(
        [np.where(task.times < curve.x[0], 1.0, curve(np.clip(task.times, *curve.domain))) for curve in curves]
    )
    return Forecast(risk, survival, notes, cut)


def predict_cox(task: Task, encode: Encode = encode_records) -> Forecast:
    """Cox with a slight ridge."""
    require_sksurv()
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    return _fit_sksurv(task, encode, lambda x, y: CoxPHSurvivalAnalysis(alpha=_RIDGE).fit(x, y))


def predict_coxnet(task: Task, encode: Encode = encode_records) -> Forecast:
    """Cox with an elastic net, whose strength inner folds of the training patients choose."""
    require_sksurv()

    def fit(x: Any, y: Any) -> Any:
        alphas = _fit_coxnet(x, y, n_alphas=_PENALTIES, alpha_min_ratio=0.01).alphas_
        scores = _score_penalties(x, y, alphas, task)
        best = int(np.argmax(scores)) if len(scores) else 0
        return _fit_coxnet(x, y, alphas=alphas[: best + 1], fit_baseline_model=True)

    return _fit_sksurv(task, encode, fit)


def _fit_coxnet(x: Any, y: Any, **options: Any) -> Any:
    """Fit from the strongest penalty to the weakest that can be fitted; with many numbers, weak ones cannot."""
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
    """Return the cross-validated partial likelihood, higher is better, of strengths that fitted in all inner folds.

    Concordance would not do: it does not see how far a penalty shrinks. Of too few patients for inner folds to learn
    from, nothing is returned, and the strongest penalty stays.

    Source: Verweij and van Houwelingen 1993, Statistics in Medicine 12(24).
    """
    folds = make_folds(task.train, count_inner_folds(task), task.seed)
    if min(len(fold.train) for fold in folds) < _LEAST_TO_LEARN:
        return np.zeros(0)
    sums = []
    for fold in folds:
        train = list(fold.train)
        weights = _fit_coxnet(x[train], y[train], alphas=alphas).coef_
        sums.append(_log_partial_likelihood(x, y, weights) - _log_partial_likelihood(x[train], y[train], weights))
    shortest = min(map(len, sums))
    found: Numbers = np.sum([one[:shortest] for one in sums], axis=0)
    return found


def _log_partial_likelihood(x: Any, y: Any, weights: Numbers) -> Numbers:
    """Return the log partial likelihood, Breslow's for ties, of patients (N, P) by each of some weights (P, K): (K)."""
    logs = x @ weights
    logs = logs - logs.max(axis=0)
    at_risk = (y["time"][None, :] >= y["time"][y["event"]][:, None]).astype(np.float64)
    found: Numbers = (logs[y["event"]] - np.log(np.maximum(at_risk @ np.exp(logs), _SMALL))).sum(axis=0)
    return found


def count_inner_folds(task: Task) -> int:
    """Count inner folds: as many as there are events to share, up to 5."""
    return max(2, min(_INNER, sum(record.event == SEEN for record in task.train)))


def predict_forest(task: Task) -> Forecast:
    """A random survival forest."""
    require_sksurv()
    from sksurv.ensemble import RandomSurvivalForest

    options: dict[str, Any] = {"n_estimators": 200, "min_samples_leaf": 5, "random_state": task.seed, "n_jobs": 1}
    return _fit_sksurv(task, encode_records, lambda x, y: RandomSurvivalForest(**options).fit(x, y))
