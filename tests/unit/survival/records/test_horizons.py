"""Horizons in the schema, in the unit of its time."""

from typing import Any

import pytest
from pydantic import ValidationError

from duplus_nnunet.survival.records.schema import ClinicalSchema

PLAIN = {"patient": "id", "time": {"column": "t"}, "event": {"column": "e", "seen": [1], "censored": [0]}}


@pytest.mark.parametrize(
    ("time", "days"),
    [
        ({"column": "t"}, (12.0, 36.5)),
        ({"column": "t", "unit": "months"}, (12 * 30.4375, 36.5 * 30.4375)),
        ({"start": "a", "end": "b"}, (12.0, 36.5)),
    ],
)
def test_horizons_are_in_the_unit_of_the_time(time: dict[str, str], days: tuple[float, ...]) -> None:
    schema = ClinicalSchema.model_validate({**PLAIN, "time": time, "horizons": [12, 36.5]})
    assert schema.horizons_in_days == pytest.approx(days)
    assert ClinicalSchema.model_validate(PLAIN).horizons_in_days == ()


@pytest.mark.parametrize("horizons", [[0, 1], [2, 1], [1, 1], [-1], [float("inf")], [float("nan")], ["1"]])
def test_horizons_that_do_not_ascend_from_0_are_refused(horizons: list[Any]) -> None:
    with pytest.raises(ValidationError, match="horizons"):
        ClinicalSchema.model_validate({**PLAIN, "horizons": horizons})
