"""`duplus survival fit`, `predict` and `validate` of saved models of clinical records."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.survival.command.fit import BEST
from duplus_nnunet.survival.evaluation.choosing import BEST as CHOSEN_BY
from duplus_nnunet.survival.evaluation.choosing import CANDIDATES
from duplus_nnunet.survival.models.patient_hashes import hash_patient
from duplus_nnunet.survival.models.records_model_files import MODEL_NAME, read_records_model
from duplus_nnunet.survival.records.schema import ROW_NUMBER
from duplus_nnunet.survival.records.table import read_rows
from duplus_nnunet.survival.records.validation_table import describe_overlap, read_validation_table

from ..patient_tables import Row, draw_patients, write_rows

pytest.importorskip("sksurv")

SCHEMA = """\
patient: patient
time: {column: days}
event: {column: event, seen: [1], censored: [0]}
covariates:
  age: {type: numeric}
  sex: {type: categorical}
horizons: [200, 400]
"""


def draw(file: Path, count: int, seed: int, prefix: str, faster: float = 1.0) -> list[Row]:
    """Write a table of patients; returns its rows."""
    rows = draw_patients(count, seed, prefix, faster)
    write_rows(file, rows)
    return rows


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_a_method_is_chosen_by_cross_validation_which_the_card_says(tmp_path: Path) -> None:
    draw(tmp_path / "clinical.csv", 60, 0, "p")
    (tmp_path / "clinical.yaml").write_text(SCHEMA)
    options = ["--table", str(tmp_path / "clinical.csv"), "--folds", "2", "--seeds", "1", "--method", BEST]
    assert cli.main(["survival", "fit", *options, "-o", str(tmp_path / "model")]) == 0
    model = read_records_model(tmp_path / "model")
    assert BEST == CHOSEN_BY
    assert model.method in CANDIDATES
    assert sum(name in model.notes[0] for name in CANDIDATES) == len(CANDIDATES)
    assert "cross-validated" in model.evidence["performance"]
    assert sum(name in model.evidence["measured_in"]["cross-validated"] for name in CANDIDATES) >= 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fit a Cox model to 80 patients, once for all tests."""
    folder = tmp_path_factory.mktemp("saved")
    draw(folder / "clinical.csv", 80, 0, "p")
    (folder / "clinical.yaml").write_text(SCHEMA)
    options = ["--table", str(folder / "clinical.csv"), "--folds", "3", "--seeds", "1"]
    assert cli.main(["survival", "fit", *options, "-o", str(folder / "model")]) == 0
    return folder


def predict(folder: Path, table: Path, output: Path) -> list[dict[str, str]]:
    options = ["-m", str(folder / "model"), "--clinical", str(table), "-o", str(output)]
    assert cli.main(["survival", "predict", *options]) == 0
    return read(output / "predictions.csv")


def test_a_model_that_a_column_of_the_outcome_carries_is_called_implausible(tmp_path: Path) -> None:
    rows = draw(tmp_path / "clinical.csv", 60, 0, "p")
    write_rows(tmp_path / "clinical.csv", [{**row, "age": round(float(str(row["days"])) / 7)} for row in rows])
    (tmp_path / "clinical.yaml").write_text(SCHEMA)
    options = ["--table", str(tmp_path / "clinical.csv"), "--folds", "2", "--seeds", "1", "-o", str(tmp_path / "model")]
    assert cli.main(["survival", "fit", *options]) == 0
    notes = json.loads((tmp_path / "model" / MODEL_NAME).read_text())["evidence"]["notes"]
    assert any("IMPLAUSIBLE" in note and "'age'" in note and "'sex'" not in note for note in notes)
    assert "IMPLAUSIBLE" in (tmp_path / "model" / "model_card.md").read_text()


def test_the_card_holds_what_a_prediction_is_computed_from(folder: Path) -> None:
    model, card = read_records_model(folder / "model"), (folder / "model" / "model_card.md").read_text()
    plain = json.loads((folder / "model" / MODEL_NAME).read_text())
    for coefficient in plain["predictor"]["coefficients"]:
        assert f"{coefficient:.6g}" in card
    baseline = model.predict_survival(np.zeros((1, 2)), np.array([200.0, 400.0]))[0]
    for survival in baseline:
        assert f"{survival:.6f}" in card
    performance = plain["evidence"]["performance"]
    assert set(performance) == {"apparent", "cross-validated"}
    assert set(performance["cross-validated"]) < set(performance["apparent"])
    assert [row[0] for row in plain["evidence"]["hazard_ratios"]["ratios"]] == ["age", "sex=m"]
    assert all(f"{row[2]:.3f}" in card for row in plain["evidence"]["hazard_ratios"]["ratios"])


