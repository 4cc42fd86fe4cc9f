"""Clinical tables are joined by the patient ID; what does not fit is refused or named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.joined_tables import join_rows, read_clinical
from duplus_nnunet.survival.records.table import Rows


def make_rows(file: str, header: str, *lines: str) -> Rows:
    names = header.split(",")
    return Rows(file, tuple(names), tuple(dict(zip(names, line.split(","), strict=True)) for line in lines))


FIRST = make_rows("a.csv", "id,age", "p1,60", "p2,70")


def test_rows_of_a_patient_are_joined_in_any_order() -> None:
    joined = join_rows(FIRST, make_rows("b.csv", "Patient,time", "p2,9", "p1,5"), "id", "Patient")
    assert joined.columns == ("id", "age", "time")
    assert joined.rows == ({"id": "p1", "age": "60", "time": "5"}, {"id": "p2", "age": "70", "time": "9"})
    assert (joined.notes, joined.warnings) == ((), ())


def test_patients_of_one_table_alone_are_kept_and_named() -> None:
    joined = join_rows(FIRST, make_rows("b.csv", "id,time", "p1,5", "p3,7"), "id", "id")
    assert joined.rows[1:] == ({"id": "p2", "age": "70", "time": ""}, {"id": "p3", "age": "", "time": "7"})
    assert ["p2" in text for text in joined.warnings] == [True, False]
    assert ["p3" in text for text in joined.warnings] == [False, True]


def test_warnings_of_a_third_table_name_the_first_two() -> None:
    both = join_rows(FIRST, make_rows("b.csv", "id,time", "p1,5", "p2,7"), "id", "id")
    of_rows, of_other = join_rows(both, make_rows("c.csv", "id,stage", "p1,2", "p3,4"), "id", "id").warnings
    assert all("a.csv or b.csv" in text and "c.csv" in text for text in (of_rows, of_other))
    assert ("p2" in of_rows, "p3" in of_other) == (True, True)


def test_a_column_of_both_tables_is_read_once_if_it_agrees() -> None:
    joined = join_rows(FIRST, make_rows("b.csv", "id,age,time", "p1,60.0,5", "p2,,7"), "id", "id")
    assert joined.column("age") == ["60", "70"]
    assert "'age'" in joined.notes[0]
    with pytest.raises(DataError, match=r"'age'.*'70' and '71' of patient 'p2'"):
        join_rows(FIRST, make_rows("b.csv", "id,age", "p1,60", "p2,71"), "id", "id")


def test_an_empty_cell_comes_from_the_other_table_but_a_marker_does_not() -> None:
    first = make_rows("a.csv", "id,age", "p1,", "p2,70")
    assert join_rows(first, make_rows("b.csv", "id,age", "p1,61", "p2,70"), "id", "id").column("age") == ["61", "70"]
    with pytest.raises(DataError, match="'NA' and '61'"):
        join_rows(make_rows("a.csv", "id,age", "p1,NA"), make_rows("b.csv", "id,age", "p1,61"), "id", "id")


@pytest.mark.parametrize(
    ("other", "column", "parts"),
    [
        (make_rows("b.csv", "id,time", "p1,5", "p1,6"), "id", ("b.csv", "'p1'", "rows 1, 2")),
        (make_rows("b.csv", "id,time", "p1,5", ",6"), "id", ("b.csv", "row(s) 2")),
        (make_rows("b.csv", "id,time", "P-1,5"), "id", ("p1, p2", "P-1")),
        (make_rows("b.csv", "name,time", "p1,5"), "id", ("b.csv", "'id'", "name, time")),
        (make_rows("b.csv", "name,id", "p1,5"), "name", ("b.csv", "'id'")),
    ],
)
def test_tables_that_cannot_be_joined_are_refused(other: Rows, column: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        join_rows(FIRST, other, "id", column)
    for part in parts:
        assert part in str(caught.value)


def test_a_draft_joins_tables_and_writes_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clinical, endpoint = tmp_path / "clinical.csv", tmp_path / "endpoint.csv"
    clinical.write_text("PatientID,Age\n" + "\n".join(f"C-{n:03d},{40 + n * 11 % 37}" for n in range(30)))
    lines = [f"C-{n:03d},{n % 2},{90 + n * 37 % 911}" for n in range(2, 30)]
    endpoint.write_text("PatientID,Relapse,RFS\n" + "\n".join(lines))
    assert cli.main(["survival", "draft", "--table", str(clinical), "--join", str(endpoint)]) == 0
    drafted: dict[str, Any] = yaml.safe_load(clinical.with_suffix(".yaml").read_text())
    assert drafted["tables"] == {"endpoint.csv": "PatientID"}
    assert drafted["exclude"] == ["time missing", "event missing"] or drafted["exclude"] == ["event missing"]
    rows, schema = read_clinical(clinical, clinical.with_suffix(".yaml"))
    assert (len(rows.rows), schema.time.column, [*schema.covariates]) == (30, "RFS", ["Age"])
    capsys.readouterr()
    assert cli.main(["survival", "check", "--table", str(clinical)]) == 0
    out = capsys.readouterr().out
    assert "30 rows, 28 usable patients, 14 with the event" in out
    assert "C-000, C-001" in out


def test_a_joined_table_lies_in_the_folder_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "clinical.csv").write_text("PatientID,Age\na,1\nb,2\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "more.csv").write_text("PatientID,time\na,1\nb,2\n")
    arguments = ["survival", "draft", "--table", str(tmp_path / "clinical.csv"), "--join"]
    assert cli.main([*arguments, str(tmp_path / "x" / "more.csv")]) == 1


def test_a_number_that_a_spreadsheet_wrote_with_decimals_is_the_same_patient() -> None:
    rows = join_rows(make_rows("a.csv", "id,x", "1,5", "02,6"), make_rows("b.csv", "id,y", "1.0,7", "02,8"), "id", "id")
    assert [(row["id"], row["x"], row["y"]) for row in rows.rows] == [("1", "5", "7"), ("02", "6", "8")]
    assert rows.warnings == ()


def test_a_column_that_is_the_patient_in_the_other_table_alone_is_refused() -> None:
    first, second = make_rows("a.csv", "pid,ID", "P1,9", "P2,8"), make_rows("b.csv", "ID,x", "P1,1", "P2,2")
    with pytest.raises(DataError, match="ID"):
        join_rows(first, second, "pid", "ID")
