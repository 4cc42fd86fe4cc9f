"""Records are encoded as numbers, and the encoder is stored as JSON."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import ModelError
from duplus_nnunet.survival.records.encoding import ColumnCode, RecordEncoder, fit_encoder
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, Record

SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "id",
        "time": {"column": "t"},
        "event": {"column": "e", "seen": [1], "censored": [0]},
        "covariates": {
            "age": {"type": "numeric"},
            "site": {"type": "categorical"},
            "grade": {"type": "ordinal", "order": ["low", "mid", "high"]},
        },
    }
)


def make_records() -> list[Record]:
    rows = [(50.0, "arm", 0.0), (60.0, "leg", None), (70.0, "leg", 2.0), (80.0, "jaw", 1.0), (65.0, "leg", 1.0)]
    return [
        Record(row + 1, f"p{row}", "", 9.0, CENSORED, 0.0, dict(zip(SCHEMA.covariates, values, strict=True)))
        for row, values in enumerate(rows)
    ]


def test_an_encoder_reads_back_from_json() -> None:
    records = make_records()
    encoder = fit_encoder(records, SCHEMA)
    again = RecordEncoder.from_plain(json.loads(json.dumps(encoder.to_plain(), allow_nan=False)))
    assert again == encoder
    np.testing.assert_array_equal(again.encode(records)[0], encoder.encode(records)[0])


@pytest.mark.parametrize(
    "change",
    [{"name": None, "extra": 1}, {"mean": "high"}, {"mean": float("nan")}, {"scale": float("inf")}, {"categories": 3}],
)
def test_an_invalid_stored_encoder_is_refused(change: dict[str, Any]) -> None:
    plain = fit_encoder(make_records(), SCHEMA).to_plain()
    broken = {key: value for key, value in {**plain[0], **change}.items() if value is not None}
    with pytest.raises(ModelError, match="encoder of records"):
        RecordEncoder.from_plain([broken, *plain[1:]])


def test_a_category_is_known_however_it_is_written() -> None:
    encoder = fit_encoder(make_records(), SCHEMA)
    one, other = ([replace(make_records()[0], values={"site": site})] for site in ("arm", " Arm"))
    np.testing.assert_array_equal(encoder.encode(one)[0], encoder.encode(other)[0])
    assert encoder.encode(other)[1] == encoder.encode(one)[1]
    column = ColumnCode("chemo", "categorical", categories=("yes", "None"), marks_missing=True)
    assert [column.encode(value) for value in ("none", "YES", None)] == [[1, 0], [0, 0], [0, 1]]


def test_encoded_numbers_have_the_index_of_their_column() -> None:
    encoder = fit_encoder(make_records(), SCHEMA)
    assert encoder.names == ("age", "site=rare categories", "grade", "grade is missing")
    assert encoder.list_column_indices().tolist() == [0, 1, 2, 2]


def test_an_empty_record_is_mean_and_most_common_category_with_missing_indicators() -> None:
    encoder = fit_encoder(make_records(), SCHEMA)
    assert encoder.encode_empty_record().tolist() == [0, 0, 0, 1]
    bare = replace(make_records()[0], values={})
    np.testing.assert_array_equal(encoder.encode([bare])[0][0], encoder.encode_empty_record())


@pytest.mark.parametrize("count", [20, 41])
def test_constant_columns_are_encoded_as_the_mean_whatever_the_rounding(count: int) -> None:
    records = [replace(make_records()[0], values={"age": 1.8, "site": "arm", "grade": 1.0}) for _ in range(count)]
    assert fit_encoder(records, SCHEMA).columns[0].encode(2.0) == [0.0]
    nearly = [*records[1:], replace(records[0], values={**records[0].values, "age": 1.8000001})]
    assert fit_encoder(nearly, SCHEMA).columns[0].scale > 0


def test_an_encoder_without_covariates_gives_no_numbers() -> None:
    encoder = fit_encoder(make_records(), SCHEMA.model_copy(update={"covariates": {}}))
    assert encoder.encode(make_records())[0].shape == (5, 0)
    assert encoder.encode_empty_record().shape == (0,)
    assert encoder.list_column_indices().shape == (0,)
    assert RecordEncoder.from_plain(encoder.to_plain()) == encoder
