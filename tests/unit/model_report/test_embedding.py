"""Whether groups of features lie apart: separated ones do, noise does not, whatever the number of cases."""

import numpy as np
import pytest

from duplus_nnunet.model_report import embedding
from duplus_nnunet.model_report.embedding import FEWEST, arrange, compare_groups, measure_silhouette, standardise


def make_points(distance: float, count: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(count, 5)), rng.normal(size=(count, 5)) + distance])


GROUPS = ["a"] * 12 + ["b"] * 12


def test_silhouette_is_that_of_the_definition() -> None:
    points, groups = make_points(2.0), np.array(GROUPS)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    values = []
    for row, group in enumerate(groups):
        own = groups == group
        inside = distances[row, own].sum() / (own.sum() - 1)
        outside = distances[row, ~own].mean()
        values.append((outside - inside) / max(inside, outside))
    assert measure_silhouette(points, GROUPS) == pytest.approx(np.mean(values), abs=1e-9)


def test_groups_that_lie_apart_are_told_from_noise() -> None:
    patients = [f"p{number}" for number in range(24)]
    apart = compare_groups(standardise(make_points(4.0)), GROUPS, patients, shuffles=99)
    noise = compare_groups(standardise(make_points(0.0)), GROUPS, patients, shuffles=99)
    assert apart is not None
    assert noise is not None
    assert (apart.p, apart.within) == (0.01, False)
    assert noise.p > 0.05
    assert apart.silhouette > 0.4 > noise.silhouette + 0.3


def test_several_points_of_few_patients_do_not_make_groups() -> None:
    """Two patients a group, each with a place of its own: the points cluster, and four patients prove nothing."""
    rng = np.random.default_rng(0)
    centres = {"p0": 0.0, "p1": 1.0, "p2": 8.0, "p3": 9.0}
    patients = [name for name in centres for _ in range(10)]
    points = np.array([[centres[name], 0.0] for name in patients]) + rng.normal(size=(40, 2)) * 0.1
    groups = ["a" if name in ("p0", "p1") else "b" for name in patients]
    by_patient = compare_groups(standardise(points), groups, patients, shuffles=199)
    by_point = compare_groups(standardise(points), groups, [str(row) for row in range(40)], shuffles=199)
    assert by_patient is not None
    assert by_point is not None
    assert by_patient.p > 0.2
    assert by_point.p == 0.005


def test_points_of_a_patient_in_several_groups_are_shuffled_within_the_patient() -> None:
    """Patients lie far apart, and each of them has the same small step from group to group."""
    patients = [f"p{number}" for number in range(8) for _ in range(2)]
    groups = ["a", "b"] * 8
    points = np.array([[10.0 * (row // 2), 4.0 * (row % 2)] for row in range(16)])
    test = compare_groups(points, groups, patients, shuffles=199)
    assert test is not None
    assert test.within
    assert test.p <= 0.02


@pytest.mark.parametrize("groups", [["a"] * 4, ["a", "b", "c", "d"]])
def test_a_silhouette_that_is_not_defined_is_no_number(groups: list[str]) -> None:
    points = np.arange(8.0).reshape(4, 2)
    assert np.isnan(measure_silhouette(points, groups))
    assert compare_groups(points, groups, ["p0", "p1", "p2", "p3"]) is None


def test_constant_features_are_left_out() -> None:
    points = np.column_stack([np.full(6, 1e6), np.arange(6.0)])
    assert standardise(points).shape == (6, 1)
    assert standardise(np.ones((6, 3))).shape == (6, 0)
    assert compare_groups(standardise(np.ones((6, 3))), ["a", "b"] * 3, list("abcdef")) is None


def test_an_arrangement_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    first, second = arrange(make_points(4.0)), arrange(make_points(4.0))
    assert first is not None
    assert second is not None
    assert first.method.startswith("t-SNE")
    assert first.points.shape == (24, 2)
    assert np.array_equal(first.points, second.points)


def test_few_points_are_not_arranged() -> None:
    assert arrange(np.zeros((FEWEST - 1, 3))) is None
    assert arrange(np.zeros((FEWEST, 0))) is None
