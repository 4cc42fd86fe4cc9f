"""Lists the survival losses by name, prepares them for training outcomes, and restores stored ones."""

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
        outcome: Outcomes of training patients.
        bins: Number of time bins.

    Returns:
        The loss, and notes for the reader.

    Raises:
        DataError: No patient has the event.
        ModelError: The loss is unknown.
    """
    if name == Cox.name:
        notes = ["The loss 'cox' does not support delayed entry: patients are treated as at risk from time 0."]
        return Cox(), notes if outcome.entry is not None else []
    if name not in _DISCRETE:
        raise ModelError(describe_unknown("loss", name, LOSSES))
    edges = choose_bin_edges(outcome, bins)
    notes = []
    if len(edges) < bins:
        count = len(np.unique(outcome.time[outcome.event]))
        notes.append(
            f"{len(edges)} time bin(s) are used instead of {bins}: events of training patients occur at {count} "
            "different times."
        )
    return _DISCRETE[name](edges), notes


def read_loss(plain: Mapping[str, Any]) -> SurvivalLoss:
    """Restore a loss from the result of its `to_plain`.

    Raises:
        ModelError: The stored data are invalid.
    """
    try:
        if plain["name"] == Cox.name:
            times, hazards = (np.array(plain[name], np.float64) for name in ("times", "hazards"))
            return Cox(times, hazards, float(plain["centre"]))
        return _DISCRETE[plain["name"]](np.array(plain["edges"], np.float64))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"A stored loss cannot be read ({error!r}); expected one of {', '.join(LOSSES)}. Fit the model again."
        ) from error
