"""The table of cases is read back as written, and contradictions in it are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.data.case_table import FILE_NAME, Case, CaseTable, Source, read_case_table, write_case_table
from duplus_nnunet.errors import DataError

SOURCES = {"Liver": Source("Dataset003_Liver", "liver_ct", ("liver", "tumor"), ("CT",))}
TABLE = CaseTable(
    sources=SOURCES,
    cases={"Liver_1": Case("Liver", "Liver/1", ("liver", "tumor"), ("liver",))},
    tests={"Liver_2": Case("Liver", "Liver/2", (), ())},
    spacing="shared",
)


def change(folder: Path, **changes: Any) -> None:
    write_case_table(TABLE, folder)
    file = folder / FILE_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}), encoding="utf-8")


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_case_table(TABLE, tmp_path)
    assert read_case_table(tmp_path) == TABLE
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


def test_a_folder_without_a_table_has_none(tmp_path: Path) -> None:
    assert read_case_table(tmp_path) is None


def test_cases_are_found_by_source_and_name() -> None:
    assert list(TABLE.of_source("Liver")) == ["Liver_1"]
    assert TABLE.of_source("Other") == {}
    assert TABLE.find("Liver_2").patient == "Liver/2"


def test_an_unknown_case_lists_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'Liver_3'.*'Liver_"):
        TABLE.find("Liver_3")


def test_a_case_of_no_source_is_refused() -> None:
    with pytest.raises(DataError, match=r"'x'.*'Livr'.*'Liver'"):
        CaseTable(SOURCES, {"x": Case("Livr", "x", (), ())})


def test_what_is_present_must_be_annotated() -> None:
    with pytest.raises(DataError, match=r"'x'.*'tumor'"):
        CaseTable(SOURCES, {"x": Case("Liver", "x", ("liver",), ("tumor",))})


@pytest.mark.parametrize("text", ["{", "[]", "[1]"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"duplus_cases\.json (cannot|has version None)"):
        read_case_table(tmp_path)


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    change(tmp_path, version=99)
    with pytest.raises(DataError, match=r"99.*1"):
        read_case_table(tmp_path)


def test_a_key_too_many_is_named(tmp_path: Path) -> None:
    change(tmp_path, case={})
    with pytest.raises(DataError, match=r"duplus_cases.json, case: "):
        read_case_table(tmp_path)


def test_a_contradiction_in_a_file_names_the_file(tmp_path: Path) -> None:
    change(tmp_path, sources={})
    with pytest.raises(DataError, match=r"duplus_cases\.json.*'Liver'"):
        read_case_table(tmp_path)
