"""Tables as hospitals and challenges have them are drafted without an edit, or with the one question that is right."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.checking import check
from duplus_nnunet.survival.records.drafting import NamedColumns, draft
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Rows, read_records, read_rows

COUNT = 48
Cell = Callable[[int, random.Random], object]
OUTCOME: dict[str, Cell] = {
    "Relapse": lambda n, draw: n % 2,
    "RFS": lambda n, draw: draw.randint(60, 2500),
}
HECKTOR_2022 = (
    "PatientID", "Task 1", "Task 2", "CenterID", "Gender", "Age", "Weight", "Tobacco", "Alcohol", "Performance status",
    "HPV status (0=-, 1=+)", "Surgery", "Chemotherapy",
)  # fmt: skip
HECKTOR_2025 = (
    "PatientID", "CenterID", "Age", "Gender", "Tobacco Consumption", "Alcohol Consumption", "Performance Status",
    "Treatment", "M-stage", "Relapse", "RFS",
)  # fmt: skip
CHALLENGE: dict[str, Cell] = OUTCOME | {
    "PatientID": lambda n, draw: f"CHUM-{n:03d}",
    "Task 1": lambda n, draw: 1,
    "Task 2": lambda n, draw: int(n < COUNT - 5),
    "CenterID": lambda n, draw: 1 + n % 3,
    "Age": lambda n, draw: draw.randint(40, 80),
    "Weight": lambda n, draw: draw.randint(50, 100),
    "Gender": lambda n, draw: draw.choice("MF"),
    "Performance status": lambda n, draw: draw.choice(("", 0, 1, 2)),
    "M-stage": lambda n, draw: draw.choice(("M0", "Mx")),
}


def make_table(columns: dict[str, Cell], count: int = COUNT) -> Rows:
    draw = random.Random(0)
    rows = [{name: str(make(number, draw)) for name, make in columns.items()} for number in range(count)]
    return Rows("t.csv", tuple(columns), tuple(rows))


def fill(names: Sequence[str]) -> dict[str, Cell]:
    return {name: CHALLENGE.get(name, lambda n, draw: draw.choice((0, 1, ""))) for name in names}


def draft_table(rows: Rows, **named: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(draft(rows, (), NamedColumns(**named)))
    assert check(rows, ClinicalSchema.model_validate(content), ()).is_usable
    return content


def write(file: Path, rows: Rows, delimiter: str = ",") -> Path:
    lines = [
        [f'"{name}"' if "," in name else name for name in rows.columns],
        *([row[name] for name in rows.columns] for row in rows.rows),
    ]
    file.write_text("\n".join(delimiter.join(line) for line in lines))
    return file


def test_the_two_tables_of_hecktor_2022_are_joined_and_drafted(tmp_path: Path) -> None:
    clinical = write(tmp_path / "clinical.csv", make_table(fill(HECKTOR_2022)))
    endpoint = write(tmp_path / "endpoint.csv", make_table(fill(("PatientID", "Relapse", "RFS")), COUNT - 5))
    assert cli.main(["survival", "draft", "--table", str(clinical), "--join", str(endpoint)]) == 0
    drafted = yaml.safe_load(clinical.with_suffix(".yaml").read_text())
    assert (drafted["patient"], drafted["centre"]) == ("PatientID", "CenterID")
    assert drafted["time"] == {"column": "RFS", "unit": "days"}
    assert drafted["event"] == {"column": "Relapse", "seen": [1], "censored": [0]}
    assert set(drafted["ignored"]) == {"Task 1", "Task 2"}
    assert set(drafted["covariates"]) == {*HECKTOR_2022[4:]}
    assert cli.main(["survival", "check", "--table", str(clinical)]) == 0


def test_a_table_becomes_a_report_without_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sksurv")
    from duplus_nnunet.survival.evaluation import study

    monkeypatch.setattr(study, "METHODS", {name: study.METHODS[name] for name in ("Cox", "Kaplan-Meier")})
    table = write(tmp_path / "hecktor.csv", make_table(fill(HECKTOR_2025)))
    words = ["--table", str(table)]
    assert cli.main(["survival", "draft", *words]) == 0
    output = tmp_path / "report"
    assert cli.main(["survival", "evaluate", *words, "--folds", "2", "--seeds", "1", "-o", str(output)]) == 0
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["endpoint"] == {
        "name": None,
        "time": ["RFS"],
        "event": {"column": "Relapse", "seen": [1], "censored": [0], "competing": []},
    }
    assert metrics["scored"] == {"patients": COUNT, "events": COUNT // 2}
    assert (output / "predictions.csv").is_file()


def test_the_table_of_hecktor_2025_is_drafted() -> None:
    drafted = draft_table(make_table(fill(HECKTOR_2025)))
    assert (drafted["patient"], drafted["centre"], drafted["time"]["column"]) == ("PatientID", "CenterID", "RFS")
    assert set(drafted["covariates"]) == {*HECKTOR_2025[2:9]}


def test_an_identifier_may_have_any_name() -> None:
    drafted = draft_table(make_table({"Tumor": lambda n, draw: f"STS_{n:03d}", "Age": CHALLENGE["Age"], **OUTCOME}))
    assert drafted["patient"] == "Tumor"
    assert set(drafted["covariates"]) == {"Age"}


def test_the_index_of_pandas_is_no_covariate(tmp_path: Path) -> None:
    columns = {"": lambda n, draw: n, "Age": CHALLENGE["Age"], **OUTCOME}
    rows = read_rows(write(tmp_path / "t.csv", make_table(columns)))
    drafted = draft_table(rows)
    assert drafted["patient"] == "Unnamed: 0"
    drafted = draft_table(
        read_rows(write(tmp_path / "u.csv", make_table({**columns, "PatientID": CHALLENGE["PatientID"]})))
    )
    assert drafted["patient"] == "PatientID"
    assert set(drafted["covariates"]) == {"Age"}


def test_a_code_of_institutions_is_a_centre() -> None:
    drafted = draft_table(
        make_table({"inst": lambda n, draw: draw.choice((1, 3, 11, "")), "age": CHALLENGE["Age"], **OUTCOME})
    )
    assert drafted["centre"] == "inst"
    assert set(drafted["covariates"]) == {"age"}


def test_an_event_of_three_codes_is_asked_for() -> None:
    rows = make_table({"age": CHALLENGE["Age"], "status": lambda n, draw: n % 3, "time": OUTCOME["RFS"]})
    with pytest.raises(DataError, match=r"'0', '1', '2'.*--seen"):
        draft(rows, (), NamedColumns())
    drafted = draft_table(rows, seen=("1",), censored=("0",))
    assert drafted["event"] == {"column": "status", "seen": [1], "censored": [0], "competing": [2]}


def test_a_time_that_is_half_empty_is_not_the_time_of_follow_up() -> None:
    columns = {
        "id": CHALLENGE["PatientID"],
        "Time to Death (days)": lambda n, draw: draw.randint(60, 2500) if n % 2 else "",
        "Follow-up (days)": OUTCOME["RFS"],
        "Death": lambda n, draw: n % 2,
        "Age": CHALLENGE["Age"],
    }
    drafted = draft_table(make_table(columns))
    assert drafted["time"] == {"column": "Follow-up (days)", "unit": "days"}
    assert set(drafted["ignored"]) == {"Time to Death (days)"}


def test_a_time_that_is_empty_without_the_event_is_filled_by_the_last_contact() -> None:
    columns = {
        "id": CHALLENGE["PatientID"],
        "days_to_death": lambda n, draw: draw.randint(60, 2500) if n % 2 else "",
        "days_to_last_followup": lambda n, draw: "" if n % 2 else draw.randint(60, 2500),
        "vital_status": lambda n, draw: ("alive", "dead")[n % 2],
        "Age": CHALLENGE["Age"],
    }
    drafted = draft_table(make_table(columns))
    assert drafted["time"]["column"] == "days_to_death"
    assert drafted["time"]["otherwise"] == "days_to_last_followup"


def test_rows_without_a_time_are_left_out_and_named() -> None:
    columns = {**OUTCOME, "id": CHALLENGE["PatientID"], "Age": CHALLENGE["Age"]}
    columns["RFS"] = lambda n, draw: (0, "", 700)[min(n, 2)] if n < 3 else draw.randint(60, 2500)
    rows = make_table(columns)
    drafted = draft_table(rows)
    assert drafted["exclude"] == ["time missing", "time 0"]
    report = check(rows, ClinicalSchema.model_validate(drafted), ())
    assert len(report.records) == COUNT - 2
    named = [finding.text for finding in report.findings if finding.severity == "warning"]
    assert any("CHUM-000" in text for text in named)
    assert any("CHUM-001" in text for text in named)


def test_the_last_contact_fills_in_an_empty_date() -> None:
    schema = ClinicalSchema.model_validate(
        {"patient": "id", "time": {"start": "from", "end": "death", "otherwise": "seen", "format": "%d.%m.%Y"},
         "event": {"column": "event", "seen": [1], "censored": [0]}}
    )  # fmt: skip
    lines = (("a", "01.03.2020", "01.03.2021", "", "1"), ("b", "01.03.2020", "", "31.03.2020", "0"),
             ("c", "01.03.2020", "", "", "0"))  # fmt: skip
    names = ("id", "from", "death", "seen", "event")
    rows = Rows("t.csv", names, tuple(dict(zip(names, line, strict=True)) for line in lines))
    records, findings = read_records(rows, schema)
    assert [record.time for record in records] == [365.0, 30.0]
    assert "Row 3 (c)" in findings[0].text


def test_decimal_commas_are_numbers(tmp_path: Path) -> None:
    columns = {"id": CHALLENGE["PatientID"], "Size": lambda n, draw: f"{draw.randint(10, 90)},{draw.randint(1, 9)}"}
    rows = read_rows(write(tmp_path / "t.csv", make_table({**columns, **OUTCOME}), ";"))
    drafted = draft_table(rows)
    assert drafted["covariates"] == {"Size": {"type": "numeric"}}
    assert any("'Size'" in note for note in rows.notes)


@pytest.mark.parametrize(
    "form", ["2015-03-{:02d}", "{:02d}.03.2015", "{:02d}/03/15", "{:02d} Mar 2015", "201503{:02d}"]
)
def test_dates_are_no_covariates(form: str) -> None:
    columns = {"id": CHALLENGE["PatientID"], "visit": lambda n, draw: form.format(draw.randint(10, 28))}
    drafted = draft_table(make_table({**columns, "Age": CHALLENGE["Age"], **OUTCOME}))
    assert set(drafted["ignored"]) == {"visit"}


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("tumor: lesions", "12", "numeric"),
        ("tumor: largest distance (mm)", ("0.0", "71.7"), "numeric"),
        ("sex", "12", "categorical"),
        ("stage", ("1.0", "2.0"), "categorical"),
        ("lymph nodes", ("yes", "no"), "categorical"),
    ],
)
def test_two_numbers_are_a_code_unless_they_are_measures_or_counts(name: str, values: Sequence[str], kind: str) -> None:
    columns = {"id": CHALLENGE["PatientID"], name: lambda n, draw: values[draw.randint(0, 1)]}
    assert draft_table(make_table({**columns, **OUTCOME}))["covariates"][name]["type"] == kind


def test_dates_that_are_read_as_numbers_are_warned_of() -> None:
    columns = {"id": CHALLENGE["PatientID"], "visit": lambda n, draw: f"201503{draw.randint(10, 28)}"}
    rows = make_table({**columns, "Age": CHALLENGE["Age"], **OUTCOME})
    schema = draft_table(rows) | {"ignored": {}}
    schema["covariates"] |= {"visit": {"type": "numeric"}}
    findings = check(rows, ClinicalSchema.model_validate(schema), ()).findings
    assert any("'visit' has dates" in finding.text for finding in findings if finding.severity == "warning")
    assert not any("'Age' has dates" in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("column", "cell", "part"),
    [("Age", "640", "0 to 120"), ("RFS", "999999", "60 years"), ("Size", "-99", "missing: [-99]")],
)
def test_values_that_are_hardly_possible_are_warned_of(column: str, cell: str, part: str) -> None:
    columns = {"id": CHALLENGE["PatientID"], "Age": CHALLENGE["Age"], "Size": lambda n, draw: draw.randint(3, 9)}
    changed = {**columns, **OUTCOME}
    usual = changed[column]
    changed[column] = lambda n, draw: cell if n == 7 else usual(n, draw)
    rows = make_table(changed)
    report = check(rows, ClinicalSchema.model_validate(draft_table(rows)), ())
    texts = [finding.text for finding in report.findings if finding.severity == "warning"]
    assert any("CHUM-007" in text or repr(column) in text for text in texts if part in text)


def test_spellings_of_a_centre_are_compared() -> None:
    columns = {
        "id": CHALLENGE["PatientID"],
        "hospital": lambda n, draw: ("Montreal", "Montréal", "CHUS", "Chus")[n % 4],
    }
    rows = make_table({**columns, "Age": CHALLENGE["Age"], **OUTCOME})
    report = check(rows, ClinicalSchema.model_validate(draft_table(rows)), ())
    assert set(report.centres) == {"Montreal", "Montréal", "CHUS"}
    assert any("'Montreal' and 'Montréal'" in finding.text for finding in report.findings)
