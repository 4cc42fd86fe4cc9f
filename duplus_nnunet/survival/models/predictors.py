"""Fitted models as plain arrays: they predict from encoded records, and are stored as JSON and tensors, never pickled.

Risk: higher is worse. Survival is the probability of being free of the event, a step function where nothing else is
said.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from duplus_nnunet.errors import ModelError, describe_unknown
from duplus_nnunet.survival.models.competing_hazard import combine_causes
from duplus_nnunet.survival.models.stored_arrays import take_numbers, take_times
from duplus_nnunet.survival.records.outcome import Numbers


class Predictor(ABC):
    """A fitted model of encoded records, float32 (N, P).

    Attributes:
        kind: Name of the kind in a stored model.
    """

    kind: ClassVar[str]

    @abstractmethod
    def predict_risk(self, x: Numbers) -> Numbers:
        """Return the risk of N patients, (N); higher is worse."""

    @abstractmethod
    def predict_survival(self, x: Numbers, times: Numbers) -> Numbers:
        """Return the event-free probability of N patients at times in days, (N, T)."""

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Return plain data and arrays that `from_plain` reads."""

    @classmethod
    @abstractmethod
    def from_plain(cls, plain: Mapping[str, Any], features: int) -> "Predictor":
        """Restore a model of `features` encoded numbers.

        Raises:
            ModelError: The stored data are invalid.
        """


@dataclass(frozen=True)
class ProportionalHazards(Predictor):
    """A Cox model.

    Attributes:
        coefficients: Log hazard ratio of each encoded number, (P).
        offset: Subtracted from the linear predictor, so that it is the risk.
        times: Days at which the baseline hazard rises, ascending, (K).
        hazards: Cumulative baseline hazard from each of them on, that of a patient whose risk is 0, (K).
    """

    kind: ClassVar[str] = "proportional hazards"
    coefficients: Numbers
    offset: float
    times: Numbers
    hazards: Numbers

    def predict_risk(self, x: Numbers) -> Numbers:
        """Return the linear predictor, a log relative hazard, (N)."""
        risk: Numbers = np.asarray(x, np.float64) @ self.coefficients - self.offset
        return risk

    def predict_survival(self, x: Numbers, times: Numbers) -> Numbers:
        """Return exp(-H0(t) exp(risk)), (N, T)."""
        baseline = np.concatenate([[0.0], self.hazards])[np.searchsorted(self.times, times, side="right")]
        with np.errstate(over="ignore", invalid="ignore"):
            survival = np.exp(-baseline[None, :] * np.exp(self.predict_risk(x))[:, None])
        return np.where(baseline[None, :] == 0, 1.0, survival)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and arrays."""
        return {"coefficients": self.coefficients, "offset": self.offset, "times": self.times, "hazards": self.hazards}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], features: int) -> "ProportionalHazards":
        """Restore a model."""
        times = take_times(plain, "times")
        hazards = take_numbers(plain, "hazards", (len(times),))
        if (np.diff(hazards, prepend=0.0) < 0).any():
            raise ModelError("the cumulative baseline hazard falls")
        offset = float(take_numbers(plain, "offset", ()))
        return cls(take_numbers(plain, "coefficients", (features,)), offset, times, hazards)


@dataclass(frozen=True)
class Curve(Predictor):
    """The same survival curve for all patients, such as that of Kaplan-Meier; all risks are 0.

    Attributes:
        times: Days at which the curve falls, ascending, (K).
        survival: Event-free probability from each of them on, (K).
    """

    kind: ClassVar[str] = "curve"
    times: Numbers
    survival: Numbers

    def predict_risk(self, x: Numbers) -> Numbers:
        """Return 0 for all patients, (N)."""
        return np.zeros(len(x))

    def predict_survival(self, x: Numbers, times: Numbers) -> Numbers:
        """Return the curve for each patient, (N, T)."""
        steps = np.concatenate([[1.0], self.survival])[np.searchsorted(self.times, times, side="right")]
        return np.tile(steps, (len(x), 1))

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and arrays."""
        return {"times": self.times, "survival": self.survival}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], features: int) -> "Curve":
        """Restore a curve."""
        times = take_times(plain, "times")
        survival = take_numbers(plain, "survival", (len(times),))
        if (np.diff(survival, prepend=1.0) > 0).any() or (survival < 0).any():
            raise ModelError("a survival curve rises, or is not between 0 and 1")
        return cls(times, survival)


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
    from duplus_nnunet.survival.models.stored_forest import Forest
    from duplus_nnunet.survival.models.stored_network import HazardNetwork

    kinds: Sequence[type[Predictor]] = (ProportionalHazards, Curve, Average, Competing, Forest, HazardNetwork)
    return {kind.kind: kind.from_plain for kind in kinds}
