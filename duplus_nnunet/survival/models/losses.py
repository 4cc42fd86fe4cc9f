"""The losses by name: in come training outcomes, out comes a loss that is ready; and back from plain data."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from duplus_nnunet.errors import ModelError, describe_unknown
from duplus_nnunet.survival.models.cox import Cox
from duplus_nnunet.survival.models.discrete import DeepHit, DiscreteLoss, LogisticHazard, MultiTaskRegression
from duplus_nnunet.survival.models.hazard import choose_bin_edges
from duplus_nnunet.survival.models.survival_loss import SurvivalLoss
from duplus_nnunet.survival.records.outcome import Outcome

_KINDS = (LogisticHazard, MultiTaskRegression, DeepHit)
_DISCRETE: Mapping[str, type[DiscreteLoss]] = {kind.name: kind for kind in _KINDS}
LOSSES = (*_DISCRETE, Cox.name)


def fit_loss(name: str, outcome: Outcome, bins: int) -> tuple[SurvivalLoss, list[str]]:
    """Prepare a loss for training patients.

    Args:
        name: One of LOSSES.
        outcome: Of training patients.
        bins: Number of bins that are wanted.

    Returns:
        The loss, and what a reader has to know.

    Raises:
        DataError: There is no event.
        ModelError: There is no such loss.
    """
    if name == Cox.name:
        late = outcome.entry is not None
        return Cox(), ["The loss 'cox' counts patients from time 0, whenever they entered."] if late else []
    if name not in _DISCRETE:
        raise ModelError(describe_unknown("loss", name, LOSSES))
    edges = choose_bin_edges(outcome, bins)
    notes = []
    if len(edges) < bins:
        count = len(np.unique(outcome.time[outcome.event]))
        notes.append(
            f"{len(edges)} time bin(s) instead of {bins}: training patients have the event at {count} different times."
        )
    return _DISCRETE[name](edges), notes


def read_loss(plain: Mapping[str, Any]) -> SurvivalLoss:
    """Read what a loss's `to_plain` gave.

    Raises:
        ModelError: It is not of that form.
    """
    try:
        if plain["name"] == Cox.name:
            times, hazards = (np.array(plain[name], np.float64) for name in ("times", "hazards"))
            return Cox(times, hazards, float(plain["centre"]))
        return _DISCRETE[plain["name"]](np.array(plain["edges"], np.float64))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"A stored loss cannot be read ({error!r}); its name is one of {', '.join(LOSSES)}."
        ) from error
