"""Saved models of clinical records: equal to those in memory, and refused if they are damaged."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.survival.models import early_stopping
from duplus_nnunet.survival.models.combined_predictors import list_kinds, read_predictor, write_predictor
from duplus_nnunet.survival.models.forecasts import Task
from duplus_nnunet.survival.models.methods import forecast
from duplus_nnunet.survival.models.predictors import Curve
from duplus_nnunet.survival.models.recalibration import LARGE, SLOPE, Recalibration
from duplus_nnunet.survival.models.records_model import RECORD_METHODS, RecordsModel, fit_records_model
from duplus_nnunet.survival.models.records_model_files import (
    MODEL_NAME,
    TENSORS_NAME,
    read_records_model,
    write_records_model,
)
from duplus_nnunet.survival.models.stored_arrays import join_arrays, split_arrays
from duplus_nnunet.survival.records.table import CENSORED, Record

from ..cohorts import SCHEMA, make_records

pytest.importorskip("sksurv")


def make_competing(count: int, seed: int = 0) -> list[Record]:
    """Draw patients of whom every second censored one has a competing event."""
    records = make_records(count, seed=seed)
    return [
        dataclasses.replace(record, event="2") if record.event == CENSORED and number % 2 else record
        for number, record in enumerate(records)
    ]


def save(model: RecordsModel, folder: Path) -> RecordsModel:
    write_records_model(model, "# Card\n", folder)
    return read_records_model(folder)


@pytest.mark.parametrize("draw", [make_records, make_competing])
@pytest.mark.parametrize("method", RECORD_METHODS)
def test_a_saved_model_predicts_what_the_method_predicts_in_memory(
    method: str, draw: Callable[..., list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_stopping, "_EPOCHS", 5)
    train, test = sorted(draw(60), key=lambda record: record.patient), make_records(15, seed=1)
    model = save(fit_records_model("a", method, train, SCHEMA), tmp_path)
    times = np.array([*model.horizons, model.development.follow_up])
    expected, saved = forecast(method, Task(train, test, SCHEMA, times, 0)), model.forecast(test, times)
    np.testing.assert_allclose(saved.risk, expected.risk, atol=1e-6)
    np.testing.assert_allclose(saved.survival, expected.survival, atol=1e-6)
    assert saved.cut == expected.cut
    assert (method == "Kaplan-Meier") == (np.ptp(saved.survival[:, 0]) == 0)


def test_a_prediction_of_a_cox_model_can_be_computed_by_hand_from_its_file(tmp_path: Path) -> None:
    model = fit_records_model("a", "Cox", make_records(60), SCHEMA)
    write_records_model(model, "", tmp_path)
    content = json.loads((tmp_path / MODEL_NAME).read_text())
    age, sex, grade = content["encoder"]
    values = [
        (70 - age["mean"]) / age["scale"],
        float(sex["categories"][1] == "m"),
        (2 - grade["mean"]) / grade["scale"],
    ]
    predictor = content["predictor"]
    risk = sum(weight * value for weight, value in zip(predictor["coefficients"], values, strict=True))
    risk -= predictor["offset"]
    hazard = [h for t, h in zip(predictor["times"], predictor["hazards"], strict=True) if t <= 200][-1]
    record = Record(1, "new", "", math.nan, "", 0.0, {"age": 70.0, "sex": "m", "grade": 2.0})
    predicted = model.forecast([record], np.array([200.0]))
    assert predicted.risk[0] == pytest.approx(risk, abs=1e-5)  # encoded as float32
    assert predicted.survival[0, 0] == pytest.approx(math.exp(-hazard * math.exp(risk)), abs=1e-5)


def test_a_model_without_covariates_that_vary_predicts_the_same_for_all(tmp_path: Path) -> None:
    records = [dataclasses.replace(record, values=dict(record.values, age=50.0)) for record in make_records(30)]
    schema = SCHEMA.model_copy(update={"covariates": {"age": SCHEMA.covariates["age"]}})
    model = save(fit_records_model("a", "Cox", records, schema), tmp_path)
    assert np.ptp(model.forecast(make_records(5), np.array([200.0])).survival) == 0


def change(folder: Path, edit: Callable[[dict[str, Any]], object], sign: bool = True) -> None:
    """Edit a stored model, and sign it again as an attacker would."""
    content = json.loads((folder / MODEL_NAME).read_text())
    edit(content)
    if sign:
        del content["sha256"]
        content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / MODEL_NAME).write_text(json.dumps(content))


def test_a_model_that_was_edited_is_refused(tmp_path: Path) -> None:
    write_records_model(fit_records_model("a", "Cox", make_records(40), SCHEMA), "", tmp_path)
    change(tmp_path, lambda content: content["predictor"]["coefficients"].__setitem__(0, 5.0), sign=False)
    with pytest.raises(ModelError, match=MODEL_NAME):
        read_records_model(tmp_path)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a later version": lambda content: content.update(version=99),
    "another format": lambda content: content.update(format="other"),
    "an unknown kind": lambda content: content["predictor"].update(kind="oracle"),
    "a missing part": lambda content: content["predictor"].pop("hazards"),
    "a falling baseline": lambda content: content["predictor"]["hazards"].__setitem__(-1, 0.0),
    "another number of coefficients": lambda content: content["predictor"]["coefficients"].pop(),
    "infinite numbers": lambda content: content["predictor"]["coefficients"].__setitem__(0, math.inf),
    "texts for numbers": lambda content: content["predictor"]["coefficients"].__setitem__(0, "1"),
    "times that do not ascend": lambda content: content["predictor"]["times"].reverse(),
    "another schema": lambda content: content["schema"]["covariates"].pop("age"),
    "no horizons": lambda content: content.update(horizons_days=[]),
    "a recalibration by 0": lambda content: content.update(
        recalibrations=[
            {"kind": "large", "horizon": 9, "slope": 1, "factor": 0, "name": "", "patients": 1, "events": 1}
        ]
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_model_that_does_not_hold_together_is_refused_though_its_checksum_fits(name: str, tmp_path: Path) -> None:
    write_records_model(fit_records_model("a", "Cox", make_records(40), SCHEMA), "", tmp_path)
    change(tmp_path, EDITS[name])
    with pytest.raises(ModelError, match=MODEL_NAME):
        read_records_model(tmp_path)


def test_tensors_that_are_missing_or_damaged_are_refused_by_name(tmp_path: Path) -> None:
    write_records_model(fit_records_model("a", "random survival forest", make_records(60), SCHEMA), "", tmp_path)
    file = tmp_path / TENSORS_NAME
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelError, match=TENSORS_NAME):
        read_records_model(tmp_path)
    file.unlink()
    with pytest.raises(ModelError, match=TENSORS_NAME):
        read_records_model(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("left", 0), ("feature", 99), ("places", -1), ("roots", 10**6)])
def test_a_forest_whose_nodes_lead_nowhere_is_refused(name: str, value: int) -> None:
    model = fit_records_model("a", "random survival forest", make_records(30), SCHEMA)
    plain = write_predictor(model.predictor)
    plain[name] = plain[name].copy()
    plain[name][0] = value
    with pytest.raises(ModelError):
        read_predictor(plain, len(model.encoder.names))


def test_each_kind_of_model_is_restored_by_its_name() -> None:
    assert set(list_kinds()) == {
        "proportional hazards", "curve", "average", "competing", "random survival forest", "hazard network",
    }  # fmt: skip
    curve = Curve(np.array([1.0, 2.0]), np.array([0.5, 0.25]))
    restored = read_predictor(write_predictor(curve), 0)
    assert restored.predict_survival(np.zeros((1, 0)), np.array([0.5, 1.0, 9.0])).tolist() == [[1.0, 0.5, 0.25]]


def test_arrays_come_back_from_lists_and_tensors() -> None:
    plain = {"a": [{"short": np.arange(3.0), "long": np.arange(9000.0)}], "b": "text"}
    stored, tensors = split_arrays(plain)
    assert stored["a"][0]["short"] == [0.0, 1.0, 2.0]
    assert list(tensors) == ["a.0.long"]
    assert join_arrays(stored, tensors)["a"][0]["long"].tolist() == plain["a"][0]["long"].tolist()  # type: ignore[index]
    with pytest.raises(ModelError):
        join_arrays(stored, {})


def test_a_folder_with_a_model_is_not_overwritten(tmp_path: Path) -> None:
    model = fit_records_model("a", "Kaplan-Meier", make_records(30), SCHEMA)
    write_records_model(model, "first", tmp_path)
    with pytest.raises(DataError, match=MODEL_NAME):
        write_records_model(model, "second", tmp_path)
    assert (tmp_path / "model_card.md").read_text() == "first"


def test_methods_that_cannot_be_saved_are_refused() -> None:
    for method in ("Fine-Gray", "image only", "magic"):
        with pytest.raises(DataError, match=method):
            fit_records_model("a", method, make_records(30), SCHEMA)


def test_a_model_of_several_imputations_is_refused_where_values_are_missing() -> None:
    schema = SCHEMA.model_copy(update={"imputations": 5})
    records = make_records(40)
    name = next(iter(SCHEMA.covariates))
    records[0] = dataclasses.replace(records[0], values={**records[0].values, name: None})
    with pytest.raises(DataError, match="imputations: 0"):
        fit_records_model("a", "Cox", records, schema)
    assert fit_records_model("a", "Cox", records, SCHEMA).method == "Cox"


def test_a_horizon_of_the_schema_after_the_follow_up_is_refused() -> None:
    schema = SCHEMA.model_copy(update={"horizons": [100, 99999]})
    with pytest.raises(DataError, match="99999"):
        fit_records_model("a", "Cox", make_records(30), schema)


def test_patients_of_the_development_are_found_by_hashes_that_do_not_show_their_ids(tmp_path: Path) -> None:
    model = save(fit_records_model("a", "Kaplan-Meier", make_records(30), SCHEMA), tmp_path)
    assert model.development.find_known(["p003", "q003", " p004 "]) == ("p003", " p004 ")
    assert "p003" not in (tmp_path / MODEL_NAME).read_text()


def test_recalibration_in_the_large_multiplies_the_cumulative_hazard() -> None:
    large = Recalibration(LARGE, 100.0, 1.0, 2.0, "b", 50, 20)
    np.testing.assert_allclose(large.apply(np.array([[0.5, 0.0, 1.0]]), np.array([0.5])), [[0.25, 0.0, 1.0]])


def test_recalibration_of_a_cox_model_multiplies_its_linear_predictor() -> None:
    risk, baseline = np.array([-1.0, 0.0, 0.5]), np.array([0.1, 0.3])
    survival = np.exp(-baseline[None, :] * np.exp(risk)[:, None])
    changed = Recalibration(SLOPE, 100.0, 0.6, 2.0, "b", 50, 20).apply(survival, survival[:, 1])
    factor = 2.0 * 0.3 ** (0.6 - 1)
    np.testing.assert_allclose(changed, np.exp(-factor * baseline[None, :] * np.exp(0.6 * risk)[:, None]))


def test_recalibrations_are_applied_one_after_another() -> None:
    model = fit_records_model("a", "Cox", make_records(40), SCHEMA)
    records, times = make_records(5, seed=2), np.array([100.0, 300.0])
    twice = dataclasses.replace(
        model,
        recalibrations=(
            Recalibration(LARGE, 300.0, 1.0, 2.0, "b", 50, 20),
            Recalibration(SLOPE, 300.0, 0.5, 1.0, "c", 50, 20),
        ),
    )
    first = model.forecast(records, times).survival ** 2
    expected = Recalibration(SLOPE, 300.0, 0.5, 1.0, "c", 50, 20).apply(first, first[:, 1])
    np.testing.assert_allclose(twice.forecast(records, times).survival, expected)
