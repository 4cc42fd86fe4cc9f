"""Defines what a prognosis method receives (Task) and returns (Forecast), and merges the notes of many forecasts."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.models.predictors import Predictor
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record, join_names

# A sentence that ends in a list of quoted names.
_LISTING = re.compile(r"(?P<head>.*: )(?P<names>'[^']*'(?:, '[^']*')*)\.")
_QUOTED_OR_NUMBER = re.compile(r"'[^']*'|\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Task:
    """One fit on training patients, followed by one prediction of other patients.

    Attributes:
        train: Training records.
        test: Records to predict; their outcomes are not used.
        schema: Types of the covariates.
        times: Times at which survival is predicted, in days.
        seed: Seed of all random draws.
        images: Image features by patient, of training patients and patients to predict; None: there are no images.
        settings: Settings of our own model with images.
    """

    train: Sequence[Record]
    test: Sequence[Record]
    schema: ClinicalSchema
    times: Numbers
    seed: int
    images: FeatureTable | None = None
    settings: SurvivalSettings = field(default_factory=SurvivalSettings)


@dataclass(frozen=True)
class Forecast:
    """Predictions of N patients.

    Attributes:
        risk: Predicted risk, (N); higher is worse.
        survival: Survival probability, that is of being free of the event, at each time, (N, T).
        notes: Notes for the reader.
        cut: Cut-off of the high-risk group, chosen from training patients; a higher risk is high. None if undefined.
        chosen: Name of the method that was chosen within the training patients; empty for a single method.
        fitted: Returns the fitted model of the encoded records, to be saved. None: such a model cannot be saved.
    """

    risk: Numbers
    survival: Numbers
    notes: tuple[str, ...] = ()
    cut: float | None = None
    chosen: str = ""
    fitted: Callable[[], Predictor] | None = None


def choose_cut_off(risks: Numbers) -> float | None:
    """Return the median of training patients' risks (N), the cut-off of risk groups; None if all risks are equal."""
    return float(np.median(risks)) if np.ptp(risks) > 0 else None


def merge_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Merge sentences that differ only in numbers, or in the quoted names listed at their end.

    Each merged sentence keeps the position of the first one. Of sentences that differ in numbers, the first is kept.
    """
    # By the sentence without its numbers: its variants, each with the names that it lists.
    variants: dict[str, dict[str, dict[str, None]]] = {}
    for note in notes:
        listing = _LISTING.fullmatch(note)
        head, names = (listing["head"], listing["names"].split(", ")) if listing else (note, [])
        key = _QUOTED_OR_NUMBER.sub(lambda match: match[0] if match[0].startswith("'") else "#", head)
        variants.setdefault(key, {}).setdefault(head, {}).update(dict.fromkeys(names))
    return tuple(map(_merge_variants, variants.values()))


def _merge_variants(variants: dict[str, dict[str, None]]) -> str:
    head, names = next(iter(variants)), sorted({name for listed in variants.values() for name in listed})
    if names:
        return f"{head}{join_names(names)}."
    return f"{head} The same holds in other folds, with other numbers." if len(variants) > 1 else head
