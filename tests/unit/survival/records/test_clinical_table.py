"""clinical.csv and clinical.yaml are read strictly, and nothing is dropped silently."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.checking import TableReport, check
from duplus_nnunet.survival.records.schema import DAYS, MISSING, ClinicalSchema, normalise_cell, read_schema
from duplus_nnunet.survival.records.table import CENSORED, LATE_ENTRY, SEEN, Rows, read_records, read_rows

FORM: dict[str, Any] = {
    "patient": "id",
    "time": {"column": "months", "unit": "months"},
    "event": {"column": "event", "seen": [1], "censored": [0]},
    "covariates": {
        "age": {"type": "numeric"},
        "sex": {"type": "categorical"},
        "grade": {"type": "ordinal", "order": ["low", "high"], "missing": ["x"]},
    },
}
HEADER = ("id", "months", "event", "age", "sex", "grade")


def make_rows(*lines: tuple[Any, ...], header: tuple[str, ...] = HEADER) -> Rows:
    return Rows("clinical.csv", header, tuple(dict(zip(header, map(str, line), strict=True)) for line in lines))


def make_patients(count: int = 30) -> list[tuple[Any, ...]]:
    """Make rows without any problem."""
    return [
        (f"p{n}", 1 + n * 7 % 29, n % 2, 30 + n * 11 % 37, "fm"[n // 2 % 2], ("low", "high")[n // 3 % 2])
        for n in range(count)
    ]


def examine(*lines: tuple[Any, ...], cases: tuple[str, ...] = (), **changes: Any) -> TableReport:
    return check(make_rows(*lines), ClinicalSchema.model_validate(FORM | changes), cases)


def texts(report: TableReport, severity: str) -> str:
    return "\n".join(finding.text for finding in report.findings if finding.severity == severity)


def has_finding(report: TableReport, severity: str, *parts: str) -> bool:
    """Whether one finding of a severity has all parts in its text."""
    own = [finding.text for finding in report.findings if finding.severity == severity]
    return any(all(part in text for part in parts) for text in own)


def test_a_row_is_read_by_its_schema() -> None:
    rows = make_rows(("a", "2", "1", "61.5", "F", "High"), ("b", "12", "0.0", "NA", "", "X"))
    records, findings = read_records(rows, ClinicalSchema.model_validate(FORM))
    assert not findings
    assert [record.time for record in records] == [2 * DAYS["months"], 12 * DAYS["months"]]
    assert [record.event for record in records] == [SEEN, CENSORED]
    assert records[0].values == {"age": 61.5, "sex": "F", "grade": 1.0}
    assert records[1].values == {"age": None, "sex": None, "grade": None}


def test_time_can_be_between_two_dates() -> None:
    form = FORM | {"time": {"start": "from", "end": "to", "format": "%d.%m.%Y"}, "covariates": {}}
    rows = make_rows(("a", "01.03.2020", "01.03.2021", 1), ("b", "1 March", "01.03.2021", 1),
                     header=("id", "from", "to", "event"))  # fmt: skip
    records, findings = read_records(rows, ClinicalSchema.model_validate(form))
    assert [record.time for record in records] == [365.0]
    assert all(part in findings[0].text for part in ("Row 2 (b)", "'from'", "'1 March'", "'%d.%m.%Y'"))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (("a", "0", 1, 1, "f", "low"), ("time", "0 days")),
        (("a", "-3", 1, 1, "f", "low"), ("time", "-91.3125 days")),
        (("a", "", 1, 1, "f", "low"), ("'months'", "missing")),
        (("a", "1,5", 1, 1, "f", "low"), ("'months'", "'1,5'", "number")),
        (("a", "inf", 1, 1, "f", "low"), ("'months'", "'inf'", "finite")),
        (("a", "3", 2, 1, "f", "low"), ("'event'", "'2'", "1, 0", "`competing`")),
        (("a", "3", 1, "old", "f", "low"), ("'age'", "'old'", "number")),
        (("a", "3", 1, 1, "f", "medium"), ("'grade'", "'medium'", "'low', 'high'")),
        (("", "3", 1, 1, "f", "low"), ("patient", "missing")),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_with_its_number(line: tuple[Any, ...], parts: tuple[str, ...]) -> None:
    report = examine(*make_patients(), line)
    assert not report.is_usable
    assert has_finding(report, "error", "Row 31", *parts), texts(report, "error")
    assert len(report.records) == 30


@pytest.mark.parametrize("form", ["%d.%m.%y", "%Y-%m-%dT%H:%M:%S %z", "%d %b %Y"])
def test_usual_formats_of_dates_are_taken(form: str) -> None:
    time = {"start": "from", "end": "to", "format": form}
    assert ClinicalSchema.model_validate(FORM | {"time": time}).time.format == form


def test_values_of_an_order_are_never_missing_and_booleans_are_words() -> None:
    covariates = {
        "grade": {"type": "ordinal", "order": ["none", "mild"]},
        "smoker": {"type": "ordinal", "order": [False, True]},
    }
    event = {"column": "event", "seen": [True], "censored": [False]}
    schema = ClinicalSchema.model_validate(FORM | {"covariates": covariates, "event": event, "missing": [-999]})
    header = ("id", "months", "event", "grade", "smoker")
    rows = make_rows(("a", 1, "Yes", "none", "no"), ("b", 2, "false", "", "-999"), ("", 2, "no", "mild", "yes"),
                     header=header)  # fmt: skip
    records, findings = read_records(rows, schema)
    assert [record.values for record in records] == [{"grade": 0.0, "smoker": 0.0}, {"grade": None, "smoker": None}]
    assert [record.event for record in records] == [SEEN, CENSORED]
    assert "Row 3" in findings[0].text


def test_a_column_that_determines_the_event_is_warned_of() -> None:
    lines = [(*line, {0: "no", 1: "yes"}[line[2]]) for line in make_patients()]
    rows = make_rows(*lines, header=(*HEADER, "status"))
    schema = ClinicalSchema.model_validate(FORM | {"covariates": {"status": {"type": "categorical"}}})
    assert has_finding(check(rows, schema, ()), "warning", "'status'", "event")


def test_a_category_is_the_same_however_it_is_written() -> None:
    cells = ("1", "1.0", "2", "1", "2.0", "2", "Male", "male", "MALE", "male")
    rows = make_rows(*((f"p{n}", n + 1, 1, 50, cell, "low") for n, cell in enumerate(cells)))
    records, _ = read_records(rows, ClinicalSchema.model_validate(FORM))
    assert [record.values["sex"] for record in records] == [*"112122", *["male"] * 4]


@pytest.mark.parametrize(("cell", "marker"), [("", "missing"), ("NA", "'NA'")])
def test_a_missing_event_is_not_taken_for_an_unknown_code(cell: str, marker: str) -> None:
    report = examine(*make_patients(), ("q", 3, cell, 50, "f", "low"))
    assert has_finding(report, "error", "Row 31", "'event'", "missing", marker)
    assert "`competing`" not in texts(report, "error")


def test_a_code_may_be_a_missing_value_marker() -> None:
    event = {"column": "event", "seen": [1], "censored": ["none"]}
    rows = make_rows(("a", 1, "None", 50, "f", "low"))
    assert read_records(rows, ClinicalSchema.model_validate(FORM | {"event": event}))[0][0].event == CENSORED


def test_copies_of_a_patient_under_another_id_are_warned_of() -> None:
    form = FORM | {"covariates": {name: {"type": "numeric"} for name in "xyz"}}
    header = ("id", "months", "event", *"xyz")
    lines = [(f"p{n}", 1 + n * 7 % 29, n % 2, 30 + n * 11 % 37, n * 5 % 13 + 0.5, n * 3 % 17) for n in range(30)]
    schema = ClinicalSchema.model_validate(form)
    assert not has_finding(check(make_rows(*lines, header=header), schema, ()), "warning", "several IDs")
    copied = [*lines, ("q1", *lines[1][1:]), ("q2", *lines[2][1:])]
    assert has_finding(
        check(make_rows(*copied, header=header), schema, ()), "warning", "several IDs", "p1 = q1", "p2 = q2"
    )


def test_rows_with_the_same_fault_share_an_error() -> None:
    lines = [(f"p{n}", 5, "dead" if n % 3 else 1, 50, "f", "low") for n in range(36)]
    records, findings = read_records(make_rows(*lines), ClinicalSchema.model_validate(FORM))
    assert len(records) == 12
    assert [finding.severity for finding in findings] == ["error"]
    assert all(part in findings[0].text for part in ("Rows 2 (p1), 3 (p2), 5 (p4)", "and 16 more", "'dead'"))


def test_entry_must_be_before_the_end() -> None:
    rows = make_rows(("a", 5, 1, 2), ("b", 5, 1, 5), ("c", 5, 1, ""), header=("id", "months", "event", "from"))
    schema = ClinicalSchema.model_validate(FORM | {"entry": "from", "covariates": {}})
    records, findings = read_records(rows, schema)
    assert [record.entry for record in records] == [2 * DAYS["months"], 0.0]
    assert all(part in findings[0].text for part in ("Row 2 (b)", "entry", "152.188"))


def test_a_table_without_fault_has_no_finding_but_its_size() -> None:
    report = examine(*make_patients(), cases=tuple(f"p{n}" for n in range(30)))
    assert report.is_usable
    assert report.events == 15
    assert [finding.severity for finding in report.findings] == ["note"]


def test_images_and_rows_are_compared() -> None:
    report = examine(*make_patients(), cases=("p0", "p1", "q7"))
    assert has_finding(report, "warning", "1 of 3", "no row", "q7")
    assert has_finding(report, "warning", "28 of 30", "no image")
    none = examine(*make_patients(), cases=("s_p0_ct", "s_p1_ct"))
    assert has_finding(none, "error", "s_p0_ct, s_p1_ct", "`cases`")
    schema = ClinicalSchema.model_validate(FORM | {"cases": "^s_([^_]+)_"})
    assert not texts(check(make_rows(*make_patients(2)), schema, ("s_p0_ct", "s_p1_ct")), "error")
    nameless = examine(*make_patients(), ("", 3, 1, 50, "f", "low"), cases=("p0", "p1"))
    assert has_finding(nameless, "warning", "28 of 30", "no image", ": p10, ")
    unmatched = check(make_rows(*make_patients(2)), schema, ("s_p0_ct", "p1"))
    assert has_finding(unmatched, "error", "^s_([^_]+)_", " p1.")


def test_two_rows_of_a_patient_are_an_error() -> None:
    report = examine(*make_patients(), ("p3", 4, 1, 50, "f", "low"))
    assert has_finding(report, "error", "'p3'", "2 rows", "4, 31")
    assert len(report.records) == 30


def test_events_of_one_kind_are_found() -> None:
    never = [(*line[:2], 0, *line[3:]) for line in make_patients()]
    assert has_finding(examine(*never), "error", "30 patients", "`event`")
    always = [(*line[:2], 1, *line[3:]) for line in make_patients()]
    assert has_finding(examine(*always), "warning", "30 patients", "censored", "`event`")


def test_competing_events_are_counted() -> None:
    event = {"column": "event", "seen": [1], "censored": [0], "competing": [2]}
    report = examine(*make_patients(), ("z", 3, 2, 50, "f", "low"), event=event)
    assert report.is_usable
    assert has_finding(report, "warning", "Competing events", "1 with code 2")


def test_columns_without_information_and_those_that_leak_the_outcome_are_found() -> None:
    header = (*HEADER, "name", "same", "response", "clock", "lab")
    lines = [
        (*line, f"N. {n}", 7, n % 3, float(line[1]) * 2, 1.5 + n if line[2] else "NA")
        for n, line in enumerate(make_patients())
    ]
    covariates = {
        "name": {"type": "categorical"},
        "same": {"type": "numeric"},
        "response": {"type": "numeric"},
        "clock": {"type": "numeric"},
        "lab": {"type": "numeric"},
    }
    rows = make_rows(*lines, header=header)
    report = check(rows, ClinicalSchema.model_validate(FORM | {"covariates": covariates}), ())
    for parts in (
        ("'name'", "30 different values"),
        ("'same'", "7.0"),
        ("'response'", "after treatment"),
        ("'clock'", "1.00"),
        ("'lab'", "0% of patients with the event", "100%"),
    ):
        assert has_finding(report, "warning", *parts), parts
    assert has_finding(report, "note", "'lab'", "50% of 30 rows")


def test_cells_that_are_read_as_missing_by_a_marker_are_listed() -> None:
    lines = [(*line[:4], ("None", "Yes")[n // 2 % 2], *line[5:]) for n, line in enumerate(make_patients())]
    others = f"`missing: {[marker for marker in MISSING if marker not in ('', 'none')]}`"
    assert has_finding(examine(*lines), "warning", "'sex'", "'Yes'", "'None' (16 rows)", "'none'", others)
    kept = examine(*lines, missing=["na"])
    assert not texts(kept, "warning")
    assert has_finding(kept, "note", "'sex'", "'None' (16 rows)", "`missing`")
    few = [(*line[:4], "abc?"[n % 4], *line[5:]) for n, line in enumerate(make_patients())]
    assert has_finding(examine(*few), "note", "'sex'", "23% of 30 rows", "'?' (7 rows)")
    assert not has_finding(examine(*few), "note", "'sex'", "`missing: [")
    unknown = [(*line[:4], ("a", "b", "Unknown")[n % 3], *line[5:]) for n, line in enumerate(make_patients())]
    assert has_finding(examine(*unknown), "note", "'sex'", "'unknown'", "`missing: [")


@pytest.mark.parametrize(("name", "first", "step"), [("mrn", 40.5, 1), ("count", 71234, 913), ("count", 7, 1)])
def test_numeric_identifiers_are_found(name: str, first: float, step: int) -> None:
    rows = make_rows(*((*line, first + step * n) for n, line in enumerate(make_patients())), header=(*HEADER, name))
    schema = ClinicalSchema.model_validate(FORM | {"covariates": {name: {"type": "numeric"}}})
    assert has_finding(check(rows, schema, ()), "warning", repr(name), "identifier")


def test_unused_columns_and_delayed_entry_are_noted() -> None:
    rows = make_rows(*((*line, 0, "x") for line in make_patients()), header=(*HEADER, "from", "stage"))
    report = check(rows, ClinicalSchema.model_validate(FORM | {"entry": "from"}), ())
    assert has_finding(report, "note", "'stage'", "`ignored`")
    assert has_finding(report, "note", "'from'", LATE_ENTRY)


def test_patients_and_events_are_counted_by_centre() -> None:
    header = (*HEADER, "hospital")
    lines = [(*line, "AB"[n % 3 == 0]) for n, line in enumerate(make_patients())]
    rows = make_rows(*lines, header=header)
    report = check(rows, ClinicalSchema.model_validate(FORM | {"centre": "hospital"}), ())
    assert report.centres == {"A": (20, 10), "B": (10, 5)}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"time": {"column": "a", "start": "b", "end": "c"}}, ("time:", "`column`", "`start` and `end`")),
        ({"time": {"start": "b"}}, ("time:", "`column`", "`start` and `end`")),
        ({"time": {"start": "b", "end": "c", "format": "%Y/%Y"}}, ("time:", "`format`", "'%Y/%Y'")),
        ({"time": {"column": "a", "unit": "hours"}}, ("time -> unit",)),
        ({"event": {"column": "e", "seen": [1], "censored": ["1.0"]}}, ("event:", "'1'")),
        ({"covariates": {"g": {"type": "ordinal"}}}, ("covariates -> g:", "`order`")),
        ({"covariates": {"g": {"type": "numeric", "order": [1, 2]}}}, ("covariates -> g:", "`order`", "numeric")),
        ({"covariates": {"id": {"type": "numeric"}}}, ("'id'",)),
        ({"cases": "^[a-z]+"}, ("`cases`", "'^[a-z]+'", "0 groups")),
        ({"cases": "("}, ("`cases`", "'('", "regular expression")),
        ({"covariats": {}}, ("covariats:", "covariates")),
    ],
)
def test_an_error_of_a_schema_names_the_key_and_the_file(
    changes: dict[str, Any], parts: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "clinical.yaml"
    file.write_text(yaml.safe_dump(FORM | changes, sort_keys=False))
    with pytest.raises(DataError) as caught:
        read_schema(file)
    for part in (*parts, str(file)):
        assert part in str(caught.value)


def test_a_schema_without_a_patient_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clinical.yaml").write_text("time: {column: t}\nevent: {column: e, seen: [1], censored: [0]}\n")
    with pytest.raises(DataError, match="'patient'"):
        read_schema(tmp_path / "clinical.yaml")


def test_absent_columns_are_named() -> None:
    with pytest.raises(DataError, match=r"'stage'.*clinical\.csv"):
        examine(*make_patients(), covariates={"stage": {"type": "numeric"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "1 line"),
        ("a,a\n1,2\n", "'a'"),
        ("a,\n1,2\n", "name"),
        ("a,b\n1,2\n1,2,3\n", "Row 2 .*3 cells.* 2"),
    ],
)
def test_an_invalid_table_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "clinical.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "clinical.csv")


@pytest.mark.parametrize("cell", ['"no response', '"good" response', '"left, as the rest'])
def test_a_quote_that_is_not_closed_swallows_no_rows(cell: str, tmp_path: Path) -> None:
    file = tmp_path / "clinical.csv"
    file.write_text(f'id,note\n1,"two\nlines"\n2,{cell}\n3,x\n4,"y"\n')
    with pytest.raises(DataError, match=r"Line 4 .*quote"):
        read_rows(file)


def test_tables_of_spreadsheets_are_read(tmp_path: Path) -> None:
    file = tmp_path / "clinical.csv"
    file.write_text('\ufeffid;name\r\n1;"a; b"\r\n\r\n', encoding="utf-8")
    assert read_rows(file).rows == ({"id": "1", "name": "a; b"},)
    file.write_bytes("id,name\n1,ä\n".encode("latin-1"))
    read = read_rows(file)
    assert read.rows == ({"id": "1", "name": "ä"},)
    assert "Windows-1252" in "".join(read.notes)
    with pytest.raises(DataError, match=r"none\.csv"):
        read_rows(tmp_path / "none.csv")


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans()))
def test_normalise_is_idempotent(value: Any) -> None:
    assert normalise_cell(normalise_cell(value)) == normalise_cell(value)


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_the_same_however_written(value: int) -> None:
    assert (
        len(
            {
                normalise_cell(value),
                normalise_cell(str(value)),
                normalise_cell(f" {value}.0"),
                normalise_cell(float(value)),
            }
        )
        == 1
    )


@given(st.permutations(range(30)))
def test_the_order_of_rows_changes_their_numbers_only(order: list[int]) -> None:
    lines = make_patients()
    one, other = examine(*lines), examine(*(lines[n] for n in order))
    assert {record.patient: record.values for record in one.records} == {
        record.patient: record.values for record in other.records
    }
    assert set(one.findings) == set(other.findings)
