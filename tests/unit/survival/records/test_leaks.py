"""A draft leaves out columns that encode the outcome, and no others."""

import random
from typing import Any

import pytest
import yaml

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.column_names import is_known_later
from duplus_nnunet.survival.records.decimal_marks import read_marks
from duplus_nnunet.survival.records.drafting import NamedColumns, draft
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Rows, read_records
from duplus_nnunet.survival.records.time_units import propose_unit

COUNT = 120


def make_patients(seed: int) -> list[dict[str, Any]]:
    """Make patients whose risk rises with age and the grade; `Death` is the outcome."""
    draw = random.Random(seed)
    patients = []
    for number in range(COUNT):
        age, grade = draw.randint(30, 85), draw.randint(1, 4)
        time = max(5, round(draw.expovariate(1 / 900) * (90 - age) / 20 * 2 / grade))
        end = draw.randint(300, 2500)
        patients.append(
            {"PatientID": f"HN-{number:03d}", "Time_Death": min(time, end), "Death": int(time <= end), "Age": age,
             "Sex": draw.choice("MF"), "Grade": grade, "Size": round(draw.uniform(5, 80), 1)}
        )  # fmt: skip
    return patients


def draft_table(patients: list[dict[str, Any]], **named: Any) -> dict[str, Any]:
    rows = Rows("t.csv", tuple(patients[0]), tuple({key: str(cell) for key, cell in line.items()} for line in patients))
    content: dict[str, Any] = yaml.safe_load(draft(rows, (), NamedColumns(**named)))
    assert read_records(rows, ClinicalSchema.model_validate(content))[0]
    return content


@pytest.mark.parametrize(
    "name",
    ["LR", "DM", "PFI", "TTP", "Locoregional", "Time_Locoregional", "Distant", "LR_status", "days_to_progression",
     "mets", "Recurrence", "cause"],
)  # fmt: skip
def test_events_of_other_endpoints_are_left_out_by_name(name: str) -> None:
    draw = random.Random(1)
    patients = [line | {name: draw.choice((0, 1))} for line in make_patients(1)]
    drafted = draft_table(patients, event="Death", time="Time_Death")
    assert name in drafted["ignored"]
    assert set(drafted["covariates"]) == {"Age", "Sex", "Grade", "Size"}


@pytest.mark.parametrize("kind", ["same time", "noisy time", "event", "inverted", "known if seen"])
def test_values_that_encode_the_outcome_are_left_out(kind: str) -> None:
    draw = random.Random(2)
    make = {
        "same time": lambda line: line["Time_Death"] if draw.random() < 0.6 else draw.randint(1, 900),
        "noisy time": lambda line: round(line["Time_Death"] * draw.uniform(0.8, 1.2)),
        "event": lambda line: line["Death"] if draw.random() < 0.97 else 1 - line["Death"],
        "inverted": lambda line: "ab"[1 - line["Death"]],
        "known if seen": lambda line: draw.choice("xyz") if line["Death"] else "",
    }[kind]
    patients = [line | {"marker": make(line)} for line in make_patients(2)]
    drafted = draft_table(patients, event="Death", time="Time_Death")
    assert "marker" in drafted["ignored"]
    assert set(drafted["covariates"]) == {"Age", "Sex", "Grade", "Size"}


@pytest.mark.parametrize("seed", range(12))
def test_no_column_of_a_clean_table_is_accused(seed: int) -> None:
    drafted = draft_table(make_patients(seed))
    assert set(drafted["covariates"]) == {"Age", "Sex", "Grade", "Size"}
    assert "ignored" not in drafted


@pytest.mark.parametrize(
    "name", ["HPV status", "Performance status", "age", "metastasis at diagnosis", "M-stage", "Prior_therapy", "los",
             "sample.yr", "Months_from_Diagnosis", "chf", "menostat", "progrec", "estrec"]
)  # fmt: skip
def test_names_of_baseline_columns_are_not_accused(name: str) -> None:
    assert not is_known_later(name, ["time", "event", name])


