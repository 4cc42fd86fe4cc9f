"""Records as numbers: what is learned from the training records, and unseen or missing values."""

from dataclasses import replace

import numpy as np

from duplus_nnunet.survival.records.encoding import RecordEncoder, fit_encoder

from ..cohorts import SCHEMA, make_records


def test_an_encoder_is_fitted_to_its_training_records_only() -> None:
    records = make_records(20)
    encoder = fit_encoder(records, SCHEMA)
    numbers, notes = encoder.encode(records)
    assert not notes
    assert encoder.names == ("age", f"sex={encoder.columns[1].categories[1]}", "grade")
    np.testing.assert_allclose(numbers[:, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(numbers[:, 0].std(), 1, atol=1e-5)


def test_unseen_and_missing_values_are_noted_and_encoded() -> None:
    records = make_records(20)
    encoder = fit_encoder(records, SCHEMA)
    strange = replace(records[0], values={"age": None, "sex": "x", "grade": 1.0})
    numbers, notes = encoder.encode([strange, records[1]])
    assert numbers[0, 0] == 0
    assert numbers[0, 1] == 0
    assert any("'sex'" in note and "'x'" in note for note in notes)
    assert any("'age'" in note and " 1 " in note for note in notes)
    _, notes = encoder.encode([replace(records[0], values={"sex": "f"})])
    assert any("'grade'" in note for note in notes)


def test_missing_values_are_marked() -> None:
    records = make_records(20)
    records[3] = replace(records[3], values={**records[3].values, "age": None})
    numbers, _ = fit_encoder(records, SCHEMA).encode(records)
    assert numbers[3].tolist()[:2] == [0.0, 1.0]


def test_columns_that_are_constant_in_training_have_no_effect() -> None:
    records = [replace(r, values={**r.values, "age": 5.0, "grade": None}) for r in make_records(20)]
    encoder = fit_encoder(records, SCHEMA)
    strange = replace(records[0], values={"age": 1200.0, "sex": records[0].values["sex"], "grade": 2.0})
    one, other = (encoder.encode([record])[0] for record in (records[0], strange))
    np.testing.assert_array_equal(one, other)


def test_rare_categories_share_one_parameter_and_unknown_ones_join_them() -> None:
    sites = ["lung"] * 9 + ["bone"] * 5 + ["skin"] * 4 + ["eye"] * 2
    records = [replace(r, values={"site": site}) for r, site in zip(make_records(20), sites, strict=True)]
    schema = SCHEMA.model_copy(update={"covariates": {"site": SCHEMA.covariates["sex"]}})
    encoder = fit_encoder(records, schema)
    assert encoder.names == ("site=bone", "site=rare categories")
    other = replace(records[0], values={"site": "toe"})
    numbers, notes = encoder.encode([records[0], records[9], records[14], records[18], other])
    np.testing.assert_array_equal(numbers, [[0, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    assert any("'toe'" in note for note in notes)
    assert not any("'eye'" in note for note in notes)
    assert RecordEncoder.from_plain(encoder.to_plain()) == encoder


def test_a_single_rare_category_and_the_most_common_one_keep_their_own_parameter() -> None:
    schema = SCHEMA.model_copy(update={"covariates": {"site": SCHEMA.covariates["sex"]}})
    for sites, names in (("aaaaaab", ("site=b",)), ("aab", ("site=b",)), ("abcd", ("site=rare categories",))):
        records = [replace(r, values={"site": site}) for r, site in zip(make_records(len(sites)), sites, strict=True)]
        assert fit_encoder(records, schema).names == names


def test_an_encoder_that_was_stored_before_categories_were_pooled_is_read() -> None:
    encoder = fit_encoder(make_records(20), SCHEMA)
    plain = [{name: value for name, value in column.items() if name != "pooled"} for column in encoder.to_plain()]
    assert RecordEncoder.from_plain(plain) == encoder
