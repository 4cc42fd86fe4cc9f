"""Ways to predict prognosis from records: ours, and what it has to beat; all see the training fold and nothing else.

In come training records and records to predict, out come risks and survival curves.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duplus_nnunet.survival.encoding import fit_encoder
from duplus_nnunet.survival.features import FeatureTable
from duplus_nnunet.survival.folds import make_folds
from duplus_nnunet.survival.forecasts import Forecast, read_outcome
from duplus_nnunet.survival.hazard import predict_risk, predict_survival, train_record_network
from duplus_nnunet.survival.schema import ClinicalSchema
from duplus_nnunet.survival.scores import Numbers, Outcome, compare_pairs, pool, require_sksurv
from duplus_nnunet.survival.table import SEEN, Record

__all__ = ["METHODS", "Forecast", "Task", "forecast", "read_outcome"]

_RIDGE = 0.1
_INNER = 5
# Networks of which risks and curves are averaged; each stops by another part of the training patients.
_NETWORKS = 5


@dataclass(frozen=True)
class Task:
    """What is learned and predicted once.

    Attributes:
        train: Records to learn from.
        test: Records to predict; their outcomes are not looked at.
        schema: Types of covariates.
        times: When survival is asked for, in days.
        seed: Of whatever is drawn.
        images: Numbers of the images of all patients, or None.
    """

    train: Sequence[Record]
    test: Sequence[Record]
    schema: ClinicalSchema
    times: Numbers
    seed: int
    images: FeatureTable | None = None


def forecast(method: str, task: Task) -> Forecast:
    """Learn and predict by one of METHODS."""
    return METHODS[method](task)


def _encode(task: Task) -> tuple[Any, Any, tuple[str, ...]]:
    encoder = fit_encoder(task.train, task.schema)
    train, _ = encoder.encode(task.train)
    test, notes = encoder.encode(task.test)
    return train, test, tuple(notes)


def _kaplan_meier(task: Task) -> Forecast:
    """Tell everybody the same: what any curve has to beat."""
    require_sksurv()
    from sksurv.nonparametric import kaplan_meier_estimator

    outcome = read_outcome(task.train)
    times, curve = kaplan_meier_estimator(outcome.event, outcome.time)
    steps = np.concatenate([[1.0], curve])[np.searchsorted(times, task.times, side="right")]
    return Forecast(np.zeros(len(task.test)), np.tile(steps, (len(task.test), 1)))


def _foretell_nothing(task: Task, notes: tuple[str, ...]) -> Forecast:
    return replace(_kaplan_meier(task), notes=(*notes, "In a fold no covariate differs between training patients."))


def _run_sksurv(task: Task, fit: Callable[[Any, Any], Any]) -> Forecast:
    train, test, notes = _encode(task)
    if train.shape[1] == 0:
        return _foretell_nothing(task, notes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence in a fold; the scores show what it is worth
        model = fit(train.astype(np.float64), read_outcome(task.train).to_sksurv())
        risk = np.asarray(model.predict(test.astype(np.float64)), np.float64)
        curves = model.predict_survival_function(test.astype(np.float64))
    # Before the first training time nobody had the event; scikit-survival's curves start with what comes at it.
    survival = np.stack(
        [np.where(task.times < curve.x[0], 1.0, curve(np.clip(task.times, *curve.domain))) for curve in curves]
    )
    return Forecast(risk, survival, notes)


def _cox(task: Task) -> Forecast:
    require_sksurv()
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    return _run_sksurv(task, lambda x, y: CoxPHSurvivalAnalysis(alpha=_RIDGE).fit(x, y))


def _coxnet(task: Task) -> Forecast:
    """Cox with an elastic net, whose strength inner folds of the training patients choose."""
    require_sksurv()
    from sksurv.linear_model import CoxnetSurvivalAnalysis

    def fit(x: Any, y: Any) -> Any:
        options: dict[str, Any] = {"l1_ratio": 0.5, "alpha_min_ratio": 0.01, "n_alphas": 30}
        alphas = CoxnetSurvivalAnalysis(**options).fit(x, y).alphas_
        strengths = [_score_strength(x, y, alpha, task) for alpha in alphas]
        best = alphas[int(np.argmax(strengths))]
        return CoxnetSurvivalAnalysis(l1_ratio=0.5, alphas=[best], fit_baseline_model=True).fit(x, y)

    return _run_sksurv(task, fit)


def _score_strength(x: Any, y: Any, alpha: float, task: Task) -> float:
    from sksurv.linear_model import CoxnetSurvivalAnalysis

    sums = []
    for fold in make_folds(task.train, _count_inner(task), task.seed):
        train, test = list(fold.train), list(fold.test)
        model = CoxnetSurvivalAnalysis(l1_ratio=0.5, alphas=[alpha]).fit(x[train], y[train])
        outcome = Outcome(y["event"][test], y["time"][test])
        sums.append(compare_pairs(outcome, np.asarray(model.predict(x[test]), np.float64)))
    (found,) = pool(sums)
    return 0.5 if np.isnan(found) else float(found)


def _count_inner(task: Task) -> int:
    return max(2, min(_INNER, sum(record.event == SEEN for record in task.train)))


def _forest(task: Task) -> Forecast:
    require_sksurv()
    from sksurv.ensemble import RandomSurvivalForest

    options: dict[str, Any] = {"n_estimators": 200, "min_samples_leaf": 5, "random_state": task.seed, "n_jobs": 1}
    return _run_sksurv(task, lambda x, y: RandomSurvivalForest(**options).fit(x, y))


def _logistic_hazard(task: Task) -> Forecast:
    """Average networks, each of which stops early by another inner part of the training patients."""
    import torch

    train, test, notes = _encode(task)
    if train.shape[1] == 0:
        return _foretell_nothing(task, notes)
    outcome, risks, curves = read_outcome(task.train), [], []
    folds = make_folds(task.train, _count_inner(task), task.seed)
    for number in range(_NETWORKS):
        held = folds[number % len(folds)].test
        network, edges = train_record_network(train, outcome, held, task.seed * _NETWORKS + number)
        with torch.no_grad():
            logits = network(torch.from_numpy(test))
        risks.append(predict_risk(logits))
        curves.append(predict_survival(logits, edges, task.times))
    return Forecast(np.mean(risks, axis=0), np.mean(curves, axis=0), notes)


METHODS: Mapping[str, Callable[[Task], Forecast]] = {
    "logistic hazard": _logistic_hazard,
    "Cox": _cox,
    "Coxnet": _coxnet,
    "random survival forest": _forest,
    "Kaplan-Meier": _kaplan_meier,
}
