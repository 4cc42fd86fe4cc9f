"""Multiple imputation draws from the right distributions, and from training patients alone."""

from dataclasses import replace

import numpy as np
import pytest

from duplus_nnunet.survival.records.imputation import LEAST_KNOWN, has_missing, impute, list_imputed
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Record

from ..cohorts import SCHEMA, make_records


def drop(records: list[Record], name: str, share: float, seed: int = 0) -> list[Record]:
    """Drop a covariate in a share of the records."""
    rng = np.random.default_rng(seed)
    return [
        replace(record, values={**record.values, name: None}) if rng.random() < share else record for record in records
    ]


def take(records: tuple[Record, ...] | list[Record], name: str) -> list[float | str | None]:
    return [record.values[name] for record in records]


def test_known_values_stay_and_imputed_ones_are_values_that_occur() -> None:
    records = drop(drop(drop(make_records(), "age", 0.3), "sex", 0.3, 1), "grade", 0.3, 2)
    for imputation in impute(records[:40], records[40:], SCHEMA, 3, 0):
        assert not has_missing((*imputation.train, *imputation.test), SCHEMA)
        for name in SCHEMA.covariates:
            before, after = take(records, name), take((*imputation.train, *imputation.test), name)
            assert all(old in (None, new) for old, new in zip(before, after, strict=True))
            assert set(after) <= {value for value in take(records[:40], name) if value is not None} | set(before[40:])


def test_imputations_differ_from_each_other_but_not_from_run_to_run() -> None:
    records = drop(make_records(), "age", 0.3)
    first, again = (impute(records[:40], records[40:], SCHEMA, 2, 5) for _ in range(2))
    assert first == again
    assert first[0] != first[1]


def test_records_without_missing_values_stay_as_they_are() -> None:
    records = make_records()
    (imputation,) = impute(records[:40], records[40:], SCHEMA, 1, 0)
    assert (list(imputation.train), list(imputation.test)) == (records[:40], records[40:])


@pytest.mark.parametrize("name", ["age", "sex", "grade"])
def test_outcomes_and_values_of_other_held_out_patients_do_not_change_the_imputation_of_a_patient(name: str) -> None:
    records = drop(make_records(), name, 0.4)
    train, test = records[:40], records[40:]
    poisoned = [
        replace(record, time=9e9, event="seen", values={"age": 1e6, "sex": "m", "grade": 2.0}) for record in test[1:]
    ]
    for given in ([test[0], *poisoned], [*poisoned, replace(test[0], time=1.0, event="seen")]):
        plain, found = impute(train, test, SCHEMA, 2, 0), impute(train, given, SCHEMA, 2, 0)
        for one, other in zip(plain, found, strict=True):
            assert one.train == other.train
            mine = next(record for record in other.test if record.patient == test[0].patient)
            assert one.test[0].values == mine.values


def test_training_outcomes_help_to_impute() -> None:
    # Age determines the time: with the outcome among the predictors, imputed ages follow it.
    complete = make_records(300, effect=3.0)
    records = drop(complete, "age", 0.5)
    imputations = impute(records, (), SCHEMA, 5, 0)
    missing = [row for row, record in enumerate(records) if record.values["age"] is None]
    true = np.array([complete[row].values["age"] for row in missing], float)
    drawn = np.mean([[each.train[row].values["age"] for row in missing] for each in imputations], axis=0)
    assert np.corrcoef(true, drawn)[0, 1] > 0.6


def test_a_related_covariate_predicts_the_missing_one_in_held_out_patients() -> None:
    rng = np.random.default_rng(0)
    schema = SCHEMA.model_copy(update={"covariates": dict.fromkeys(("a", "b"), SCHEMA.covariates["age"])})
    records = []
    for record in make_records(200, effect=0.0):
        a = float(rng.normal())
        records.append(replace(record, values={"a": a, "b": 2 * a + float(rng.normal(0, 0.1))}))
    test = [replace(record, values={**record.values, "b": None}) for record in records[150:]]
    (imputation,) = impute(records[:150], test, schema, 1, 0)
    truth, drawn = take(records[150:], "b"), take(imputation.test, "b")
    assert np.corrcoef(np.array(truth, float), np.array(drawn, float))[0, 1] > 0.95


def test_categories_are_drawn_with_their_shares_whatever_else_is_known() -> None:
    rng = np.random.default_rng(1)
    records = [
        replace(record, values={"age": 1.0, "sex": "f" if rng.random() < 0.1 else "m", "grade": float(rng.integers(3))})
        for record in make_records(400, effect=0.0)
    ]
    test = [replace(record, values={**record.values, "sex": None}) for record in records[200:]]
    drawn = [name for each in impute(records[:200], test, SCHEMA, 5, 0) for name in take(each.test, "sex")]
    known = take(records[:200], "sex")
    assert drawn.count("f") / len(drawn) == pytest.approx(known.count("f") / len(known), abs=0.04)


def test_equal_predictions_have_different_donors() -> None:
    schema = SCHEMA.model_copy(update={"covariates": {"age": SCHEMA.covariates["age"]}})
    records = make_records(120, effect=0.0)
    test = [replace(record, values={"age": None}) for record in records[60:]]
    (imputation,) = impute([replace(r, values={"age": r.values["age"]}) for r in records[:60]], test, schema, 1, 0)
    assert len(set(take(imputation.test, "age"))) > 15


def test_a_covariate_that_few_patients_have_is_not_imputed() -> None:
    records = make_records(60)
    few = [replace(r, values={**r.values, "age": None}) if n >= LEAST_KNOWN - 1 else r for n, r in enumerate(records)]
    assert list_imputed(few, SCHEMA) == ("sex", "grade")
    (imputation,) = impute(few, (), SCHEMA, 1, 0)
    assert take(imputation.train, "age") == take(few, "age")


@pytest.mark.parametrize("count", [1, -1, 101])
def test_a_number_of_imputations_that_cannot_be_is_refused(count: int) -> None:
    plain = {**SCHEMA.model_dump(mode="json", exclude_defaults=True), "imputations": count}
    with pytest.raises(ValueError, match="imputations"):
        ClinicalSchema.model_validate(plain)
