"""A random survival forest as arrays of its trees."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.models.predictors import Predictor
from duplus_nnunet.survival.models.stored_arrays import take_indices, take_numbers, take_times
from duplus_nnunet.survival.records.outcome import Numbers

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Forest(Predictor):
    """A random survival forest; the nodes of all trees stand one after another.

    Patients go to `left` where the encoded number is at or below the threshold, else to `right`. Leaves hold their
    cumulative hazard (Nelson-Aalen) and survival (Kaplan-Meier) as steps at some of the times. The risk is the mean
    cumulative hazard, summed over the event times.

    Attributes:
        times: Days of the curves, ascending, (T).
        counted: 1 where an event occurred in training, 0 elsewhere, (T).
        roots: First node of each tree, (trees).
        left: Node of the left child; -1 in leaves, (nodes).
        right: Node of the right child; -1 in leaves, (nodes).
        feature: Encoded number that is compared; 0 in leaves, (nodes).
        threshold: Threshold of the comparison, (nodes).
        first: First step of each node, and the number of all steps, (nodes + 1).
        places: Index of the time of each step, (steps).
        hazard_steps: Rise of the cumulative hazard, (steps).
        survival_steps: Fall of the survival, below 0, (steps).
    """

    kind: ClassVar[str] = "random survival forest"
    times: Numbers
    counted: Indices
    roots: Indices
    left: Indices
    right: Indices
    feature: Indices
    threshold: Numbers
    first: Indices
    places: Indices
    hazard_steps: Numbers
    survival_steps: Numbers

    def predict_risk(self, x: Numbers) -> Numbers:
        """Return the mean cumulative hazard, summed over the event times, (N)."""
        hazards = np.cumsum(self._average(x, self.hazard_steps), axis=1)
        risk: Numbers = hazards @ self.counted
        return risk

    def predict_survival(self, x: Numbers, times: Numbers) -> Numbers:
        """Return the mean survival of the leaves, (N, T)."""
        curves = 1 + np.cumsum(self._average(x, self.survival_steps), axis=1)
        curves = np.concatenate([np.ones((len(x), 1)), np.clip(curves, 0.0, 1.0)], axis=1)
        return np.asarray(curves[:, np.searchsorted(self.times, times, side="right")])

    def _average(self, x: Numbers, steps: Numbers) -> Numbers:
        """Return the mean steps over trees at each time, (N, T)."""
        x = np.asarray(x, np.float32)  # as in scikit-learn's trees
        total = np.zeros((len(x), len(self.times)))
        for root in self.roots:
            leaves, own = np.unique(self._find_leaves(x, int(root)), return_inverse=True)
            dense = np.zeros((len(leaves), len(self.times)))
            for row, leaf in enumerate(leaves):
                part = slice(self.first[leaf], self.first[leaf + 1])
                dense[row, self.places[part]] = steps[part]
            total += dense[own]
        return total / len(self.roots)

    def _find_leaves(self, x: Numbers, root: int) -> Indices:
        nodes = np.full(len(x), root)
        rows = np.arange(len(x))
        while True:
            inner = self.left[nodes] >= 0
            if not inner.any():
                return nodes
            at = nodes[inner]
            low = x[rows[inner], self.feature[at]] <= self.threshold[at]
            nodes[inner] = np.where(low, self.left[at], self.right[at])

    def to_plain(self) -> dict[str, Any]:
        """Return plain data and arrays."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "kind"}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], features: int) -> "Forest":
        """Restore a forest; children must come after their node, so that each patient reaches a leaf."""
        times = take_times(plain, "times")
        threshold = take_numbers(plain, "threshold", (None,))
        nodes = len(threshold)
        left, right = (take_indices(plain, name, (nodes,), -1, nodes) for name in ("left", "right"))
        own = np.arange(nodes)
        if ((left >= 0) != (right >= 0)).any() or ((left >= 0) & ((left <= own) | (right <= own))).any():
            raise ModelError("a tree has a node without two children below it")
        hazard = take_numbers(plain, "hazard_steps", (None,))
        first = take_indices(plain, "first", (nodes + 1,), 0, len(hazard) + 1)
        if (np.diff(first) < 0).any() or first[0] != 0 or first[-1] != len(hazard):
            raise ModelError("'first' does not divide the steps among the nodes")
        roots = take_indices(plain, "roots", (None,), 0, nodes)
        if not len(roots):
            raise ModelError("a forest has no tree")
        return cls(
            times,
            take_indices(plain, "counted", (len(times),), 0, 2),
            roots,
            left,
            right,
            take_indices(plain, "feature", (nodes,), 0, features),
            threshold,
            first,
            take_indices(plain, "places", (len(hazard),), 0, len(times)),
            hazard,
            take_numbers(plain, "survival_steps", (len(hazard),)),
        )


def export_forest(model: Any) -> Forest:
    """Return the arrays of scikit-survival's random survival forest, fitted without `low_memory`."""
    trees = [estimator.tree_ for estimator in model.estimators_]
    times = np.asarray(model.unique_times_, np.float64)
    starts = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])]).astype(np.int64)
    steps = [_list_steps(tree) for tree in trees]
    counts = np.concatenate([part[0] for part in steps])
    children = [
        np.concatenate([
            np.where(np.asarray(getattr(tree, side)) >= 0, np.asarray(getattr(tree, side)) + start, -1)
            for tree, start in zip(trees, starts, strict=False)
        ]).astype(np.int64)
        for side in ("children_left", "children_right")
    ]  # fmt: skip
    leaf = children[0] < 0
    feature = np.concatenate([tree.feature for tree in trees]).astype(np.int64)
    threshold = np.concatenate([tree.threshold for tree in trees]).astype(np.float64)
    return Forest(
        times,
        np.asarray(model.estimators_[0].is_event_time_).astype(np.int64),
        starts[:-1],
        children[0],
        children[1],
        np.where(leaf, 0, feature),
        np.where(leaf, 0.0, threshold),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        *(np.concatenate([part[number] for part in steps]) for number in (1, 2, 3)),
    )


def _list_steps(tree: Any) -> tuple[Indices, Indices, Numbers, Numbers]:
    """Return the number of steps of each node of a tree, and the place, rise and fall of each step; leaves only."""
    values = np.asarray(tree.value, np.float64)  # (nodes, T, 2): cumulative hazard and survival
    leaf = np.asarray(tree.children_left) < 0
    hazard = np.diff(values[..., 0], axis=1, prepend=0.0) * leaf[:, None]
    survival = np.diff(values[..., 1], axis=1, prepend=1.0) * leaf[:, None]
    nodes, places = np.nonzero((hazard != 0) | (survival != 0))
    counts = np.bincount(nodes, minlength=len(leaf)).astype(np.int64)
    return counts, places.astype(np.int64), hazard[nodes, places], survival[nodes, places]
