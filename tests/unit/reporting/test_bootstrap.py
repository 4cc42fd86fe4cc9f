"""Intervals by patient bootstrap."""

import numpy as np
import pytest

from duplus_nnunet.reporting.bootstrap import average_columns, draw_patients, find_interval


def test_sources_without_common_patients_keep_their_numbers() -> None:
    draws = draw_patients({"ct": ["a", "b", "c"], "mr": ["d", "e"]})
    ct = [draws.index[patient] for patient in "abc"]
    assert (draws.counts[:, ct].sum(1) == 3).all()
    assert (draws.counts.sum(1) == 5).all()


def test_patients_of_several_sources_are_drawn_together() -> None:
    draws = draw_patients({"ct": ["a", "b"], "mr": ["b", "c"], "pet": ["d"]})
    assert draws.counts.shape[1] == 4
    assert (draws.counts[:, [draws.index[patient] for patient in "abc"]].sum(1) == 3).all()
    assert (draws.counts[:, draws.index["d"]] == 1).all()


def test_same_patients_give_the_same_draws() -> None:
    first, second = (draw_patients({"ct": names}) for names in (["a", "b", "c"], ["c", "b", "a"]))
    assert (first.counts == second.counts).all()


def test_two_scans_of_a_patient_are_drawn_at_once() -> None:
    draws = draw_patients({"ct": ["a", "b"]}, draws=200)
    means = draws.average([("a", 0.0), ("a", 0.0), ("b", 1.0)])
    assert set(np.round(means, 6)) == {0.0, round(1 / 3, 6), 1.0}


def test_missing_scores_are_ignored() -> None:
    draws = draw_patients({"ct": ["a", "b"]})
    means = draws.average([("a", 0.5), ("b", float("nan"))])
    assert set(means[~np.isnan(means)]) == {0.5}
    assert np.isnan(means).any()


def test_interval_of_a_mean_is_as_wide_as_its_standard_error() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(0.8, 0.1, 400)
    draws = draw_patients({"ct": [str(number) for number in range(400)]})
    low, high = find_interval(draws.average([(str(n), score) for n, score in enumerate(scores)]), 400)
    error = scores.std() / np.sqrt(400)
    assert low == pytest.approx(scores.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(scores.mean() + 1.96 * error, abs=0.15 * error)


def test_one_patient_has_no_interval() -> None:
    assert find_interval(np.full(10, 0.7), 1) is None


def test_columns_without_a_value_are_left_out() -> None:
    means = average_columns([np.array([0.2, np.nan, np.nan]), np.array([0.4, 0.6, np.nan])])
    assert means[:2] == pytest.approx([0.3, 0.6])
    assert np.isnan(means[2])
