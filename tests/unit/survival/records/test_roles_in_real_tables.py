"""Roles of columns in tables of hospitals: what is in doubt is asked, and nothing else is taken for it."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.checking import check
from duplus_nnunet.survival.records.column_names import is_known_later
from duplus_nnunet.survival.records.decimal_marks import read_marks
from duplus_nnunet.survival.records.drafting import NamedColumns, draft
from duplus_nnunet.survival.records.schema import ROW_NUMBER, ClinicalSchema
from duplus_nnunet.survival.records.table import Rows

COUNT = 48
Cell = Callable[[int, random.Random], object]
PATIENTS: dict[str, Cell] = {
    "patient_id": lambda n, draw: f"P{n:03d}",
    "age": lambda n, draw: draw.randint(40, 80),
    "os_days": lambda n, draw: 700 + 31 * n,
    "death": lambda n, draw: n % 2,
}


def make_table(without: tuple[str, ...] = (), count: int = COUNT, **more: Cell) -> Rows:
    draw = random.Random(0)
    columns = {name: make for name, make in PATIENTS.items() if name not in without} | more
    rows = [{name: str(make(number, draw)) for name, make in columns.items()} for number in range(count)]
    return Rows("t.csv", tuple(columns), tuple(rows))


def draft_table(rows: Rows, **named: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(draft(rows, (), NamedColumns(**named)))
    return content


def examine(rows: Rows, **named: Any) -> list[str]:
    report = check(rows, ClinicalSchema.model_validate(draft_table(rows, **named)), ())
    return [finding.text for finding in report.findings if finding.severity != "note"]


VITAL = ("died of disease", "alive with disease", "died of other cause", "alive without disease")


@pytest.mark.parametrize("marker", ["MSI_status", "KRAS status", "HIV_Status"])
def test_the_status_of_a_marker_is_no_event(marker: str) -> None:
    rows = make_table(
        ("death",), **{marker: lambda n, draw: draw.randint(0, 1), "vital_status": lambda n, _: VITAL[n % 4]}
    )
    with pytest.raises(DataError, match="vital_status") as raised:
        draft_table(rows)
    assert "--seen CODE" in str(raised.value)
    drafted = draft_table(rows, seen=VITAL[::2], censored=VITAL[1::2])
    assert drafted["event"]["column"] == "vital_status"
    assert marker in drafted["covariates"]


@pytest.mark.parametrize(
    "name",
    ["status", "Status", "vital_status", "OS_STATUS", "patient_status", "status_at_last_followup", "disease status"],
)
def test_a_status_of_the_patient_is_an_event(name: str) -> None:
    rows = make_table(("death",), **{name: PATIENTS["death"]})
    assert draft_table(rows)["event"] == {"column": name, "seen": [1], "censored": [0]}


@pytest.mark.parametrize(
    "name", ["pack_years", "smoking_years", "symptom_duration", "hospital_stay_days", "education_years"]
)
def test_a_duration_before_treatment_is_no_follow_up(name: str) -> None:
    rows = make_table(
        ("os_days",),
        **{name: lambda n, draw: draw.randint(0, 40)},
        diagnosis_date=lambda n, draw: f"{1 + n % 28:02d}.03.2015",
        last_contact_date=lambda n, draw: f"{1 + n % 28:02d}.09.20{17 + n % 3}",
    )
    with pytest.raises(DataError, match="--time") as raised:
        draft_table(rows)
    assert "'diagnosis_date', 'last_contact_date' have dates" in str(raised.value)
    assert draft_table(make_table(**{name: lambda n, draw: draw.randint(0, 40)}))["time"]["column"] == "os_days"


@pytest.mark.parametrize("name", ["patient_id", "PatID", "Subject", "MRN"])
def test_patients_with_several_rows_are_refused(name: str) -> None:
    longitudinal = make_table(("patient_id",), **{name: lambda n, draw: f"P{n // 3:03d}"})
    twice = make_table(("patient_id",), **{name: lambda n, draw: f"P{max(n, 1):03d}"})
    for rows, found in ((longitudinal, "'P000' \\(3 rows\\)"), (twice, "'P001' \\(2 rows\\)")):
        with pytest.raises(DataError, match=found):
            draft_table(rows)
        assert draft_table(rows, patient=ROW_NUMBER)["patient"] == ROW_NUMBER


def test_an_id_of_each_row_does_not_hide_patients_with_several() -> None:
    rows = make_table(("patient_id",), record_id=lambda n, draw: 1000 + n, patient_id=lambda n, draw: f"P{n // 2:03d}")
    with pytest.raises(DataError, match="'patient_id'"):
        draft_table(rows)
    assert draft_table(rows, patient="record_id")["patient"] == "record_id"
    rows = make_table(patient_group=lambda n, draw: f"G{n // 2}", patient_zip_code=lambda n, draw: 8000 + n // 2)
    assert draft_table(rows)["patient"] == "patient_id"


def test_a_code_of_few_values_is_no_repeated_patient() -> None:
    rows = make_table(("patient_id",), case=lambda n, draw: draw.randint(0, 1), hospital_id=lambda n, draw: n % 9)
    assert draft_table(rows)["patient"] == ROW_NUMBER


def test_measurements_of_patients_are_no_ids() -> None:
    rows = make_table(
        ("patient_id", "age"), PatID=lambda n, draw: f"{n:04d}", patient_age=lambda n, draw: 40.25 + 37 * n % 48
    )
    drafted = draft_table(rows)
    assert (drafted["patient"], [*drafted["covariates"]]) == ("PatID", ["patient_age"])
    rows = make_table(("patient_id", "age"), patient_age=lambda n, draw: 30 + n)
    assert draft_table(rows)["patient"] == ROW_NUMBER


def test_times_in_two_units_are_refused() -> None:
    dead: Cell = lambda n, draw: 700 + 31 * n if n % 2 else ""  # noqa: E731
    alive: Cell = lambda n, draw: "" if n % 2 else 20 + n  # noqa: E731
    rows = make_table(("os_days",), days_to_death=dead, followup_months=alive)
    with pytest.raises(DataError, match=r"followup_months.* says months, but the time is in days"):
        draft_table(rows)
    rows = make_table(("os_days",), days_to_death=dead, days_to_last_followup=alive)
    assert draft_table(rows)["time"]["otherwise"] == "days_to_last_followup"
    with pytest.raises(DataError, match=r"entry_months.* says months, but the time is in days"):
        draft_table(make_table(entry_months=lambda n, draw: 1 + n / 10))
    assert draft_table(make_table(entry_days=lambda n, draw: 1 + n))["entry"] == "entry_days"


@pytest.mark.parametrize("name", ["survival_hours", "followup_hrs", "survival time (minutes)"])
def test_a_time_in_hours_is_asked_for(name: str) -> None:
    with pytest.raises(DataError, match="no unit of a schema"):
        draft_table(make_table(("os_days",), **{name: PATIENTS["os_days"]}))


@pytest.mark.parametrize(("cells", "read"), [(("980", "1.132,8", "1.372"), ("980", "1132.8", "1372"))])
def test_points_beside_decimal_commas_are_thousands(cells: tuple[str, ...], read: tuple[str, ...]) -> None:
    rows, notes = read_marks("t.csv", ("ldh",), [{"ldh": cell} for cell in cells])
    assert tuple(row["ldh"] for row in rows) == read
    assert "decimal comma" in notes[0]


def test_points_that_may_be_thousands_are_refused_in_a_table_with_decimal_commas() -> None:
    crp = ("10,5", "3,2", "7,25")
    for ldh in (("980", "1.132", "1.450"), ("980,5", "1.132", "870,25"), ("980,5", "1.132", "12.5")):
        rows = [{"crp": a, "ldh": b} for a, b in zip(crp, ldh, strict=True)]
        with pytest.raises(DataError, match=r"'ldh'.*'1\.132'"):
            read_marks("t.csv", ("crp", "ldh"), rows)
    for ldh in (("0.132", "1.132", "1.45"), ("980", "870", "650")):
        rows = [{"crp": a, "ldh": b} for a, b in zip(crp, ldh, strict=True)]
        assert tuple(row["ldh"] for row in read_marks("t.csv", ("crp", "ldh"), rows)[0]) == ldh
    plain = [{"ldh": cell} for cell in ("1.132", "980", "2.500")]
    assert read_marks("t.csv", ("ldh",), plain) == (tuple(plain), ())


LATER = (
    "new_tumor_event_after_initial_treatment", "response_to_initial_therapy", "initial_response", "toxicity_grade",
    "max toxicity grade", "acute_GVHD_grade", "stage at recurrence", "Age at last contact", "Last visit year",
    "Date last seen", "Age at FU", "person_neoplasm_cancer_status", "tumor_status", "second_line_therapy",
    "number of cycles received", "tumor regression grade", "RECIST", "autopsy", "discharge_disposition",
    "treatment_duration", "Best overall response",
)  # fmt: skip
BEFORE = (
    "age_at_diagnosis", "Metastasis stage", "prior relapse", "tumor grade", "response to prior therapy",
    "history of toxicity", "first_degree_relatives", "tumor_size", "lastname", "cycles_planned", "stage",
    "clinical M stage",
)  # fmt: skip


@pytest.mark.parametrize("name", LATER)
def test_what_is_known_later_is_recognised(name: str) -> None:
    assert is_known_later(name)


@pytest.mark.parametrize("name", BEFORE)
def test_what_is_known_before_treatment_is_not_accused(name: str) -> None:
    assert not is_known_later(name)


def draft_codes(codes: tuple[str, ...], name: str = "death", **named: Any) -> Any:
    return draft_table(make_table(("death",), **{name: lambda n, draw: codes[n % len(codes)]}), event=name, **named)[
        "event"
    ]


def test_spellings_of_yes_and_living_states_are_no_competing_events() -> None:
    assert draft_codes(("Yes", "No", "Y", "n")) == {"column": "death", "seen": ["y", "yes"], "censored": ["n", "no"]}
    assert draft_codes(("ja", "nein")) == {"column": "death", "seen": ["ja"], "censored": ["nein"]}
    for living in ("alive with disease", "lost to follow-up", "withdrawn"):
        assert draft_codes(("dead", "alive", living))["censored"] == sorted(("alive", living))
    assert draft_codes(("dead", "alive", "dead of other causes"))["competing"] == ["dead of other causes"]
    with pytest.raises(DataError, match="unclear"):
        draft_codes(("dead", "alive", "moved abroad"))
    assert draft_codes(("dead", "alive", "moved"), seen=("dead",), censored=("alive", "moved"))["seen"] == ["dead"]


@pytest.mark.parametrize(
    ("name", "codes"),
    [("death", ("1", "2")), ("relapse", ("1", "2")), ("survival_status", ("0", "1")), ("Survival", ("0", "1"))],
)
def test_codes_that_may_be_inverted_are_asked_for(name: str, codes: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="--seen CODE"):
        draft_codes(codes, name)
    assert draft_codes(codes, name, seen=codes[:1], censored=codes[1:])["seen"] == [int(codes[0])]


@pytest.mark.parametrize(("name", "found"), [("death", False), ("Relapse", False), ("died", False), ("status", True)])
def test_a_column_of_one_and_two_that_is_named_like_an_event_is_found(name: str, found: bool) -> None:
    table = make_table(("death",), **{name: lambda n, draw: 1 + n % 2})
    if found:
        assert draft_table(table)["event"] == {"column": name, "seen": [2], "censored": [1]}
    else:
        with pytest.raises(DataError, match="--seen CODE"):
            draft_table(table)


@pytest.mark.parametrize("name", ["sex", "nodal_status", "performance status", "msi_status", "grade"])
def test_a_column_of_one_and_two_that_is_no_event_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(DataError, match="--event COLUMN"):
        draft_table(make_table(("death",), **{name: lambda n, draw: 1 + n % 2}))


@pytest.mark.parametrize(("share", "marker"), [(5, "k.A."), (3, "not done"), (4, "-")])
def test_words_among_many_numbers_mean_missing(share: int, marker: str) -> None:
    rows = make_table(LDH=lambda n, draw: marker if n % share == 0 else draw.randint(150, 900))
    assert draft_table(rows)["covariates"]["LDH"] == {"type": "numeric", "missing": [marker]}


@pytest.mark.parametrize("codes", [("1", "2", "3", "X"), ("T1a", "T1b", "T2"), ("<50", "61", "72 kg")])
def test_codes_and_marked_numbers_stay_categories(codes: tuple[str, ...]) -> None:
    rows = make_table(stage=lambda n, draw: draw.choice(codes))
    assert draft_table(rows)["covariates"]["stage"]["type"] == "categorical"


def test_numbers_as_categories_are_warned_of() -> None:
    rows = make_table(LDH=lambda n, draw: "k.A." if draw.random() < 0.3 else draw.randint(150, 900))
    schema = draft_table(rows)
    schema["covariates"]["LDH"] = {"type": "categorical"}
    texts = [finding.text for finding in check(rows, ClinicalSchema.model_validate(schema), ()).findings]
    assert any("'LDH' is categorical" in text and "'k.A.'" in text for text in texts)


def test_a_status_of_one_and_two_is_that_of_r() -> None:
    assert draft_codes(("1", "2"), "status") == {"column": "status", "seen": [2], "censored": [1]}


@pytest.mark.parametrize(
    "name", ["hospital_stay_days", "hospitalised_before", "hospital admissions", "Institutionalized"]
)
def test_what_happened_in_a_hospital_is_no_centre(name: str) -> None:
    rows = make_table(**{name: lambda n, draw: n % 4, "hospital": lambda n, draw: "AB"[n % 2]})
    assert draft_table(rows)["centre"] == "hospital"
    assert "centre" not in draft_table(make_table(**{name: lambda n, draw: n % 4}))


@pytest.mark.parametrize(
    "name", ["centre", "Center", "CenterID", "hospital_id", "Centre number", "Institution", "inst", "Institute"]
)
def test_names_of_centres_are_recognised(name: str) -> None:
    assert draft_table(make_table(**{name: lambda n, draw: "AB"[n % 2]}))["centre"] == name
    assert "centre" not in draft_table(make_table(**{name: lambda n, draw: 70000 + 13 * n}))


def test_living_states_that_name_an_event_are_asked_for() -> None:
    codes = ("alive with relapse", "alive without relapse", "dead")
    with pytest.raises(DataError, match="unclear"):
        draft_codes(codes, "relapse_status")
    answered = draft_codes(codes, "relapse_status", seen=codes[:1], censored=codes[1:2])
    assert answered == {"column": "relapse_status", "seen": [codes[0]], "censored": [codes[1]], "competing": ["dead"]}


def test_numbers_with_signs_and_units_are_warned_of() -> None:
    rows = make_table(
        psa=lambda n, draw: "<1.0" if n % 4 == 0 else f"{draw.random() * 9:.1f}",
        weight=lambda n, draw: f"{draw.randint(50, 99)} kg",
        ki67=lambda n, draw: f"{5 * draw.randint(1, 9)}%",
        stage=lambda n, draw: ("IIA", "IIB", "2a", "2b", "3a", "3b")[n % 6],
    )
    texts = [text for text in examine(rows) if "sign or a unit" in text]
    assert [text.split("'")[1] for text in texts] == ["psa", "weight", "ki67"]


@pytest.mark.parametrize("cell", ["#N/A", "<NA>", "not reported", "[Not Available]", "Not available"])
def test_markers_of_other_programs_are_missing(cell: str) -> None:
    rows = make_table(hpv=lambda n, draw: (cell, "pos", "neg")[n % 3])
    schema = ClinicalSchema.model_validate(draft_table(rows))
    assert {record.values["hpv"] for record in check(rows, schema, ()).records} == {None, "pos", "neg"}


@pytest.mark.parametrize(
    ("code", "values"), [(-1, (11, 12, 13)), (9, (0, 1, 2)), (9, (1, 2, 3)), (99, (0, 1, 4)), (98, (0, 2, 4))]
)
def test_codes_of_missing_values_are_warned_of(code: int, values: tuple[int, ...]) -> None:
    rows = make_table(item=lambda n, draw: draw.choice((*values, code)))
    assert any(f"`missing: [{code}]`" in text for text in examine(rows))
    rows = make_table(item=lambda n, draw: draw.choice((*values, max(values) + 1)))
    assert not any("`missing: [" in text for text in examine(rows))


def test_a_row_that_sums_up_is_refused() -> None:
    rows = make_table(patient_id=lambda n, draw: "Mean" if n == COUNT - 1 else f"P{n:03d}")
    assert any("'Mean'" in text and "Remove the row" in text for text in examine(rows))
