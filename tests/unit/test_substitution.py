"""Calls of a method with other meanings of names."""

import math

from duplus_nnunet.substitution import call_with

FACTOR = 2


class Host:
    def __init__(self) -> None:
        self.offset = 1

    def compute(self, value: float, power: float = 1.0) -> float:
        return FACTOR * math.pow(value, power) + self.offset


def test_names_are_replaced_in_this_call_only() -> None:
    host = Host()
    assert call_with(host.compute, {"FACTOR": 10}, 3.0) == 31
    assert host.compute(3.0) == 7


def test_other_names_and_defaults_are_those_of_the_method() -> None:
    assert call_with(Host().compute, {}, 3.0, 2.0) == 19
