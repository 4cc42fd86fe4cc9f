"""What a study claims: events for each encoded parameter, and for each comparison."""

from dataclasses import replace

from duplus_nnunet.survival.evaluation.claims import Claims, describe_claims, find_claims
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN

from ..cohorts import SCHEMA, make_records


def test_encoded_parameters_count_after_rare_categories_are_pooled() -> None:
    """17 sites in 51 patients: ten of three patients and one of 21 are two parameters with the pooled ones, not 10."""
    sites = ["common"] * 21 + [f"site {number % 10}" for number in range(30)]
    records = [
        replace(record, event=SEEN if number < 27 else CENSORED, values={**record.values, "site": sites[number]})
        for number, record in enumerate(make_records(51))
    ]
    covariates = {**SCHEMA.covariates, "site": SCHEMA.covariates["sex"]}
    claims = find_claims(records, SCHEMA.model_copy(update={"covariates": covariates}), ("Cox", "Coxnet"), 27)
    assert (claims.events, claims.parameters) == (27, 4)
    assert claims.events_per_parameter == 27 / 4
    assert claims.unsupported == ()
    assert not claims.compares
    assert len(describe_claims(claims)) == 2


def test_cox_with_fewer_than_two_events_a_parameter_supports_no_claim() -> None:
    wide: ClinicalSchema = SCHEMA.model_copy(
        update={"covariates": {f"x{number}": SCHEMA.covariates["age"] for number in range(20)}}
    )
    values = {f"x{number}": 1.0 for number in range(20)}
    records = [
        replace(record, event=SEEN if number < 35 else CENSORED, values=values)
        for number, record in enumerate(make_records(60))
    ]
    claims = find_claims(records, wide, ("Cox", "Coxnet", "random survival forest"), 35)
    assert claims.unsupported == ("Cox",)
    assert claims.compares
    (note,) = describe_claims(claims)
    assert "1.75" in note
    assert "Cox" in note


def test_enough_events_need_no_words() -> None:
    assert describe_claims(Claims(100, 10, (), compares=True)) == []
    assert Claims().events_per_parameter is None
