"""Prediction of new patients: tables, averages over folds, effects of inputs, and what is refused."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.cli import main
from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.evaluation.attribution import explain, measure_box_effects
from duplus_nnunet.survival.evaluation.importance import HeldOutFold, measure_importance
from duplus_nnunet.survival.evaluation.validation import NOT_FINITE
from duplus_nnunet.survival.models.averaging import average, average_cut_offs, choose_new_horizons, standardise
from duplus_nnunet.survival.models.model import SurvivalModel, fit_model
from duplus_nnunet.survival.prediction.rows import ImageSummary, list_patient_predictions
from duplus_nnunet.survival.prediction.trained_model import read_trained_model
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.new_patients import NewPatients, read_new_patients
from duplus_nnunet.survival.records.out_of_range import find_out_of_range_values
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record, read_rows
from duplus_nnunet.table_files import read_csv

SCHEMA = ClinicalSchema.model_validate(
    {
        "patient": "id",
        "time": {"column": "months", "unit": "months"},
        "event": {"column": "relapse", "seen": [1], "censored": [0]},
        "covariates": {"age": {"type": "numeric"}, "sex": {"type": "categorical"}, "noise": {"type": "numeric"}},
    }
)
NAMES = ("ct: lesion volume", "ct: lesion found", "pt: lesion volume")
COUNT = 80


def make_patients() -> tuple[list[Record], FeatureTable]:
    """Draw patients whose hazard grows with the age and the volume in CT; every third has no PET."""
    rng = np.random.default_rng(5)
    records, rows = [], {}
    for number in range(COUNT):
        age, size = rng.normal(), rng.normal()
        event, censoring = rng.exponential(500 * math.exp(-1.2 * age - 1.2 * size)), rng.exponential(1500)
        values: dict[str, float | str | None] = {
            "age": 60 + 10 * age, "sex": "fm"[number % 2], "noise": float(rng.normal()),
        }  # fmt: skip
        kind = SEEN if event <= censoring else CENSORED
        records.append(Record(number, f"p{number:02d}", "", 1 + min(event, censoring), kind, 0.0, values))
        pet = np.nan if number % 3 == 0 else math.exp(size + rng.normal())
        rows[f"p{number:02d}"] = np.array([math.exp(3 + size), 1, pet], np.float32)
    return records, FeatureTable(NAMES, ("ct", "ct", "pt"), ("measure",) * 3, rows)


PATIENTS, IMAGES = make_patients()


@pytest.fixture(scope="module")
def models() -> list[SurvivalModel]:
    settings = SurvivalSettings(networks=2)
    return [fit_model(part, SCHEMA, IMAGES, settings, 0) for part in (PATIENTS[:60], PATIENTS[20:])]


@pytest.fixture
def folder(models: list[SurvivalModel], tmp_path: Path) -> Path:
    """A model folder of two folds, without the files for images."""
    made = tmp_path / "model"
    for number, model in enumerate(models):
        state = {
            "version": 1, "model": model.to_plain(), "lora": None, "kept": False, "lesions": {"ct": ("tumour",)},
            "patients": list(model.patients), "notes": [],
        }  # fmt: skip
        (made / f"fold_{number}").mkdir(parents=True)
        content = {"network_weights": {}, "duplus_survival": state}
        torch.save(content, made / f"fold_{number}" / "checkpoint_final.pth")
    (made / "plans.json").write_text(json.dumps({"duplus": {}}))
    return made


def write_table(folder: Path, text: str) -> Any:
    file = folder / "new.csv"
    file.write_text(text)
    return read_rows(file)


# --- tables


def test_outcomes_are_not_needed_and_patients_with_a_row_or_an_image_are_included(tmp_path: Path) -> None:
    rows = write_table(tmp_path, "id,age,sex,noise\na,61,f,0\nb,,m,1\n")
    found = read_new_patients(rows, SCHEMA, {"b", "c"})
    assert [record.patient for record in found.records] == ["a", "b", "c"]
    assert found.listed == {"a", "b"}
    assert found.records[1].values == {"age": None, "sex": "m", "noise": 1.0}
    assert found.notes == ()


def test_missing_columns_and_unreadable_values_are_reported_as_missing(tmp_path: Path) -> None:
    found = read_new_patients(write_table(tmp_path, "id,age,sex\na,old,f\n"), SCHEMA, ())
    assert found.records[0].values == {"age": None, "sex": "f", "noise": None}
    assert "'noise'" in found.notes[0]
    (warning,) = found.warnings["a"]
    assert "'age' is 'old'" in warning


@pytest.mark.parametrize(
    ("text", "imaged", "said"),
    [
        ("id,age\n,61\nb,60\n", (), r"\b1\b"),
        ("id,age\na,61\na,60\n", (), r"'a' \(rows 1, 2\)"),
        ("id,age\na,61\n", ("x",), r"new\.csv.*\ba\b.*\bx\b"),
        ("id,weight\na,61\n", (), "'id'.* 'age', 'sex', 'noise'"),
        ("name,age\na,61\n", (), "'id'"),
    ],
)
def test_tables_whose_rows_cannot_be_matched_are_refused(
    tmp_path: Path, text: str, imaged: tuple[str, ...], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_new_patients(write_table(tmp_path, text), SCHEMA, imaged)


def test_values_outside_the_training_range_are_reported(models: list[SurvivalModel]) -> None:
    record = Record(1, "new", "", math.nan, "", 0.0, {"age": 600.0, "sex": "x", "noise": None})
    found = find_out_of_range_values(record, [model.encoder for model in models])
    assert len(found) == 3
    assert "'age' is 600" in found[0]
    assert "'sex' is 'x'" in found[1]
    assert "'noise' is missing" in found[2]
    assert find_out_of_range_values(PATIENTS[0], [model.encoder for model in models]) == ()


# --- several folds


def test_curves_are_averaged_and_risks_on_a_common_scale(models: list[SurvivalModel]) -> None:
    times, records = np.array([100.0, 400.0]), PATIENTS[:10]
    found = average(models, records, [IMAGES, IMAGES], times)
    alone = [model.forecast(records, IMAGES, times) for model in models]
    np.testing.assert_allclose(found.survival, (alone[0].survival + alone[1].survival) / 2)
    scaled = [(one.risk - model.risks.mean()) / model.risks.std() for one, model in zip(alone, models, strict=True)]
    np.testing.assert_allclose(found.risk, (scaled[0] + scaled[1]) / 2)


def test_of_one_fold_order_and_groups_are_its_own(models: list[SurvivalModel]) -> None:
    model, records = models[0], PATIENTS[:60]
    found = average([model], records, [IMAGES], np.array([100.0]))
    alone = model.forecast(records, IMAGES, np.array([100.0]))
    np.testing.assert_array_equal(np.argsort(found.risk), np.argsort(alone.risk))
    assert found.cut is not None
    assert (found.risk > found.cut).sum() == 30  # of those trained on, half


def test_a_scale_cannot_be_shifted_by_another_fold(models: list[SurvivalModel]) -> None:
    moved = replace(models[0], risks=models[0].risks * 100 + 7)
    np.testing.assert_allclose(standardise(moved, moved.risks), standardise(models[0], models[0].risks))


def test_a_fold_with_constant_risks_does_not_contribute(models: list[SurvivalModel]) -> None:
    flat = replace(models[0], risks=np.ones(60))
    assert standardise(flat, np.array([5.0])) == [0.0]
    assert average_cut_offs([flat]) is None
    assert average_cut_offs([flat, models[1]]) == pytest.approx(average_cut_offs([models[1]]) / 2)  # type: ignore[operator]


def test_new_patients_are_predicted_at_the_horizons_that_were_evaluated(models: list[SurvivalModel]) -> None:
    for model in models:
        assert len(model.horizons) > 0
        assert SurvivalModel.from_plain(model.to_plain()).horizons == model.horizons
    folds = [replace(models[0], horizons=(50.0, 80.0)), replace(models[0], horizons=(80.0, 90.0))]
    assert choose_new_horizons(folds, ()) == (80.0,)
    schema = models[0].schema.model_copy(update={"horizons": [20, 60.0]})
    assert choose_new_horizons([replace(fold, schema=schema) for fold in folds], ()) == schema.horizons_in_days


def test_horizons_beyond_the_follow_up_are_refused(models: list[SurvivalModel]) -> None:
    last = min(model.follow_up for model in models)
    assert choose_new_horizons(models, (last, 10.0)) == (10.0, last)
    earlier = [replace(model, horizons=()) for model in models]
    assert choose_new_horizons(earlier, ()) == tuple(year * 365.25 for year in (1, 2, 3, 5) if year * 365.25 <= last)
    assert choose_new_horizons([replace(earlier[0], follow_up=100.0)], ()) == (25.0, 50.0, 75.0)
    with pytest.raises(DataError, match="follow-up"):
        choose_new_horizons(models, (last + 1,))
    with pytest.raises(DataError, match=r"\b0\b"):
        choose_new_horizons(models, (0.0,))


def test_a_row_reports_missing_inputs_and_training_patients(models: list[SurvivalModel], tmp_path: Path) -> None:
    rows = write_table(tmp_path, "id,age,sex,noise\np00,61,f,0\nnew,62,f,0\n")
    patients = read_new_patients(rows, SCHEMA, {"p00", "other"})
    seen = ImageSummary([IMAGES.choose(NAMES)] * 2, {"p00": ("p00_CT",)}, {"p00": ("p00_CT: bright",)})
    seen.tables[0].rows["other"] = np.array([3, 0, 2], np.float32)  # type: ignore[index,union-attr]
    times = np.array([100.0]), np.linspace(0, 300, 4)
    found = average(models, patients.records, seen.tables, np.concatenate(times))
    first, second, third = list_patient_predictions(models, patients, seen, found, times)
    assert first.images == ("p00_CT",)
    assert first.warnings[:2] == ("no image of 'pt'", "p00_CT: bright")
    assert "1 of 2 folds" in first.warnings[2]
    assert [warning.split(":")[0] for warning in second.warnings] == ["no image"]
    assert third.warnings[0].startswith("no record")
    assert "'ct'" in third.warnings[1]
    assert (first.missing, third.missing) == (0, 3)
    assert len(first.survival) == 1
    assert len(first.curve) == 4


def test_a_row_knows_training_patients_in_another_case_and_delayed_entry(models: list[SurvivalModel]) -> None:
    records = [replace(PATIENTS[0], patient="P00", entry=3.0), replace(PATIENTS[0], patient="q00")]
    times = np.array([100.0]), np.linspace(0, 300, 4)
    found = average(models, records, [None, None], np.concatenate(times))
    patients = NewPatients(tuple(records), frozenset(("P00", "q00")))
    first, second = list_patient_predictions(models, patients, ImageSummary([None, None]), found, times)
    assert (first.entry, second.entry) == (3.0, PATIENTS[0].entry)
    assert any("of 2 folds" in warning for warning in first.warnings)
    assert not any("of 2 folds" in warning for warning in second.warnings)


def test_a_prediction_that_is_no_number_has_no_risk_group_and_a_warning(models: list[SurvivalModel]) -> None:
    records = [replace(PATIENTS[0], patient="q00"), replace(PATIENTS[0], patient="q01")]
    times = np.array([100.0]), np.linspace(0, 300, 4)
    found = average(models, records, [None, None], np.concatenate(times))
    broken = replace(found, risk=np.array([np.nan, found.risk[1]]))
    patients = NewPatients(tuple(records), frozenset(("q00", "q01")))
    first, second = list_patient_predictions(models, patients, ImageSummary([None, None]), broken, times)
    assert (first.group, NOT_FINITE in first.warnings) == ("", True)
    assert (second.group in ("high", "low"), NOT_FINITE in second.warnings) == (True, False)


# --- effects of inputs


def test_an_effect_is_the_risk_less_that_without_the_input(models: list[SurvivalModel]) -> None:
    record = PATIENTS[0]  # without PET
    effects = {one.input: one for one in explain(models, [record], [IMAGES, IMAGES])}
    assert set(effects) == {"age", "sex", "noise", "whole record", "ct", "all images"}
    without = replace(record, values={**record.values, "age": None})
    risks = [average(models, [one], [IMAGES, IMAGES], np.zeros(1)).risk[0] for one in (record, without)]
    assert effects["age"].effect == pytest.approx(risks[0] - risks[1])
    assert effects["age"].value == f"{record.values['age']:g}"
    assert effects["ct"].effect == effects["all images"].effect
    blind = average(models, [record], [None, None], np.zeros(1)).risk[0]
    assert effects["ct"].effect == pytest.approx(risks[0] - blind)


def test_missing_inputs_have_no_effect(models: list[SurvivalModel]) -> None:
    record = replace(PATIENTS[1], values={"age": None, "sex": "f", "noise": None})
    assert [one.input for one in explain(models, [record], [None, None])] == ["sex", "whole record"]


def test_large_lesions_raise_the_risk_and_small_ones_lower_it(models: list[SurvivalModel]) -> None:
    found = explain(models, PATIENTS, [IMAGES, IMAGES])
    effects = {one.patient: one.effect for one in found if one.input == "ct"}
    order = sorted(effects, key=lambda name: float(IMAGES.rows[name][0]))
    assert np.mean([effects[name] for name in order[-20:]]) > 0.1
    assert np.mean([effects[name] for name in order[:20]]) < -0.1


def test_a_box_over_a_lesion_raises_the_risk(models: list[SurvivalModel]) -> None:
    name = max(IMAGES.rows, key=lambda one: float(IMAGES.rows[one][0]))
    record, row = next(one for one in PATIENTS if one.patient == name), IMAGES.rows[name]
    half = row.copy()
    half[0] /= 2
    boxes = {"box 0": row, "box 1": half}
    found = measure_box_effects(models, record, [IMAGES, IMAGES], [boxes, boxes])
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] > 0


def test_importance_is_largest_for_relevant_inputs_and_reproducible(models: list[SurvivalModel]) -> None:
    folds = [HeldOutFold(models[0], tuple(PATIENTS[60:]), IMAGES), HeldOutFold(models[1], tuple(PATIENTS[:20]), IMAGES)]
    concordance, found = measure_importance(folds, repeats=8)
    drops = {one.input: one.drop for one in found}
    assert concordance > 0.6
    assert set(drops) == {"age", "sex", "noise", "ct", "pt"}
    assert drops["age"] > max(drops["sex"], drops["noise"]) + 0.02
    assert drops["ct"] > 0.02
    assert (concordance, found) == measure_importance(folds, repeats=8)
    assert {one.input: one.drop for one in measure_importance(folds, 8, seed=1)[1]} != drops


def test_a_constant_column_has_no_importance(models: list[SurvivalModel]) -> None:
    alike = tuple(replace(one, values={**one.values, "age": 60.0}) for one in PATIENTS[60:])
    _, found = measure_importance([HeldOutFold(models[0], alike, None)], repeats=3)
    assert {one.input: (one.drop, one.spread) for one in found}["age"] == (0.0, 0.0)


# --- the command


def run(folder: Path, out: Path, *words: str | Path) -> int:
    return main(["survival", "predict", "-m", str(folder), "-o", str(out), "--device", "cpu", *map(str, words)])


def test_records_alone_are_predicted_and_explained(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "new.csv"
    table.write_text("id;age;sex;noise\nyoung;40;f;0\nold;80;f;0\n")
    assert run(folder, tmp_path / "out", "--clinical", table, "--horizons", "300", "100", "--explain") == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = {row["patient"]: row for row in csv.DictReader(file)}
    assert float(rows["old"]["risk"]) > float(rows["young"]["risk"])
    for row in rows.values():
        assert float(row["survival at 300 days"]) < float(row["survival at 100 days"]) <= 1
    assert rows["old"]["risk group"] == "high"
    assert (tmp_path / "out" / "explanation.csv").read_text().startswith("patient,input,kind,value,effect on risk\n")
    about = json.loads((tmp_path / "out" / "survival_prediction.json").read_text())
    assert about["horizons_days"] == [100, 300]
    assert len(about["folds"][0]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(about)
    assert "no image" in capsys.readouterr().err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "explanation.csv", "predictions.csv", "survival_curves.csv", "survival_prediction.json",
    ]  # fmt: skip


def test_no_patient_id_is_run_as_a_formula(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text("id,age,sex,noise\n=cmd|' /C calc'!A0,40,f,0\n-1.5,50,f,0\n")
    assert run(folder, tmp_path / "out", "--clinical", table, "--explain") == 0
    for name in ("predictions.csv", "survival_curves.csv", "explanation.csv"):
        assert "\n=" not in (tmp_path / "out" / name).read_text()
        rows = read_csv(tmp_path / "out" / name, "").rows
        assert {row.cells[0] for row in rows} == {"=cmd|' /C calc'!A0", "-1.5"}


def test_the_order_of_rows_and_other_patients_change_nothing(folder: Path, tmp_path: Path) -> None:
    lines = ["a,40,f,0", "b,80,m,1", "c,,f,"]
    found = []
    for number, chosen in enumerate((lines, lines[::-1], lines[:1])):
        table = tmp_path / f"{number}.csv"
        table.write_text("\n".join(["id,age,sex,noise", *chosen]))
        assert run(folder, tmp_path / str(number), "--clinical", table) == 0
        text = (tmp_path / str(number) / "predictions.csv").read_text().splitlines()
        found.append({line.split(",")[0]: line for line in text})
    assert found[0] == found[1]
    assert found[2]["a"] == found[0]["a"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--clinical"),
        (("-i", "OUT"), "-o"),
        (("--clinical", "TABLE", "--fold", "7"), "fold_7/checkpoint_final.pth; finished folds: 0, 1"),
        (("--clinical", "TABLE", "--horizons", "99999"), "99999"),
        (("--clinical", "TABLE", "--explain", "--box", "0"), "--box is 0.0"),
        (("--clinical", "MISSING"), "missing.csv"),
        (("--clinical", "TABLE", "--device", "gpu"), "'gpu'"),
        (("--clinical", "TABLE", "--device", "cuda:99"), "'cuda:99'"),
        (("--clinical", "TABLE", "-o", "WITHIN"), "new.csv/o"),
    ],
)
def test_bad_calls_are_refused_and_leave_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    table, out = tmp_path / "new.csv", tmp_path / "out"
    table.write_text("id,age\na,40\n")
    known = {"OUT": str(out), "TABLE": str(table), "MISSING": str(tmp_path / "missing.csv"), "WITHIN": str(table / "o")}
    assert run(folder, out, *(known.get(word, word) for word in words)) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_importance_needs_trained_models_and_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sksurv")
    assert main(["survival", "evaluate", "62", "--importance"]) == 1
    assert "-m MODEL_FOLDER and -o FOLDER" in capsys.readouterr().err


def change_state(folder: Path, **changes: Any) -> None:
    file = folder / "fold_1" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    content["duplus_survival"] |= changes
    torch.save(content, file)


def test_folders_without_a_survival_model_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing"):
        read_trained_model(tmp_path / "nothing")
    change_state(folder, model=None)
    with pytest.raises(ModelError, match=r"fold_1.*--c"):
        read_trained_model(folder)
    change_state(folder, version=2)
    with pytest.raises(ModelError, match=r"version 1 .*version 2"):
        read_trained_model(folder)
    torch.save({"network_weights": {}}, folder / "fold_1" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match=r"fold_1.*segmentation model"):
        read_trained_model(folder)
    assert [fold.name for fold in read_trained_model(folder, ("0",)).folds] == ["0"]
    (folder / "plans.json").write_text("{}")
    with pytest.raises(ModelError, match="DuPLUS model"):
        read_trained_model(folder)


def test_folds_of_different_schemas_are_not_averaged(folder: Path, models: list[SurvivalModel]) -> None:
    other = replace(models[1], schema=SCHEMA.model_copy(update={"centre": "site"}))
    change_state(folder, model=other.to_plain())
    with pytest.raises(ModelError, match=r"Fold 1 .*clinical\.yaml.*fold 0"):
        read_trained_model(folder)
