"""Changes predicted survival by a recalibration in the large or of the slope; patients do not change their order.

With H(t) = -log S(t), the cumulative hazard of a patient (of the subdistribution, with competing events), and t* the
horizon of the recalibration, the recalibrated hazard is factor x H(t*)^(slope - 1) x H(t). The curve of a patient keeps
its shape over time. In a proportional hazards model the slope multiplies the linear predictor, and the factor the
baseline hazard. With a slope, S(t*) below 0.1 % counts as 0.1 %, as in the estimate of the slope.

Source: Crowson et al. 2016 (doi 10.1177/0962280213497434); van Houwelingen 2000 (doi
10.1002/1097-0258(20001230)19:24<3401::AID-SIM554>3.0.CO;2-2).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.records.outcome import Numbers

# Probabilities are clipped to this distance from 0 and 1; one certain prediction would dominate the slope otherwise.
NEAREST = 0.001
_SMALLEST = 1e-300
LARGE, SLOPE = "large", "slope"


@dataclass(frozen=True)
class Recalibration:
    """A recalibration of predicted survival.

    Attributes:
        kind: LARGE or SLOPE.
        horizon: t* in days.
        slope: Multiplies the logarithm of the cumulative hazard at the horizon, above 0; 1: in the large alone.
        factor: Multiplies the cumulative hazard, above 0.
        name: Name of the table of the patients that it was estimated in.
        patients: Number of these patients.
        events: Number of those with the event by the horizon.
        salt: Random text, hexadecimal, put before patient IDs when they are hashed.
        hashes: SHA-256 of each patient ID after the salt; empty: not known.
    """

    kind: str
    horizon: float
    slope: float
    factor: float
    name: str
    patients: int
    events: int
    salt: str = ""
    hashes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ModelError: A number is not finite or not above 0, or the kind is unknown.
        """
        numbers = (self.horizon, self.slope, self.factor)
        if self.kind not in (LARGE, SLOPE) or not all(0 < number < math.inf for number in numbers):
            raise ModelError(f"a recalibration of the kind {self.kind!r} has the numbers {numbers}")

    def apply(self, survival: Numbers, at_horizon: Numbers) -> Numbers:
        """Return recalibrated survival.

        Args:
            survival: Event-free probability, (N, T).
            at_horizon: Event-free probability at the horizon, (N).
        """
        if self.slope == 1:
            return np.asarray(survival**self.factor)
        clipped = -np.log(np.clip(at_horizon, NEAREST, 1 - NEAREST))
        own = np.maximum(-np.log(np.maximum(at_horizon, _SMALLEST)), clipped)
        multiplier = self.factor * clipped**self.slope / own
        hazard = -np.log(np.maximum(survival, _SMALLEST))
        return np.asarray(np.exp(-multiplier[:, None] * hazard))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Recalibration":
        """Restore a recalibration from its fields."""
        horizon, slope, factor = (float(plain[name]) for name in ("horizon", "slope", "factor"))
        counts = int(plain["patients"]), int(plain["events"])
        salt, hashes = str(plain.get("salt", "")), frozenset(map(str, plain.get("hashes", ())))
        return cls(str(plain["kind"]), horizon, slope, factor, str(plain["name"]), *counts, salt, hashes)

    def to_plain(self) -> dict[str, Any]:
        """Return its fields as plain data."""
        return {**vars(self), "hashes": sorted(self.hashes)}
