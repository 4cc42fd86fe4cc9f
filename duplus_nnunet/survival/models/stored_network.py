"""The network of records as arrays of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.models.predictors import Predictor
from duplus_nnunet.survival.models.stored_arrays import take_numbers, take_times
from duplus_nnunet.survival.records.outcome import Numbers

if TYPE_CHECKING:
    import torch

    from duplus_nnunet.survival.models.hazard import RecordNetwork


@dataclass(frozen=True)
class HazardNetwork(Predictor):
    """A network from encoded records to hazards in time bins.

    Attributes:
        weights: Weights, and the knots of the ranks, by name.
        edges: Right edges of the bins in days, ascending.
    """

    kind: ClassVar[str] = "hazard network"
    weights: Mapping[str, Numbers]
    edges: Numbers

    def predict_risk(self, x: Numbers) -> Numbers:
        """Return the cumulative hazard at the last edge, (N)."""
        from duplus_nnunet.survival.models.hazard import predict_risk

        return predict_risk(self._run(x))

    def predict_survival(self, x: Numbers, times: Numbers) -> Numbers:
        """Return survival; the hazard is constant within a bin, and 0 beyond the last edge, (N, T)."""
        from duplus_nnunet.survival.models.hazard import predict_survival

        return predict_survival(self._run(x), self.edges, times)

    def _run(self, x: Numbers) -> "torch.Tensor":
        import torch

        with torch.no_grad():
            logits: torch.Tensor = _build(self.weights)(torch.from_numpy(np.ascontiguousarray(x, np.float64)))
        return logits

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and arrays."""
        return {"weights": dict(self.weights), "edges": self.edges}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], features: int) -> "HazardNetwork":
        """Restore a network."""
        edges = take_times(plain, "edges")
        stored = plain["weights"]
        weights = {str(name): take_numbers(stored, name, np.asarray(stored[name]).shape) for name in stored}
        network = _build(weights)
        shape = (network.hidden.in_features, len(network.base))
        if shape != (features, len(edges)):
            raise ModelError(f"the network has {shape} inputs and outputs, expected {(features, len(edges))}")
        return cls(weights, edges)


def export_network(network: "RecordNetwork", edges: Numbers) -> HazardNetwork:
    """Return the weights of a network."""
    weights = {name: value.detach().cpu().double().numpy().copy() for name, value in network.state_dict().items()}
    return HazardNetwork(weights, np.asarray(edges, np.float64))


def _build(weights: Mapping[str, Numbers]) -> "RecordNetwork":
    import torch

    from duplus_nnunet.survival.models.hazard import RecordNetwork

    hidden, features = weights["hidden.weight"].shape
    network = RecordNetwork(features, len(weights["base"]), hidden)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return network.eval()
