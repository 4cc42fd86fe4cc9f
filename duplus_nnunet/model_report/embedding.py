"""Arranges features in the plane, and measures in their original space whether groups of them lie apart.

Pictures of embeddings flatter: UMAP and t-SNE show clusters in noise as well. So the silhouette is computed from the
features themselves, and compared with that of groups that were shuffled by patient.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]

SEED = 20251003
SHUFFLES = 999
# Fewer points are not arranged: neither method is meant for them.
FEWEST = 6
_NEIGHBOURS, _PERPLEXITY = 15, 30.0


@dataclass(frozen=True)
class Arrangement:
    """N points in the plane.

    Attributes:
        points: Their places, (N, 2); axes have no unit, and distances between far points mean little.
        method: "UMAP" or "t-SNE", with its parameter.
    """

    points: Features
    method: str


@dataclass(frozen=True)
class GroupTest:
    """How well groups of features lie apart.

    Attributes:
        silhouette: Mean silhouette, -1 to 1: higher, the groups lie further apart; about 0, they do not.
        p: Share of shuffled groups with a silhouette as high, the groups themselves included.
        shuffles: Number of times that the groups were shuffled.
        within: Whether groups were shuffled within each patient; else whole patients between groups.
        expected: Mean silhouette of shuffled groups.
    """

    silhouette: float
    p: float
    shuffles: int
    within: bool
    expected: float


def standardise(features: Features) -> Features:
    """Centre each of F features of N points, and scale it to unit variance; constant features are left out."""
    spread = features.std(0)
    kept = spread > 1e-12 * np.maximum(1.0, np.abs(features).max(0))
    scaled: Features = (features[:, kept] - features[:, kept].mean(0)) / spread[kept]
    return scaled


def arrange(features: Features, seed: int = SEED) -> Arrangement | None:
    """Arrange N points with F features in the plane, by UMAP if it is installed, else by t-SNE.

    Args:
        features: Standardised features, (N, F).
        seed: Seed of the random numbers.

    Returns:
        None for fewer than `FEWEST` points, or if no feature varies.
    """
    count = len(features)
    if count < FEWEST or not features.shape[1]:
        return None
    if find_spec("umap") is not None:
        neighbours = min(_NEIGHBOURS, count - 1)
        return Arrangement(_run_umap(features, neighbours, seed), f"UMAP ({neighbours} neighbours)")
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (count - 1) / 3)
    start = "pca" if features.shape[1] > 1 else "random"
    points = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(features)
    return Arrangement(np.asarray(points, np.float64), f"t-SNE (perplexity {perplexity:.3g})")


def _run_umap(features: Features, neighbours: int, seed: int) -> Features:
    import umap

    with warnings.catch_warnings():  # it warns that a seed makes it use one thread
        warnings.simplefilter("ignore")
        reducer: Any = umap.UMAP(n_neighbors=neighbours, random_state=seed)
        return np.asarray(reducer.fit_transform(features), np.float64)


def measure_silhouette(features: Features, groups: Sequence[str]) -> float:
    """Compute the mean silhouette of groups by Euclidean distance, -1 to 1; NaN unless 2 to N - 1 groups are given.

    Source: Rousseeuw 1987, Journal of Computational and Applied Mathematics 20:53-65. A group of one point has 0.
    """
    return _measure(_measure_distances(features), np.asarray(groups))


def _measure_distances(features: Features) -> Features:
    from sklearn.metrics import pairwise_distances

    distances: Features = pairwise_distances(features)
    np.fill_diagonal(distances, 0)
    return distances


def _measure(distances: Features, groups: NDArray[Any]) -> float:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(groups)) < len(groups):
        return float("nan")
    return float(silhouette_score(distances, groups, metric="precomputed"))


def compare_groups(
    features: Features, groups: Sequence[str], patients: Sequence[str], shuffles: int = SHUFFLES, seed: int = SEED
) -> GroupTest | None:
    """Test whether groups lie apart, against groups that are shuffled by patient.

    If each patient is in one group, patients are shuffled between groups, with all of their points. Otherwise the
    groups of each patient's own points are shuffled.

    Args:
        features: Standardised features, (N, F).
        groups: Group of each point.
        patients: Patient of each point.
        shuffles: Number of shuffles.
        seed: Seed of the random numbers.

    Returns:
        None if the silhouette is not defined.
    """
    distances = _measure_distances(features) if features.shape[1] else np.zeros((len(features),) * 2)
    given = np.asarray(groups)
    silhouette = _measure(distances, given)
    if np.isnan(silhouette) or not features.shape[1]:
        return None
    rng = np.random.default_rng(seed)
    members = {patient: np.flatnonzero(np.asarray(patients) == patient) for patient in dict.fromkeys(patients)}
    within = any(len(set(given[rows])) > 1 for rows in members.values())
    shuffle = _shuffle_within if within else _shuffle_between
    found = [_measure(distances, shuffle(given, members, rng)) for _ in range(shuffles)]
    reached = sum(value >= silhouette - 1e-12 for value in found)
    return GroupTest(silhouette, (1 + reached) / (1 + shuffles), shuffles, within, float(np.nanmean(found)))


def _shuffle_within(
    groups: NDArray[Any], members: Mapping[str, NDArray[Any]], rng: np.random.Generator
) -> NDArray[Any]:
    shuffled = groups.copy()
    for rows in members.values():
        shuffled[rows] = rng.permutation(groups[rows])
    return shuffled


def _shuffle_between(
    groups: NDArray[Any], members: Mapping[str, NDArray[Any]], rng: np.random.Generator
) -> NDArray[Any]:
    shuffled = groups.copy()
    own = [groups[rows[0]] for rows in members.values()]
    for rows, group in zip(members.values(), rng.permutation(own), strict=True):
        shuffled[rows] = group
    return shuffled
