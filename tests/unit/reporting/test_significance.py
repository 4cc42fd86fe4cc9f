"""P-values of paired differences, and their correction."""

import itertools
import math

import numpy as np
import pytest

from duplus_nnunet.reporting.significance import compute_p_value, correct_holm


def test_exact_p_value_is_that_of_all_signs():
    differences = np.array([0.11, -0.02, 0.07, 0.31, -0.05, 0.2])
    ranks = np.argsort(np.argsort(abs(differences))) + 1
    seen = ranks[differences > 0].sum()
    middle = ranks.sum() / 2
    sums = [
        sum(rank for rank, up in zip(ranks, signs, strict=True) if up) for signs in itertools.product((0, 1), repeat=6)
    ]
    expected = np.mean([abs(value - middle) >= abs(seen - middle) for value in sums])
    assert compute_p_value(differences) == pytest.approx(expected)


def test_no_difference_is_no_evidence():
    assert compute_p_value([0.0, 0.0]) == 1
    assert math.isnan(compute_p_value([]))


def test_equal_on_paper_is_equal():
    assert compute_p_value([0.1 + 0.2 - 0.3, 0.0]) == 1


# By R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
def test_holm():
    found = correct_holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": math.nan})
    assert [found[name] for name in "abcd"] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert math.isnan(found["e"])


def test_holm_never_exceeds_one():
    assert correct_holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
