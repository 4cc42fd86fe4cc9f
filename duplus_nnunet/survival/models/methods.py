"""Ways to predict prognosis: ours, and what it has to beat; all see the training fold and nothing else.

In come training records and records to predict, with image features where there are images; out come risks and survival
curves.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.survival.models.baselines import (
    count_inner_folds,
    encode_frozen_features,
    encode_lesion_measures,
    encode_records,
    predict_cox,
    predict_coxnet,
    predict_forest,
    predict_kaplan_meier,
    predict_without_covariates,
)
from duplus_nnunet.survival.models.forecasts import Forecast, Task, choose_cut_off
from duplus_nnunet.survival.models.hazard import predict_risk, predict_survival, train_record_network
from duplus_nnunet.survival.models.model import fit_model
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import read_outcome

__all__ = ["IMAGE_METHODS", "METHODS", "Forecast", "Task", "forecast", "read_outcome"]

# Networks of which risks and curves are averaged; each stops by another part of the training patients.
_NETWORKS = 5


def forecast(method: str, task: Task) -> Forecast:
    """Learn and predict by one of METHODS.

    Raises:
        DataError: There is no such method, or it needs images and there are none.
    """
    if method not in METHODS:
        raise DataError(describe_unknown("method", method, METHODS))
    if method in IMAGE_METHODS and task.images is None:
        raise DataError(f"The method {method!r} needs images, and there are none. Leave it out, or give features.")
    return METHODS[method](task)


def _predict_logistic_hazard(task: Task) -> Forecast:
    """Average networks, each of which stops early by another inner part of the training patients."""
    import torch

    train, test, notes = encode_records(task)
    if train.shape[1] == 0:
        return predict_without_covariates(task, notes)
    outcome, risks, curves, own = read_outcome(task.train), [], [], []
    folds = make_folds(task.train, count_inner_folds(task), task.seed)
    for number in range(_NETWORKS):
        held = folds[number % len(folds)].test
        network, edges = train_record_network(train, outcome, held, task.seed * _NETWORKS + number)
        with torch.no_grad():
            logits = network(torch.from_numpy(test))
            own.append(predict_risk(network(torch.from_numpy(train))))
        risks.append(predict_risk(logits))
        curves.append(predict_survival(logits, edges, task.times))
    return Forecast(np.mean(risks, axis=0), np.mean(curves, axis=0), notes, choose_cut_off(np.mean(own, axis=0)))


def _predict_from_image_and_ehr(task: Task) -> Forecast:
    """Our model of image features and EHR."""
    model = fit_model(task.train, task.schema, task.images, task.settings, task.seed)
    found = model.forecast(task.test, task.images, task.times)
    return replace(found, notes=(*model.notes, *found.notes), cut=choose_cut_off(model.risks))


def _predict_from_image(task: Task) -> Forecast:
    """Our model of image features, fitted without the EHR."""
    return _predict_from_image_and_ehr(replace(task, schema=task.schema.model_copy(update={"covariates": {}})))


# Methods that need images.
_IMAGE: Mapping[str, Callable[[Task], Forecast]] = {
    "image and EHR": _predict_from_image_and_ehr,
    "image only": _predict_from_image,
    "lesion volume Cox": partial(predict_cox, encode=encode_lesion_measures),
    "frozen features Coxnet": partial(predict_coxnet, encode=encode_frozen_features),
}
IMAGE_METHODS = tuple(_IMAGE)
METHODS: Mapping[str, Callable[[Task], Forecast]] = {
    "logistic hazard": _predict_logistic_hazard,
    "Cox": predict_cox,
    "Coxnet": predict_coxnet,
    "random survival forest": predict_forest,
    "Kaplan-Meier": predict_kaplan_meier,
    **_IMAGE,
}