@pytest.mark.parametrize(
    ("header", "named", "expected"),
    [
        ("PatientID,Relapse,RFS,CenterID,Age", {}, ("PatientID", "RFS", "Relapse", "days")),
        ("age,horTh,time,cens", {"seen": ("1",), "censored": ("0",)}, ("row number", "time", "cens", "days")),
        ("age,bmi,lenfol,fstat", {}, ("row number", "lenfol", "fstat", "days")),
        ("week,arrest,fin,age", {"unit": "weeks"}, ("row number", "week", "arrest", "weeks")),
        ("inst,time,status,age", {}, ("row number", "time", "status", "days")),
    ],
)
def test_public_headers_are_drafted(header: str, named: dict[str, Any], expected: tuple[str, ...]) -> None:
    draw = random.Random(3)
    short = {"week": 52, "fin": 1, "horTh": 1, "CenterID": 4, "inst": 9}
    binary = ("Relapse", "cens", "fstat", "arrest", "status")
    patients = []
    for number in range(60):
        line: dict[str, Any] = {}
        for name in header.split(","):
            line[name] = draw.randint(0, 1) if name in binary else draw.randint(1, short.get(name, 90))
            if name in ("RFS", "time", "lenfol"):
                line[name] = draw.randint(10, 2500)
        patients.append(line | ({"PatientID": f"C{number}"} if "PatientID" in line else {}))
    drafted = draft_table(patients, **named)
    time = drafted["time"]
    assert (drafted["patient"], time["column"], drafted["event"]["column"], time["unit"]) == expected
    assert not set(drafted["covariates"]) & {"inst", "CenterID"}


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["63,5", "70", "NA"], ["63.5", "70", "NA"]),
        (["1.234,5", "2,25"], ["1234.5", "2.25"]),
        (["1,234.5", "12"], ["1234.5", "12"]),
        (["1 234", "12"], ["1234", "12"]),
        (["T1,5", "a"], ["T1,5", "a"]),
    ],
)
def test_marks_of_numbers_are_read_by_column(cells: list[str], read: list[str]) -> None:
    rows, notes = read_marks("t.csv", ["x"], [{"x": cell} for cell in cells])
    assert [row["x"] for row in rows] == read
    assert bool(notes) == (cells != read)


def test_a_comma_that_can_be_both_marks_is_refused() -> None:
    with pytest.raises(DataError, match="'1,234'"):
        read_marks("t.csv", ["x"], [{"x": "1,234"}, {"x": "2,345"}])


def test_units_are_proposed_and_doubt_is_said() -> None:
    assert propose_unit("RFS", [100.0, 2500.0] * 5)[0] == "days"
    assert propose_unit("time_months", [1.0, 60.0] * 5)[0] == "months"
    assert propose_unit("time", [0.1, 10.7] * 5)[0] is None
    assert propose_unit("months", [10.0, 2500.0] * 5)[0] is None


def test_rows_are_left_out_by_rule_and_times_have_a_second_column() -> None:
    rows = Rows("t.csv", ("id", "to_death", "last", "event"), tuple(
        dict(zip(("id", "to_death", "last", "event"), line, strict=True))
        for line in (("a", "5", "", "1"), ("b", "", "9", "0"), ("c", "0", "", "0"), ("d", "", "", "0"), ("e", "4", "", ""))  # noqa: E501
    ))  # fmt: skip
    schema = ClinicalSchema.model_validate(
        {"patient": "id", "time": {"column": "to_death", "otherwise": "last"},
         "event": {"column": "event", "seen": [1], "censored": [0]},
         "exclude": ["time missing", "time 0", "event missing"]}
    )  # fmt: skip
    records, findings = read_records(rows, schema)
    assert [(record.patient, record.time) for record in records] == [("a", 5.0), ("b", 9.0)]
    assert [finding.severity for finding in findings] == ["warning"] * 3


def test_spellings_of_a_centre_are_one() -> None:
    lines = (("a", "CHUS"), ("b", "Chus"), ("c", "CHUS"), ("d", "HMR"), ("e", "HMR."))
    rows = Rows("t.csv", ("id", "c", "t", "e"), tuple({"id": n, "c": c, "t": "5", "e": "1"} for n, c in lines))
    schema = ClinicalSchema.model_validate(
        {
            "patient": "id",
            "centre": "c",
            "time": {"column": "t"},
            "event": {"column": "e", "seen": [1], "censored": [0]},
        }
    )
    assert [record.centre for record in read_records(rows, schema)[0]] == ["CHUS"] * 3 + ["HMR"] * 2


def test_a_name_that_begins_with_an_event_is_not_taken_for_it() -> None:
    assert is_known_later("Localgd", ["Local", "Time_Local", "Localgd"])
    assert not is_known_later("Localisation", ["Local", "Time_Local", "Localisation"])
