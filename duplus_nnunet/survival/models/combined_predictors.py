"""Combines fitted models, as an average or with those of competing events, and restores every kind by its name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from duplus_nnunet.errors import ModelError, describe_unknown
from duplus_nnunet.survival.models.competing_hazard import combine_causes
from duplus_nnunet.survival.models.predictors import Curve, Predictor, ProportionalHazards
from duplus_nnunet.survival.models.stored_arrays import take_times
from duplus_nnunet.survival.models.stored_forest import Forest
from duplus_nnunet.survival.models.stored_network import HazardNetwork
from duplus_nnunet.survival.records.outcome import Numbers


@dataclass(frozen=True)
class Average(Predictor):
    """The mean of the risks and of the survival curves of several models.

    Attributes:
        members: One model or more.
    """

    kind: ClassVar[str] = "average"
    members: tuple[Predictor, ...]

    def predict_risk(self, x: Numbers) -> Numbers:
        """Return the mean risk, (N)."""
        return np.asarray(np.mean([member.predict_risk(x) for member in self.members], axis=0))

    def predict_survival(self, x: Numbers, times: Numbers) -> Numbers:
        """Return the mean survival, (N, T)."""
        return np.asarray(np.mean([member.predict_survival(x, times) for member in self.members], axis=0))

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and arrays."""
        return {"members": [write_predictor(member) for member in self.members]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], features: int) -> "Average":
        """Restore the members."""
        members = plain["members"]
        if not isinstance(members, list) or not members:
            raise ModelError("an average has no members")
        return cls(tuple(read_predictor(member, features) for member in members))


@dataclass(frozen=True)
class Competing(Predictor):
    """Cause-specific models of the event and of the competing events, combined into the cumulative incidence.

    Survival is the probability of being free of the event, 1 - cumulative incidence. The risk is the mean cumulative
    incidence until the last of the moments.

    Attributes:
        event: Model of the hazard of the event.
        other: Model of the hazard of the competing events.
        moments: Days at which both are combined, ascending from 0 to the end of follow-up, (K).
    """

    kind: ClassVar[str] = "competing"
    event: Predictor
    other: Predictor
    moments: Numbers

    def predict_risk(self, x: Numbers) -> Numbers:
        """Return the mean cumulative incidence until the end of follow-up, 0 to 1, (N)."""
        times, free = self._combine(x, self.moments)
        risk: Numbers = np.trapezoid(1 - free, times, axis=1) / times[-1]
        return risk

    def predict_survival(self, x: Numbers, times: Numbers) -> Numbers:
        """Return 1 - cumulative incidence, (N, T)."""
        moments, free = self._combine(x, np.asarray(times, np.float64))
        return np.asarray(free[:, np.searchsorted(moments, times)])

    def _combine(self, x: Numbers, times: Numbers) -> tuple[Numbers, Numbers]:
        last = float(np.max(times, initial=0.0))
        moments = np.unique(np.concatenate([[0.0], self.moments[self.moments <= last], times]))
        curves = (model.predict_survival(x, moments) for model in (self.event, self.other))
        return moments, combine_causes(*curves)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and arrays."""
        models = {"event": write_predictor(self.event), "other": write_predictor(self.other)}
        return {**models, "moments": self.moments}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], features: int) -> "Competing":
        """Restore both models."""
        event, other = (read_predictor(plain[name], features) for name in ("event", "other"))
        moments = take_times(plain, "moments")
        if len(moments) < 2:
            raise ModelError("'moments' has fewer than two times")
        return cls(event, other, moments)


def write_predictor(predictor: Predictor) -> dict[str, Any]:
    """Return the plain data and arrays of a model, with its kind."""
    return {"kind": predictor.kind, **predictor.to_plain()}


def read_predictor(plain: Mapping[str, Any], features: int) -> Predictor:
    """Restore a model of `features` encoded numbers from the result of `write_predictor`.

    Raises:
        ModelError: The kind is unknown, or the data are invalid.
    """
    kinds = list_kinds()
    kind = plain.get("kind") if isinstance(plain, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ModelError(describe_unknown("kind of model", str(kind), kinds))
    try:
        return kinds[kind](plain, features)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"the part {kind!r} cannot be read: {error}") from error


def list_kinds() -> dict[str, Callable[[Mapping[str, Any], int], Predictor]]:
    """Map each kind of model to the function that restores it."""
    kinds: Sequence[type[Predictor]] = (ProportionalHazards, Curve, Average, Competing, Forest, HazardNetwork)
    return {kind.kind: kind.from_plain for kind in kinds}