def test_new_patients_are_predicted_without_outcomes(folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"patient": "a", "age": 75, "sex": "m"}, {"patient": "b", "age": 40, "sex": "F"}]
    write_rows(tmp_path / "new.csv", rows)
    old, young = predict(folder, tmp_path / "new.csv", tmp_path / "out")
    assert float(old["risk"]) > float(young["risk"])
    assert float(old["survival at 400 days"]) < float(young["survival at 400 days"])
    assert (old["risk group"], young["risk group"]) == ("high", "low")
    assert "event" not in old
    assert old["warnings"] == ""


def test_outcomes_are_copied_beside_the_predictions_where_they_are_given(folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"patient": "a", "age": 70, "sex": "m", "days": 300, "event": 1},
        {"patient": "b", "age": 50, "sex": "m", "days": "", "event": ""},
        {"patient": "c", "age": 50, "sex": "m", "days": 20, "event": 7},
    ]
    write_rows(tmp_path / "new.csv", rows)
    seen, unknown, unreadable = predict(folder, tmp_path / "new.csv", tmp_path / "out")
    assert (seen["time (days)"], seen["event"]) == ("300", "1")
    assert (unknown["time (days)"], unknown["event"], unknown["warnings"]) == ("", "", "")
    assert unreadable["event"] == ""
    assert "'7'" in unreadable["warnings"]


def test_values_unlike_those_of_training_are_warned_of(folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"patient": "p000", "age": 60, "sex": "m"},
        {"patient": "b", "age": 99, "sex": "x"},
        {"patient": "c", "age": "old", "sex": ""},
    ]
    write_rows(tmp_path / "new.csv", rows)
    known, outside, missing = (row["warnings"] for row in predict(folder, tmp_path / "new.csv", tmp_path / "out"))
    assert "ID" in known
    assert "'age' is 99" in outside
    assert "'sex' is 'x'" in outside
    assert "'age' is 'old'" in missing
    assert "'sex' is missing" in missing


def test_a_missing_column_is_warned_of_and_a_table_without_any_is_refused(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "new.csv", [{"patient": "a", "age": 70}])
    assert "'sex'" in predict(folder, tmp_path / "new.csv", tmp_path / "out")[0]["warnings"]
    write_rows(tmp_path / "other.csv", [{"patient": "a", "years": 70}])
    with pytest.raises(DataError, match="years"):
        predict_raising(folder, tmp_path / "other.csv", tmp_path / "none")


def predict_raising(folder: Path, table: Path, output: Path) -> None:
    from duplus_nnunet.survival.prediction.records_run import predict_records

    predict_records(folder / "model", table, output)


