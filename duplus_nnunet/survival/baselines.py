"""What our models have to beat: scikit-survival's, each fitted on a training fold and nothing else.

In comes a task, and how its patients become numbers; out comes a forecast.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.encoding import Table, fit_encoder
from duplus_nnunet.survival.folds import make_folds
from duplus_nnunet.survival.forecasts import Forecast, Task, cut_risks, read_outcome
from duplus_nnunet.survival.scores import Outcome, compare_pairs, pool, require_sksurv
from duplus_nnunet.survival.table import SEEN

_RIDGE = 0.1
_INNER = 5
# Of Coxnet's weakest penalty to its strongest, tried in turn.
_RATIOS = (0.01, 0.1, 0.3, 0.9)

# Numbers of training patients (N, P), of those to predict, and what a reader has to know.
Encode = Callable[[Task], tuple[Table, Table, tuple[str, ...]]]


def encode_records(task: Task) -> tuple[Table, Table, tuple[str, ...]]:
    """Encode covariates; the encoder is fitted on the training records."""
    encoder = fit_encoder(task.train, task.schema)
    train, _ = encoder.encode(task.train)
    test, notes = encoder.encode(task.test)
    return train, test, tuple(notes)


def foretell_by_kaplan_meier(task: Task) -> Forecast:
    """Tell everybody the same: what any curve has to beat."""
    require_sksurv()
    from sksurv.nonparametric import kaplan_meier_estimator

    outcome = read_outcome(task.train)
    times, curve = kaplan_meier_estimator(outcome.event, outcome.time)
    steps = np.concatenate([[1.0], curve])[np.searchsorted(times, task.times, side="right")]
    return Forecast(np.zeros(len(task.test)), np.tile(steps, (len(task.test), 1)))


def foretell_nothing(task: Task, notes: tuple[str, ...]) -> Forecast:
    """Tell everybody the same, for want of anything that differs."""
    return replace(
        foretell_by_kaplan_meier(task), notes=(*notes, "In a fold no covariate differs between training patients.")
    )


def _run_sksurv(task: Task, encode: Encode, fit: Callable[[Any, Any], Any]) -> Forecast:
    train, test, notes = encode(task)
    if train.shape[1] == 0:
        return foretell_nothing(task, notes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence in a fold; the scores show what it is worth
        model = fit(train.astype(np.float64), read_outcome(task.train).to_sksurv())
        risk = np.asarray(model.predict(test.astype(np.float64)), np.float64)
        curves = model.predict_survival_function(test.astype(np.float64))
        cut = cut_risks(np.asarray(model.predict(train.astype(np.float64)), np.float64))
    # Before the first training time nobody had the event; scikit-survival's curves start with what comes at it.
    survival = np.stack(
        [np.where(task.times < curve.x[0], 1.0, curve(np.clip(task.times, *curve.domain))) for curve in curves]
    )
    return Forecast(risk, survival, notes, cut)


def foretell_by_cox(task: Task, encode: Encode = encode_records) -> Forecast:
    """Cox with a slight ridge."""
    require_sksurv()
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    return _run_sksurv(task, encode, lambda x, y: CoxPHSurvivalAnalysis(alpha=_RIDGE).fit(x, y))


def foretell_by_coxnet(task: Task, encode: Encode = encode_records) -> Forecast:
    """Cox with an elastic net, whose strength inner folds of the training patients choose."""
    require_sksurv()
    from sksurv.linear_model import CoxnetSurvivalAnalysis

    def fit(x: Any, y: Any) -> Any:
        alphas = _list_strengths(x, y)
        scores = [_score_strength(x, y, alpha, task) for alpha in alphas]
        best = alphas[int(np.argmax(scores))]
        return CoxnetSurvivalAnalysis(l1_ratio=0.5, alphas=[best], fit_baseline_model=True).fit(x, y)

    return _run_sksurv(task, encode, fit)


def _list_strengths(x: Any, y: Any) -> Any:
    """List strengths of the penalty, strongest first, that can be fitted; with many numbers, weak ones cannot."""
    from sksurv.linear_model import CoxnetSurvivalAnalysis

    for ratio in _RATIOS:
        try:
            return CoxnetSurvivalAnalysis(l1_ratio=0.5, alpha_min_ratio=ratio, n_alphas=30).fit(x, y).alphas_
        except ArithmeticError:
            continue
    raise DataError(
        f"Coxnet cannot be fitted to {x.shape[1]} numbers of {len(x)} training patients, however strong its penalty. "
        "Leave it out, or use more patients."
    )


def _score_strength(x: Any, y: Any, alpha: float, task: Task) -> float:
    from sksurv.linear_model import CoxnetSurvivalAnalysis

    sums = []
    for fold in make_folds(task.train, count_inner(task), task.seed):
        train, test = list(fold.train), list(fold.test)
        try:
            model = CoxnetSurvivalAnalysis(l1_ratio=0.5, alphas=[alpha]).fit(x[train], y[train])
        except ArithmeticError:  # too weak for so few patients
            return 0.0
        outcome = Outcome(y["event"][test], y["time"][test])
        sums.append(compare_pairs(outcome, np.asarray(model.predict(x[test]), np.float64)))
    (found,) = pool(sums)
    return 0.5 if np.isnan(found) else float(found)


def count_inner(task: Task) -> int:
    """Count inner folds: as many as there are events to share, up to 5."""
    return max(2, min(_INNER, sum(record.event == SEEN for record in task.train)))


def foretell_by_forest(task: Task) -> Forecast:
    """A random survival forest."""
    require_sksurv()
    from sksurv.ensemble import RandomSurvivalForest

    options: dict[str, Any] = {"n_estimators": 200, "min_samples_leaf": 5, "random_state": task.seed, "n_jobs": 1}
    return _run_sksurv(task, encode_records, lambda x, y: RandomSurvivalForest(**options).fit(x, y))
