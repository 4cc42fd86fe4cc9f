"""clinical.csv and clinical.yaml: read by the letter, and nothing dropped silently."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.checking import TableReport, check
from duplus_nnunet.survival.records.schema import DAYS, ClinicalSchema, plain, read_schema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Rows, read_records, read_rows

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
    """Make rows that nothing is wrong with."""
    return [
        (f"p{n}", 1 + n * 7 % 29, n % 2, 30 + n * 11 % 37, "fm"[n // 2 % 2], ("low", "high")[n // 3 % 2])
        for n in range(count)
    ]


def examine(*lines: tuple[Any, ...], cases: tuple[str, ...] = (), **changes: Any) -> TableReport:
    return check(make_rows(*lines), ClinicalSchema.model_validate(FORM | changes), cases)


def texts(report: TableReport, severity: str) -> str:
    return "\n".join(finding.text for finding in report.findings if finding.severity == severity)


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
    assert "Row 2 (b): 'from' is '1 March', which is no date of the form '%d.%m.%Y'" in findings[0].text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("a", "0", 1, 1, "f", "low"), "the time is 0 days; it must be above 0"),
        (("a", "-3", 1, 1, "f", "low"), "it must be above 0"),
        (("a", "", 1, 1, "f", "low"), "'months' is missing"),
        (("a", "1,5", 1, 1, "f", "low"), "expected a number (a point before decimals)"),
        (("a", "inf", 1, 1, "f", "low"), "expected a finite number"),
        (("a", "3", 2, 1, "f", "low"), "'event' is '2'; the schema knows 1, 0. Declare it as"),
        (("a", "3", 1, "old", "f", "low"), "'age' is 'old'"),
        (("a", "3", 1, 1, "f", "medium"), "which is not in its order 'low', 'high'"),
        (("", "3", 1, 1, "f", "low"), "no patient"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_row(line: tuple[Any, ...], message: str) -> None:
    report = examine(*make_patients(), line)
    assert not report.is_usable
    assert message in texts(report, "error")
    assert "Row 31" in texts(report, "error")
    assert len(report.records) == 30


@pytest.mark.parametrize("form", ["%d.%m.%y", "%Y-%m-%dT%H:%M:%S %z", "%d %b %Y"])
def test_usual_formats_of_dates_are_taken(form: str) -> None:
    time = {"start": "from", "end": "to", "format": form}
    assert ClinicalSchema.model_validate(FORM | {"time": time}).time.format == form


def test_what_stands_in_an_order_is_known_and_truth_values_are_words() -> None:
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
    assert "no patient" in findings[0].text


def test_the_outcome_by_another_name_is_told() -> None:
    lines = [(*line, {0: "no", 1: "yes"}[line[2]]) for line in make_patients()]
    rows = make_rows(*lines, header=(*HEADER, "status"))
    schema = ClinicalSchema.model_validate(FORM | {"covariates": {"status": {"type": "categorical"}}})
    assert "'status' tells in nearly all patients whether they had the event" in texts(
        check(rows, schema, ()), "warning"
    )


def test_a_category_is_the_same_however_it_is_written() -> None:
    cells = ("1", "1.0", "2", "1", "2.0", "2", "Male", "male", "MALE", "male")
    rows = make_rows(*((f"p{n}", n + 1, 1, 50, cell, "low") for n, cell in enumerate(cells)))
    records, _ = read_records(rows, ClinicalSchema.model_validate(FORM))
    assert [record.values["sex"] for record in records] == [*"112122", *["male"] * 4]


@pytest.mark.parametrize(("cell", "found"), [("", "is missing. Fill"), ("NA", "which means missing: 'NA'. Fill")])
def test_an_event_that_is_not_known_is_to_be_filled_in(cell: str, found: str) -> None:
    told = texts(examine(*make_patients(), ("q", 3, cell, 50, "f", "low")), "error")
    assert found in told
    assert "Declare it as" not in told


def test_a_code_may_be_what_else_means_missing() -> None:
    event = {"column": "event", "seen": [1], "censored": ["none"]}
    rows = make_rows(("a", 1, "None", 50, "f", "low"))
    assert read_records(rows, ClinicalSchema.model_validate(FORM | {"event": event}))[0][0].event == CENSORED


def test_entry_must_be_before_the_end() -> None:
    rows = make_rows(("a", 5, 1, 2), ("b", 5, 1, 5), ("c", 5, 1, ""), header=("id", "months", "event", "from"))
    schema = ClinicalSchema.model_validate(FORM | {"entry": "from", "covariates": {}})
    records, findings = read_records(rows, schema)
    assert [record.entry for record in records] == [2 * DAYS["months"], 0.0]
    assert "must be 0 or more and before it" in findings[0].text


def test_a_table_without_fault_has_no_finding_but_its_size() -> None:
    report = examine(*make_patients(), cases=tuple(f"p{n}" for n in range(30)))
    assert report.is_usable
    assert report.events == 15
    assert [finding.severity for finding in report.findings] == ["note"]


def test_images_and_rows_are_compared() -> None:
    report = examine(*make_patients(), cases=("p0", "p1", "q7"))
    assert "1 of 3 imaged patients have no row: q7" in texts(report, "warning")
    assert "28 of 30 patients have no image" in texts(report, "warning")
    nobody = examine(*make_patients(), cases=("s_p0_ct", "s_p1_ct"))
    assert "No patient of the table has an image" in texts(nobody, "error")
    schema = ClinicalSchema.model_validate(FORM | {"cases": "^s_([^_]+)_"})
    assert not texts(check(make_rows(*make_patients(2)), schema, ("s_p0_ct", "s_p1_ct")), "error")
    nameless = examine(*make_patients(), ("", 3, 1, 50, "f", "low"), cases=("p0", "p1"))
    assert "28 of 30 patients have no image: p10, " in texts(nameless, "warning")
    strange = check(make_rows(*make_patients(2)), schema, ("s_p0_ct", "p1"))
    assert "does not fit p1" in texts(strange, "error")


def test_two_rows_of_a_patient_are_an_error() -> None:
    report = examine(*make_patients(), ("p3", 4, 1, 50, "f", "low"))
    assert "Patient 'p3' has 2 rows (4, 31)" in texts(report, "error")
    assert len(report.records) == 30


def test_events_of_one_kind_are_told() -> None:
    never = [(*line[:2], 0, *line[3:]) for line in make_patients()]
    assert "None of 30 patients is with the event" in texts(examine(*never), "error")
    always = [(*line[:2], 1, *line[3:]) for line in make_patients()]
    assert "None of 30 patients is censored" in texts(examine(*always), "warning")


def test_competing_events_are_counted() -> None:
    event = {"column": "event", "seen": [1], "censored": [0], "competing": [2]}
    report = examine(*make_patients(), ("z", 3, 2, 50, "f", "low"), event=event)
    assert report.is_usable
    assert "Competing events: 1 with code 2" in texts(report, "warning")


def test_columns_that_tell_nothing_or_too_much_are_told() -> None:
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
    found = texts(report, "warning")
    for text in (
        "'name' has 30 different values",
        "'same' is the same, 7.0, in all patients",
        "'response' sounds like something that is known only after treatment",
        "'clock' rises and falls with the time (rank correlation 1.00)",
        "'lab' is missing in 0% of patients with the event and in 100%",
    ):
        assert text in found
    assert "'lab' is missing in 50% of 30 rows" in texts(report, "note")


def test_what_was_read_as_missing_by_a_marker_is_said() -> None:
    lines = [(*line[:4], ("None", "Yes")[n // 2 % 2], *line[5:]) for n, line in enumerate(make_patients())]
    found = texts(examine(*lines), "warning")
    assert "'sex' is the same, 'Yes', in all patients" in found
    assert "Read as missing: 'None' (16 rows). If 'none' is a value, write in the schema" in found
    assert "`missing: ['na', 'n/a', 'nan', 'null', 'unknown', 'missing', '?', '.']`" in found
    kept = examine(*lines, missing=["na"])
    assert not texts(kept, "warning")
    assert "'sex': 'None' (16 rows) is read as a value, since `missing` of the schema replaces" in texts(kept, "note")
    few = [(*line[:4], "abc?"[n % 4], *line[5:]) for n, line in enumerate(make_patients())]
    assert "'sex' is missing in 23% of 30 rows. Read as missing: '?' (7 rows)." in texts(examine(*few), "note")
    unknown = [(*line[:4], ("a", "b", "Unknown")[n % 3], *line[5:]) for n, line in enumerate(make_patients())]
    assert "If 'unknown' is a value" in texts(examine(*unknown), "note")


@pytest.mark.parametrize(("name", "first", "step"), [("mrn", 40.5, 1), ("count", 71234, 913), ("count", 7, 1)])
def test_numbers_that_say_who_somebody_is_are_told(name: str, first: float, step: int) -> None:
    rows = make_rows(*((*line, first + step * n) for n, line in enumerate(make_patients())), header=(*HEADER, name))
    schema = ClinicalSchema.model_validate(FORM | {"covariates": {name: {"type": "numeric"}}})
    assert f"{name!r} " in texts(check(rows, schema, ()), "warning")
    assert "an identifier" in texts(check(rows, schema, ()), "warning")


def test_columns_that_are_not_used_are_said() -> None:
    rows = make_rows(*((*line, 0, "x") for line in make_patients()), header=(*HEADER, "from", "stage"))
    report = check(rows, ClinicalSchema.model_validate(FORM | {"entry": "from"}), ())
    assert "The schema does not name the column(s) 'stage': they are not used" in texts(report, "note")
    assert "'from' is read as the time of entry. Kaplan-Meier, the networks" in texts(report, "note")


def test_patients_and_events_are_counted_by_centre() -> None:
    header = (*HEADER, "hospital")
    lines = [(*line, "AB"[n % 3 == 0]) for n, line in enumerate(make_patients())]
    rows = make_rows(*lines, header=header)
    report = check(rows, ClinicalSchema.model_validate(FORM | {"centre": "hospital"}), ())
    assert report.centres == {"A": (20, 10), "B": (10, 5)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"time": {"column": "a", "start": "b", "end": "c"}},
            "give either `column` (and `unit`), or `start` and `end`",
        ),
        ({"time": {"start": "b"}}, "give either `column`"),
        ({"time": {"start": "b", "end": "c", "format": "%Y/%Y"}}, "`format` is '%Y/%Y', which no date can be read by"),
        ({"time": {"column": "a", "unit": "hours"}}, "time -> unit"),
        ({"event": {"column": "e", "seen": [1], "censored": ["1.0"]}}, "the code '1' stands in more than one place"),
        ({"covariates": {"g": {"type": "ordinal"}}}, "an ordinal covariate needs `order`"),
        ({"covariates": {"g": {"type": "numeric", "order": [1, 2]}}}, "`order` is for ordinal covariates"),
        ({"covariates": {"id": {"type": "numeric"}}}, "the column 'id' is used in more than one place"),
        ({"cases": "^[a-z]+"}, "with 0 groups; mark the patient by one"),
        ({"cases": "("}, "no regular expression"),
        ({"covariats": {}}, "Unknown key. Did you mean one of: covariates"),
    ],
)
def test_a_wrong_schema_says_what_and_where(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "clinical.yaml"
    file.write_text(yaml.safe_dump(FORM | changes, sort_keys=False))
    with pytest.raises(DataError) as caught:
        read_schema(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_schema_without_a_patient_says_so(tmp_path: Path) -> None:
    (tmp_path / "clinical.yaml").write_text("time: {column: t}\nevent: {column: e, seen: [1], censored: [0]}\n")
    with pytest.raises(DataError, match="'patient' is missing"):
        read_schema(tmp_path / "clinical.yaml")


def test_columns_that_are_not_there_are_named() -> None:
    with pytest.raises(DataError, match=r"names the column\(s\) 'stage'"):
        examine(*make_patients(), covariates={"stage": {"type": "numeric"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "1 line"),
        ("a,a\n1,2\n", "two columns 'a'"),
        ("a,\n1,2\n", "a column without a name"),
        ("a,b\n1,2\n1,2,3\n", "Row 2 of .* has 3 cells, the header 2"),
    ],
)
def test_a_table_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "clinical.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / "clinical.csv")


@pytest.mark.parametrize("cell", ['"no response', '"good" response', '"left, as the rest'])
def test_a_quote_that_is_not_closed_swallows_no_rows(cell: str, tmp_path: Path) -> None:
    file = tmp_path / "clinical.csv"
    file.write_text(f'id,note\n1,"two\nlines"\n2,{cell}\n3,x\n4,"y"\n')
    with pytest.raises(DataError, match=r"Line 4 of .*Close each quote"):
        read_rows(file)


def test_tables_of_spreadsheets_are_read(tmp_path: Path) -> None:
    file = tmp_path / "clinical.csv"
    file.write_text('\ufeffid;name\r\n1;"a; b"\r\n\r\n', encoding="utf-8")
    assert read_rows(file).rows == ({"id": "1", "name": "a; b"},)
    file.write_bytes("id,name\n1,ä\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_rows(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans()))
def test_plain_is_a_fixed_point(value: Any) -> None:
    assert plain(plain(value)) == plain(value)


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_the_same_however_written(value: int) -> None:
    assert len({plain(value), plain(str(value)), plain(f" {value}.0"), plain(float(value))}) == 1


@given(st.permutations(range(30)))
def test_the_order_of_rows_changes_nothing_but_their_numbers(order: list[int]) -> None:
    lines = make_patients()
    one, other = examine(*lines), examine(*(lines[n] for n in order))
    assert {record.patient: record.values for record in one.records} == {
        record.patient: record.values for record in other.records
    }
    assert set(one.findings) == set(other.findings)