def test_a_column_in_another_unit_is_refused_by_row_and_column(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "new.csv", [{"patient": f"n{age}", "age": age * 12, "sex": "f"} for age in range(50, 56)])
    with pytest.raises(DataError, match=r"'age'.*row 1: 600"):
        predict_raising(folder, tmp_path / "new.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_horizons_beyond_the_follow_up_are_refused(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "new.csv", [{"patient": "a", "age": 70, "sex": "f"}])
    options = ["-m", str(folder / "model"), "--clinical", str(tmp_path / "new.csv"), "-o", str(tmp_path / "out")]
    assert cli.main(["survival", "predict", *options, "--horizons", "99999"]) == 1
    assert cli.main(["survival", "predict", *options, "-i", str(tmp_path)]) == 1


def test_a_validation_is_scored_and_warns_of_known_patients(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = draw(tmp_path / "other.csv", 60, 1, "q")
    write_rows(tmp_path / "other.csv", [*rows, dict(rows[0], patient="p001")])
    options = ["-m", str(folder / "model"), "--clinical", str(tmp_path / "other.csv"), "-o", str(tmp_path / "out")]
    assert cli.main(["survival", "validate", *options, "--bootstrap", "20", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "out" / "validation.json").read_text())
    assert shown["patients"] == 61
    assert shown["scores"]["Harrell's C"]["value"] > 0.6
    ratio = shown["scores"]["O/E at 400.0 days"]
    assert ratio["interval"][0] < ratio["value"] < ratio["interval"][1]
    assert any("p001" in note for note in shown["notes"])
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"kaplan_meier.png", "calibration.png", "decision_curves.png", "validation.md"} <= names
    assert len(read(tmp_path / "out" / "validation_predictions.csv")) == 61


def test_a_recalibrated_model_is_calibrated_in_these_patients_and_says_so(folder: Path, tmp_path: Path) -> None:
    draw(tmp_path / "other.csv", 80, 2, "q", faster=2.0)
    options = ["--clinical", str(tmp_path / "other.csv"), "--bootstrap", "0"]
    new = tmp_path / "new"
    first = ["survival", "validate", "-m", str(folder / "model"), *options, "--recalibrate", "large", "-o", str(new)]
    assert cli.main(first) == 0
    (change,) = read_records_model(new).recalibrations
    assert (change.kind, change.name, change.patients) == ("large", "other", 80)
    assert change.factor > 1.2
    card = (new / "model_card.md").read_text()
    assert f"{change.factor:.6g}" in card
    assert "80 patients" in card
    assert cli.main(["survival", "validate", "-m", str(new), *options, "-o", str(tmp_path / "again")]) == 0
    scores = json.loads((tmp_path / "again" / "validation.json").read_text())["scores"]
    assert scores["O/E at 400.0 days"]["value"] == pytest.approx(1, abs=1e-6)
    before = json.loads((new / "validation.json").read_text())["scores"]
    assert scores["Harrell's C"] == before["Harrell's C"]
    assert cli.main(first) == 1  # the folder holds a model


def test_recalibration_with_few_events_writes_nothing(folder: Path, tmp_path: Path) -> None:
    draw(tmp_path / "few.csv", 12, 3, "q")
    options = ["-m", str(folder / "model"), "--clinical", str(tmp_path / "few.csv"), "--recalibrate", "slope"]
    assert cli.main(["survival", "validate", *options, "-o", str(tmp_path / "new")]) == 1
    assert not (tmp_path / "new").exists()


def test_predictions_with_outcomes_are_validated_as_the_model_is(folder: Path, tmp_path: Path) -> None:
    rows = draw(tmp_path / "other.csv", 60, 4, "q")
    write_rows(tmp_path / "other.csv", [*rows, dict(rows[0], patient="later", days="", event="")])
    predict(folder, tmp_path / "other.csv", tmp_path / "predicted")
    write_rows(tmp_path / "known.csv", rows)
    one = ["-m", str(folder / "model"), "--clinical", str(tmp_path / "known.csv"), "-o", str(tmp_path / "a")]
    other = ["--predictions", str(tmp_path / "predicted"), "-o", str(tmp_path / "b")]
    for options in (one, other):
        assert cli.main(["survival", "validate", *options, "--bootstrap", "0"]) == 0
    first, second = (json.loads((tmp_path / name / "validation.json").read_text())["scores"] for name in "ab")
    for name, score in first.items():
        assert second[name]["value"] == pytest.approx(score["value"], abs=1e-2), name
    assert second["Harrell's C"]["value"] == pytest.approx(first["Harrell's C"]["value"], abs=1e-9)


def test_predictions_without_outcomes_are_refused(folder: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "new.csv", [{"patient": "a", "age": 70, "sex": "f"}])
    predict(folder, tmp_path / "new.csv", tmp_path / "predicted")
    assert cli.main(["survival", "validate", "--predictions", str(tmp_path / "predicted")]) == 1


def test_a_schema_beside_the_table_names_other_columns_and_codes(folder: Path, tmp_path: Path) -> None:
    model = read_records_model(folder / "model")
    rows: list[dict[str, object]] = [
        {"id": f"q{n}", "age": 50 + n, "months": 10 + n, "dead": "yn"[n % 2]} for n in range(8)
    ]
    write_rows(tmp_path / "other.csv", rows)
    (tmp_path / "other.yaml").write_text(
        "patient: id\ntime: {column: months, unit: months}\nevent: {column: dead, seen: [y], censored: [n]}\n"
    )
    table = read_validation_table(tmp_path / "other.csv", model.schema)
    assert [record.event for record in table.records[:2]] == ["seen", "censored"]
    assert table.records[0].time == pytest.approx(304.375)
    assert table.records[0].values == {"age": 50.0, "sex": None}
    assert any("'sex'" in note for note in table.notes)


def test_markers_of_covariates_in_a_schema_beside_the_table_are_read(folder: Path, tmp_path: Path) -> None:
    schema = read_records_model(folder / "model").schema
    rows = draw(tmp_path / "other.csv", 8, 5, "q")
    write_rows(tmp_path / "other.csv", [dict(row, age=888) if n % 2 else row for n, row in enumerate(rows)])
    form = SCHEMA.split("covariates:", maxsplit=1)[0]
    (tmp_path / "other.yaml").write_text(form + "covariates:\n  age: {type: categorical, missing: [888]}\n")
    table = read_validation_table(tmp_path / "other.csv", schema)
    assert [record.values["age"] for record in table.records][1::2] == [None] * 4
    assert None not in [record.values["age"] for record in table.records][::2]
    assert any("888 is read as missing" in note for note in table.notes)
    assert any("read as numeric, as in training" in note for note in table.notes)


def test_patients_are_known_with_other_zeros_before_their_number(folder: Path) -> None:
    development = replace(
        read_records_model(folder / "model").development, salt="s", hashes=frozenset({hash_patient("s", "0007")})
    )
    assert development.find_known(["7", "07", "7.0", "0007", "70", "P7", "0"]) == ("7", "07", "7.0", "0007")


def test_numbers_of_rows_identify_nobody(folder: Path) -> None:
    for columns in ((ROW_NUMBER, "patient"), ("patient", ROW_NUMBER)):
        note = describe_overlap(["1", "2"], 9, columns)
        assert note == describe_overlap([], 9, columns) != ""
    assert "2 of 9 patients" in describe_overlap(["1", "2"], 9, ("patient", "patient"))


def test_tables_that_a_schema_joins_are_joined_in_a_validation(folder: Path, tmp_path: Path) -> None:
    schema = read_records_model(folder / "model").schema
    rows = draw(tmp_path / "other.csv", 8, 5, "q")
    write_rows(tmp_path / "other.csv", [{key: cell for key, cell in row.items() if key != "sex"} for row in rows])
    write_rows(tmp_path / "more.csv", [{"id": row["patient"], "sex": row["sex"]} for row in rows])
    joining = schema.model_copy(update={"tables": {"more.csv": "id"}})
    for each in (joining, schema):  # the model's tables, and then those of a schema beside the table
        table = read_validation_table(tmp_path / "other.csv", each)
        assert [record.values["sex"] for record in table.records] == [row["sex"] for row in rows]
        (tmp_path / "other.yaml").write_text(SCHEMA + "tables: {more.csv: id}\n")
    (tmp_path / "other.yaml").unlink()
    (tmp_path / "more.csv").unlink()
    assert {record.values["sex"] for record in read_validation_table(tmp_path / "other.csv", joining).records} == {None}


def test_a_validation_takes_the_endpoint_of_the_model(folder: Path, tmp_path: Path) -> None:
    schema = read_records_model(folder / "model").schema.model_copy(update={"endpoint": "second"})
    rows = draw(tmp_path / "other.csv", 8, 5, "q")
    write_rows(tmp_path / "other.csv", [{**row, "late": 2 * float(str(row["days"]))} for row in rows])
    one = "{time: {column: %s}, event: {column: event, seen: [1], censored: [0]}}"
    form = SCHEMA.split("time:", maxsplit=1)[0] + f"endpoints:\n  first: {one % 'days'}\n  second: {one % 'late'}\n"
    (tmp_path / "other.yaml").write_text(form + "covariates:\n  age: {type: numeric}\n")
    table = read_validation_table(tmp_path / "other.csv", schema)
    assert [record.time for record in table.records] == [2 * float(str(row["days"])) for row in rows]


def test_rows_that_cannot_be_read_are_all_named(folder: Path, tmp_path: Path) -> None:
    model = read_records_model(folder / "model")
    rows = draw(tmp_path / "other.csv", 10, 5, "q")
    write_rows(tmp_path / "other.csv", [dict(rows[0], event=5), dict(rows[1], age="old"), *rows[2:]])
    with pytest.raises(DataError, match=r"(?s)Row 1 .*Row 2 "):
        read_validation_table(tmp_path / "other.csv", model.schema)
    assert len(read_rows(tmp_path / "other.csv").rows) == 10


def test_an_outcome_that_is_coded_otherwise_asks_for_a_schema_beside_the_table(folder: Path, tmp_path: Path) -> None:
    model = read_records_model(folder / "model")
    rows = draw(tmp_path / "other.csv", 10, 5, "q")
    write_rows(tmp_path / "other.csv", [dict(row, event=("alive", "dead")[int(str(row["event"]))]) for row in rows])
    with pytest.raises(
        DataError, match=r"other\.yaml, which `duplus survival draft --table .*other\.csv` drafts"
    ) as caught:
        read_validation_table(tmp_path / "other.csv", model.schema)
    assert len(str(caught.value).splitlines()) == 5  # one line for each code, and one for the hint


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=MODEL_NAME):
        read_records_model(tmp_path)
