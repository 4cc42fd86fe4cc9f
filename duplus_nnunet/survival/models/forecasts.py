"""What is asked for, what is foretold of patients, and what became of them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Numbers
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record

_SHOWN = 8
# A sentence that ends in a list of quoted names.
_LISTING = re.compile(r"(?P<head>.*: )(?P<names>'[^']*'(?:, '[^']*')*)\.")
_QUOTED_OR_NUMBER = re.compile(r"'[^']*'|\d+(?:\.\d+)?")


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


def choose_cut_off(risks: Numbers) -> float | None:
    """Return the risk that parts training patients into two halves, of their risks (N); None if all are the same."""
    return float(np.median(risks)) if np.ptp(risks) > 0 else None


def merge_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Merge sentences that differ only in the quoted names that they list at their end, or in numbers.

    Each stands where the first one of its kind did; of those that differ in numbers, the first one stands for all.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    for note in notes:
        listing = _LISTING.fullmatch(note)
        head, names = (listing["head"], listing["names"].split(", ")) if listing else (note, [])
        kind = _QUOTED_OR_NUMBER.sub(lambda part: part[0] if part[0].startswith("'") else "#", head)
        found.setdefault(kind, {}).setdefault(head, {}).update(dict.fromkeys(names))
    return tuple(_say(alike) for alike in found.values())


def _say(alike: dict[str, dict[str, None]]) -> str:
    head, names = next(iter(alike)), sorted({name for listed in alike.values() for name in listed})
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"{head}{', '.join(names[:_SHOWN])}{more}."
    return f"{head} So it is in other folds, with other numbers." if len(alike) > 1 else head
