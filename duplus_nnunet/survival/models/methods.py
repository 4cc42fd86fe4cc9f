"""Lists the prognosis methods by name, our own and the baselines; each is fitted on training patients only."""

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
    predict_icare,
    predict_kaplan_meier,
    predict_without_covariates,
)
from duplus_nnunet.survival.models.combined_predictors import Average
from duplus_nnunet.survival.models.competing import (
    count_competing,
    forecast_incidence,
    predict_aalen_johansen,
    predict_fine_gray,
)
from duplus_nnunet.survival.models.forecasts import Forecast, Task, choose_cut_off
from duplus_nnunet.survival.models.hazard import predict_risk, predict_survival
from duplus_nnunet.survival.models.imputed import forecast_imputed, needs_imputation
from duplus_nnunet.survival.models.model import fit_model
from duplus_nnunet.survival.models.record_training import train_record_networks
from duplus_nnunet.survival.models.stored_network import HazardNetwork, export_network
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import read_outcome


def forecast(method: str, task: Task) -> Forecast:
    """Fit one of METHODS on training patients, and predict the others.

    If training patients have competing events, the survival is 1 - cumulative incidence of the event. If the schema
    asks for imputations, methods for records are fitted to each of them; those with images mark missing values.

    Raises:
        DataError: The method is unknown, or needs images and there are none.
    """
    known = {**METHODS, **COMPETING_METHODS}
    if method not in known:
        raise DataError(describe_unknown("method", method, known))
    if method in IMAGE_METHODS and task.images is None:
        raise DataError(f"The method {method!r} needs images, but there are none. Omit it, or give image features.")
    if method not in (NULL, *IMAGE_METHODS) and needs_imputation(task):
        return forecast_imputed(partial(forecast, method), task)
    if not count_competing(task.train) or method in COMPETING_METHODS:
        return known[method](task)
    return predict_aalen_johansen(task) if method == NULL else forecast_incidence(METHODS[method], task)


def _predict_logistic_hazard(task: Task) -> Forecast:
    """Average networks of the records, whose penalty is chosen by inner cross-validation."""
    import torch

    train, test, notes = encode_records(task)
    if train.shape[1] == 0:
        return predict_without_covariates(task, notes)
    outcome, risks, curves, train_risks = read_outcome(task.train), [], [], []
    members: list[HazardNetwork] = []
    folds = make_folds(task.train, count_inner_folds(task), task.seed)
    networks, edges = train_record_networks(train, outcome, folds, task.seed)
    for network in networks:
        with torch.no_grad():
            logits = network(torch.from_numpy(test))
            train_risks.append(predict_risk(network(torch.from_numpy(train))))
        risks.append(predict_risk(logits))
        curves.append(predict_survival(logits, edges, task.times))
        members.append(export_network(network, edges))
    cut_off = choose_cut_off(np.mean(train_risks, axis=0))
    return Forecast(
        np.mean(risks, axis=0), np.mean(curves, axis=0), notes, cut_off, fitted=lambda: Average(tuple(members))
    )


def _predict_from_image_and_record(task: Task) -> Forecast:
    """Predict by our model of image features and records."""
    model = fit_model(task.train, task.schema, task.images, task.settings, task.seed)
    prediction = model.forecast(task.test, task.images, task.times)
    return replace(prediction, notes=(*model.notes, *prediction.notes), cut=choose_cut_off(model.risks))


def _predict_from_image(task: Task) -> Forecast:
    """Predict by our model of image features alone."""
    return _predict_from_image_and_record(replace(task, schema=task.schema.model_copy(update={"covariates": {}})))


BOTH, NULL, FINE_GRAY = "image and record", "Kaplan-Meier", "Fine-Gray"
# Methods that learn networks, that choose a penalty, and that treat all patients as at risk from time 0.
NETWORKS = ("logistic hazard", BOTH, "image only")
PENALISED = ("Coxnet", "frozen features Coxnet")
WITHOUT_ENTRY = (*PENALISED, "random survival forest", "ICARE", FINE_GRAY)
FORMER_NAMES = {"image and EHR": BOTH}
# Methods that need images.
_IMAGE: Mapping[str, Callable[[Task], Forecast]] = {
    BOTH: _predict_from_image_and_record,
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
    "ICARE": predict_icare,
    NULL: predict_kaplan_meier,
    **_IMAGE,
}
# Methods that need competing events.
COMPETING_METHODS: Mapping[str, Callable[[Task], Forecast]] = {FINE_GRAY: predict_fine_gray}
