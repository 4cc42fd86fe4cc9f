"""What is asked for, what is foretold of patients, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record


@dataclass(frozen=True)
class Task:
    """What is learned and predicted once.

    Attributes:
        train: Records to learn from.
        test: Records to predict; their outcomes are not looked at.
        schema: Types of covariates.
        times: When survival is asked for, in days.
        seed: Of whatever is drawn.
        images: Image features by patient, those of the records to predict included; None: there are no images.
        settings: Of our own model with images.
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
    """What was predicted of N patients.

    Attributes:
        risk: Higher is worse, (N).
        survival: Probability to be free of the event at each time, (N, T).
        notes: What a reader has to know.
        cut: Risk above which a patient is of the high-risk group, as training patients say; None if it was not chosen.
    """

    risk: Numbers
    survival: Numbers
    notes: tuple[str, ...] = ()
    cut: float | None = None


def cut_risks(risks: Numbers) -> float | None:
    """Return the risk that parts training patients into two halves, of their risks (N); None if all are the same."""
    return float(np.median(risks)) if np.ptp(risks) > 0 else None
