"""Tables of other patients are read in the same way by `duplus survival predict` and `validate`."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet import cli
from duplus_nnunet.survival.models.baselines import COX_PENALTY
from duplus_nnunet.survival.models.records_model_files import read_records_model
from duplus_nnunet.survival.records.table import COMPETING as COMPETING_EVENTS
from duplus_nnunet.survival.records.table import LATE_ENTRY

from ..patient_tables import Row, draw_patients, write_rows

pytest.importorskip("sksurv")

SCHEMA = """\
patient: patient
endpoint: relapse
time: {column: days}
event: {column: event, seen: [1], censored: [0]}
covariates:
  age: {type: numeric}
  sex: {type: categorical}
horizons: [200, 400]
"""


def run(*words: object) -> None:
    assert cli.main(["survival", *map(str, words)]) == 0


def fit(folder: Path, rows: list[Row], schema: str = SCHEMA, method: str = "Cox") -> Path:
    write_rows(folder / "clinical.csv", rows)
    (folder / "clinical.yaml").write_text(schema)
    table = folder / "clinical.csv"
    run("fit", "--table", table, "--seeds", 0, "--method", method, "-o", folder / f"model {method}")
    return folder / f"model {method}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("fitted"), draw_patients(80, 0, "P"))


def predict(model: Path, table: Path, output: Path) -> list[dict[str, str]]:
    run("predict", "-m", model, "--clinical", table, "-o", output)
    with (output / "predictions.csv").open(newline="") as text:
        return list(csv.DictReader(text))


def validate(model: Path, table: Path, output: Path) -> tuple[list[dict[str, str]], Any]:
    run("validate", "-m", model, "--clinical", table, "-o", output, "--bootstrap", 0)
    with (output / "validation_predictions.csv").open(newline="") as text:
        return list(csv.DictReader(text)), json.loads((output / "validation.json").read_text())


def in_months(rows: list[Row]) -> list[Row]:
    return [{**row, "days": row["days"] / 30.4375} for row in rows]


def with_codes(rows: list[Row]) -> list[Row]:
    return [{**row, "event": "dead" if row["event"] else "alive"} for row in rows]


def with_markers(rows: list[Row]) -> list[Row]:
    return [{**row, "age": -1 if number % 4 == 0 else row["age"]} for number, row in enumerate(rows)]


def with_other_names(rows: list[Row]) -> list[Row]:
    return [{"MRN" if key == "patient" else key: cell for key, cell in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        (in_months, "time: {column: days}", "time: {column: days, unit: months}"),
        (with_codes, "seen: [1], censored: [0]", "seen: [dead], censored: [alive]"),
        (with_markers, "age: {type: numeric}", "age: {type: numeric, missing: [-1]}"),
        (with_other_names, "patient: patient", "patient: MRN"),
    ],
)
def test_prediction_and_validation_read_a_table_as_the_schema_beside_it_says(
    model: Path, change: Callable[[list[Row]], list[Row]], old: str, new: str, tmp_path: Path
) -> None:
    rows = draw_patients(30, 7, "Q")
    table = write_rows(tmp_path / "other.csv", change(rows))
    (tmp_path / "other.yaml").write_text(SCHEMA.replace(old, new))
    predicted = predict(model, table, tmp_path / "predicted")
    validated, _ = validate(model, table, tmp_path / "validated")
    assert [row["patient"] for row in predicted] == [row["patient"] for row in rows]
    for own, other, row in zip(predicted, validated, rows, strict=True):
        assert (own["risk"], own["event"]) == (other["risk"], other["event"])
        assert (float(own["time (days)"]), own["event"]) == (pytest.approx(row["days"], rel=1e-4), str(row["event"]))
    plain = predict(model, write_rows(tmp_path / "plain.csv", rows), tmp_path / "plain")
    same = [own["risk"] == other["risk"] for own, other in zip(predicted, plain, strict=True)]
    assert same == [change is not with_markers or number % 4 > 0 for number in range(30)]


def test_a_prediction_joins_the_tables_that_the_model_joined(tmp_path: Path) -> None:
    def split(rows: list[Row], folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        write_rows(folder / "lab.csv", [{"id": row["patient"], "age": row["age"]} for row in rows])
        return write_rows(folder / "clinical.csv", [{k: v for k, v in row.items() if k != "age"} for row in rows])

    split(draw_patients(80, 0, "P"), tmp_path)
    (tmp_path / "clinical.yaml").write_text(SCHEMA + "tables: {lab.csv: id}\n")
    run("fit", "--table", tmp_path / "clinical.csv", "--seeds", 0, "-o", tmp_path / "model")
    table = split(draw_patients(30, 7, "Q"), tmp_path / "new")
    predicted = predict(tmp_path / "model", table, tmp_path / "predicted")
    validated, _ = validate(tmp_path / "model", table, tmp_path / "validated")
    assert [row["risk"] for row in predicted] == [row["risk"] for row in validated]
    assert {row["record values missing"] for row in predicted} == {"0"}
    (tmp_path / "new" / "lab.csv").unlink()
    without = predict(tmp_path / "model", table, tmp_path / "without")
    assert {row["record values missing"] for row in without} == {"1"}
    notes = json.loads((tmp_path / "without" / "survival_prediction.json").read_text())["notes"]
    assert any("lab.csv" in note for note in notes)


def find_notes(content: Any, *words: str) -> list[str]:
    return [note for note in content["notes"] if all(word in note for word in words)]


def test_an_outcome_of_another_endpoint_is_named(model: Path, tmp_path: Path) -> None:
    rows = [{**row, "dead": 1 - row["event"]} for row in draw_patients(60, 7, "Q")]
    table = write_rows(tmp_path / "other.csv", rows)
    (tmp_path / "other.yaml").write_text(SCHEMA.replace("column: event", "column: dead").replace("relapse", "death"))
    _, content = validate(model, table, tmp_path / "validated")
    assert find_notes(content, "'relapse'", "'death'")
    assert content["endpoint"] == "relapse"
    assert "relapse" in (tmp_path / "validated" / "validation.md").read_text()
    assert "Endpoint: relapse" in (model / "model_card.md").read_text()
    predict(model, table, tmp_path / "predicted")
    assert json.loads((tmp_path / "predicted" / "survival_prediction.json").read_text())["endpoint"] == "relapse"
    for changed, told in (("column: event", True), ("column: dead", False)):
        name = "death" if told else "RELAPSE"
        (tmp_path / "other.yaml").write_text(SCHEMA.replace("column: event", changed).replace("relapse", name))
        assert bool(find_notes(validate(model, table, tmp_path / name)[1], "'relapse'")) is told
    (tmp_path / "other.yaml").write_text(SCHEMA.replace("endpoint: relapse\n", ""))
    assert not find_notes(validate(model, table, tmp_path / "unnamed")[1], "'relapse'")


COMPETING = SCHEMA.replace("censored: [0]", "censored: [0], competing: [2]")


def compete(rows: list[Row]) -> list[Row]:
    """Let the event of every third patient be a competing one."""
    return [{**row, "event": 2 if row["event"] and n % 3 == 0 else row["event"]} for n, row in enumerate(rows)]


def test_a_model_and_a_table_of_which_one_has_competing_events_are_told_apart(model: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "other.csv", compete(draw_patients(60, 7, "Q")))
    (tmp_path / "other.yaml").write_text(COMPETING)
    _, content = validate(model, table, tmp_path / "a")
    assert find_notes(content, "fitted without competing events")
    assert not find_notes(content, "Aalen-Johansen")
    (tmp_path / "own").mkdir()
    competing = fit(tmp_path / "own", compete(draw_patients(120, 0, "P")), COMPETING)
    _, content = validate(competing, table, tmp_path / "b")
    assert not find_notes(content, "no competing event is declared")
    (tmp_path / "other.yaml").write_text(SCHEMA.replace("censored: [0]", "censored: [0, 2]"))
    assert find_notes(validate(competing, table, tmp_path / "c")[1], "no competing event is declared")


def test_a_card_says_what_delayed_entry_and_competing_events_mean_once(tmp_path: Path) -> None:
    rows = enter_late(compete(draw_patients(120, 0, "P")))
    table = write_rows(tmp_path / "clinical.csv", rows)
    (tmp_path / "clinical.yaml").write_text(COMPETING + "entry: entry\n")
    run("fit", "--table", table, "--seeds", 1, "--folds", 2, "--method", "Cox", "-o", tmp_path / "model")
    card = (tmp_path / "model" / "model_card.md").read_text()
    assert card.count(LATE_ENTRY) == card.count(COMPETING_EVENTS) == 1
    assert card.count(COX_PENALTY) == 1


def test_follow_up_that_may_be_in_another_unit_is_named(model: Path, tmp_path: Path) -> None:
    weeks = [{**row, "days": row["days"] * 7} for row in draw_patients(60, 7, "Q")]
    table = write_rows(tmp_path / "other.csv", weeks)
    assert find_notes(validate(model, table, tmp_path / "a")[1], "another unit", "other.yaml")
    assert not find_notes(
        validate(model, write_rows(table, draw_patients(60, 7, "Q")), tmp_path / "b")[1], "another unit"
    )


def test_patients_of_a_recalibration_are_known_again(model: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "other.csv", draw_patients(60, 7, "Q"))
    out = tmp_path / "recalibrated"
    run("validate", "-m", model, "--clinical", table, "--recalibrate", "slope", "-o", out, "--bootstrap", 0)
    assert read_records_model(out).find_recalibrated(["Q003", "q003", "Q999"]) == ("Q003", "q003")
    again = [{**row, "patient": row["patient"].lower()} for row in draw_patients(60, 7, "Q")]
    again_table = write_rows(tmp_path / "again.csv", again)
    assert find_notes(validate(out, again_table, tmp_path / "v")[1], "recalibrated in 60 of the patients")
    predicted = predict(out, again_table, tmp_path / "p")
    assert all("recalibrated in a patient of this ID" in row["warnings"] for row in predicted)
    run("validate", "--predictions", tmp_path / "p", "-o", tmp_path / "vp", "--bootstrap", 0)
    content = json.loads((tmp_path / "vp" / "validation.json").read_text())
    assert find_notes(content, "recalibrated in 60 of the patients")
    assert not find_notes(
        validate(out, write_rows(table, draw_patients(60, 9, "R")), tmp_path / "w")[1], "of the patients"
    )


def test_patients_of_the_development_are_known_in_another_case(model: Path) -> None:
    development = read_records_model(model).development
    assert development.find_known(["P001", "p001", "P999"]) == ("P001", "p001")


def enter_late(rows: list[Row]) -> list[Row]:
    return [{**row, "entry": round(row["days"] * (0.5 if n % 2 else 0), 1)} for n, row in enumerate(rows)]


@pytest.mark.parametrize(("method", "supported"), [("Cox", True), ("ICARE", False), ("Coxnet", False)])
def test_delayed_entry_is_kept_by_predictions_and_named_where_it_is_ignored(
    method: str, supported: bool, tmp_path: Path
) -> None:
    late = fit(tmp_path, enter_late(draw_patients(80, 0, "P")), SCHEMA + "entry: entry\n", method)
    notes = read_records_model(late).notes
    assert [note for note in notes if "40 patient(s) with delayed entry" in note and "ICARE" in note]
    table = write_rows(tmp_path / "other.csv", enter_late(draw_patients(60, 7, "Q")))
    _, direct = validate(late, table, tmp_path / "v")
    assert bool(find_notes(direct, method, "does not take delayed entry")) is not supported
    assert "entry (days)" in predict(late, table, tmp_path / "p")[0]
    run("validate", "--predictions", tmp_path / "p", "-o", tmp_path / "vp", "--bootstrap", 0)
    content = json.loads((tmp_path / "vp" / "validation.json").read_text())
    assert not find_notes(content, "at risk from time 0")
    for name in ("Harrell's C", "O/E at 200.0 days"):
        assert content["scores"][name]["value"] == pytest.approx(direct["scores"][name]["value"], rel=0.01)


@pytest.mark.parametrize("cell", ["8.98846567431158e+307", "1.70141173319264e+38"])
@pytest.mark.parametrize("command", ["check", "validate", "predict"])
def test_the_missing_values_of_other_programs_are_no_measurements(
    cell: str, command: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = draw_patients(30, 7, "Q")
    table = write_rows(tmp_path / "other.csv", [{**rows[0], "age": cell}, *rows[1:]])
    (tmp_path / "other.yaml").write_text(SCHEMA)
    if command == "predict":
        first = predict(model, table, tmp_path / "p")[0]
        assert (first["record values missing"], "'age'" in first["warnings"]) == ("1", True)
        return
    words = {"check": ["--table", table], "validate": ["-m", model, "--clinical", table]}[command]
    assert cli.main(["survival", command, *map(str, words)]) == 1
    text = capsys.readouterr()
    assert "Row 1 (Q000): 'age'" in text.out + text.err
