"""Decides by the loss of inner held-out patients whether image features improve the survival model."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.models.model import fit_model
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.training.data import InnerSplit
from duplus_nnunet.survival.training.lora import HazardTargets

_SMALLEST = 1e-6


class FeatureComparison(NamedTuple):
    """Comparison of image features by inner held-out patients.

    Attributes:
        losses: Mean loss with each set of features, by name; lower is better.
        improved: Whether the last set lowers the loss of the first by more than one standard error.
    """

    losses: dict[str, float]
    improved: bool


def compare_features(
    tables: Mapping[str, FeatureTable | None],
    inner: InnerSplit,
    targets: HazardTargets,
    schema: ClinicalSchema,
    settings: SurvivalSettings,
    seed: int,
) -> FeatureComparison:
    """Fit a model to the inner training patients with each of two sets of features, and compare their losses.

    Args:
        tables: Features by name, the reference first; None: clinical records only.
        inner: Inner split of the training patients.
        targets: Time bins and outcomes.
        schema: Types of covariates.
        settings: Settings of the model.
        seed: Random seed of the fits.
    """
    losses = {}
    for name, images in tables.items():
        model = fit_model(inner.train, schema, images, settings, seed)
        forecast = model.forecast(inner.held_out, images, targets.edges)
        losses[name] = measure_curves(forecast.survival, targets, [record.patient for record in inner.held_out])
    before, after = losses.values()
    return FeatureComparison({name: float(loss.mean()) for name, loss in losses.items()}, is_gain(before, after))


def measure_curves(survival: Numbers, targets: HazardTargets, patients: Sequence[str]) -> Numbers:
    """Return the loss of survival curves, (N): negative log-likelihood of the outcomes; lower is better.

    Args:
        survival: Predicted event-free probability at the edges of the bins, (N, T).
        targets: Outcomes by patient.
        patients: IDs of the N patients.
    """
    rows = [targets.places[patient] for patient in patients]
    before = np.concatenate([np.ones((len(survival), 1)), survival[:, :-1]], axis=1)
    hazards = np.clip(1 - survival / np.maximum(before, _SMALLEST), _SMALLEST, 1 - _SMALLEST)
    risk, had = targets.risk[rows].numpy(), targets.had[rows].numpy()
    loss: Numbers = -(risk * (had * np.log(hazards) + (1 - had) * np.log1p(-hazards))).sum(1)
    return loss


def is_gain(before: Numbers, after: Numbers) -> bool:
    """Whether the losses of N patients decreased by more than one standard error of the mean difference.

    With few patients, a smaller decrease may be due to chance.
    """
    gains = before - after
    error = float(np.std(gains, ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else float("inf")
    return float(gains.mean()) > error
