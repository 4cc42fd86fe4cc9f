"""Fitted models as plain arrays: they predict from encoded records, and are stored as JSON and tensors, never pickled.

Risk: higher is worse. Survival is the probability of being free of the event, a step function where nothing else is
said.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from duplus_nnunet.errors import ModelError
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
        """Return exp(-H0(t) exp(risk)), (N, T); in logarithms, as risks may be far apart."""
        with np.errstate(divide="ignore", over="ignore"):
            logs = np.log(np.concatenate([[0.0], self.hazards]))[np.searchsorted(self.times, times, side="right")]
            survival: Numbers = np.exp(-np.exp(logs[None, :] + self.predict_risk(x)[:, None]))
        return survival

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
