"""The table of cases is read back as written, and contradictions in it are refused."""

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.data import case_table
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
    with pytest.raises(DataError, match=r"99.*2"):
        read_case_table(tmp_path)


def test_a_key_too_many_is_named(tmp_path: Path) -> None:
    change(tmp_path, case={})
    with pytest.raises(DataError, match=r"duplus_cases.json, case: "):
        read_case_table(tmp_path)


def test_a_contradiction_in_a_file_names_the_file(tmp_path: Path) -> None:
    change(tmp_path, sources={})
    with pytest.raises(DataError, match=r"duplus_cases\.json.*'Liver'"):
        read_case_table(tmp_path)


NAMES = st.text(max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> CaseTable:
    """Draw any table: present targets in any order and number, names of any characters."""
    targets = draw(st.lists(NAMES, max_size=6, unique=True))
    chosen = st.lists(st.sampled_from(targets), max_size=8) if targets else st.just([])
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    sources = {name: Source(draw(NAMES), draw(NAMES), tuple(draw(chosen)), tuple(draw(chosen))) for name in names}

    def draw_case() -> Case:
        annotated = tuple(draw(chosen))
        present = draw(st.lists(st.sampled_from(annotated), max_size=4)) if annotated else []
        return Case(draw(st.sampled_from(names)), draw(NAMES), annotated, tuple(present))

    cases, tests = ({name: draw_case() for name in draw(st.lists(NAMES, max_size=4))} for _ in range(2))
    return CaseTable(sources, cases, tests, draw(st.sampled_from(["context", "shared"])))


@pytest.mark.parametrize("least", [0, 2000])
@given(table=tables())
def test_any_table_comes_back_with_its_order_from_either_version(least: int, table: CaseTable) -> None:
    with tempfile.TemporaryDirectory() as folder, patch.object(case_table, "_LEAST_PACKED", least):
        write_case_table(table, folder)
        assert json.loads((Path(folder) / FILE_NAME).read_text())["version"] == (1 if least else 2)
        read = read_case_table(folder)
    assert read == table
    for part in ("sources", "cases", "tests"):
        assert list(getattr(read, part)) == list(getattr(table, part))


def test_a_table_of_version_1_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(
        """{"version": 1,
        "sources": {"Liver": {"dataset": "Dataset003_Liver", "context": "liver_ct", "targets": ["liver", "tumor"],
                              "channels": ["CT"]}},
        "cases": {"Liver_1": {"source": "Liver", "patient": "Liver/1", "annotated": ["liver", "tumor"],
                              "present": ["liver"]}},
        "tests": {"Liver_2": {"source": "Liver", "patient": "Liver/2", "annotated": [], "present": []}},
        "spacing": "shared"}""",
        encoding="utf-8",
    )
    assert read_case_table(tmp_path) == TABLE


def test_cases_of_a_large_table_spell_no_target(tmp_path: Path) -> None:
    names = tuple(f"target {number}" for number in range(100))
    cases = {f"case {number}": Case("All", "p", names, names[::2]) for number in range(2000)}
    write_case_table(CaseTable({"All": Source("Dataset001_All", "ct", (), ("CT",))}, cases), tmp_path)
    text = (tmp_path / FILE_NAME).read_text()
    assert text.count('target 7"') == 1
    table = read_case_table(tmp_path)
    assert table is not None
    assert len({id(case.present) for case in table.cases.values()}) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["Liver", "1", 0, "+"], "'x' has '\\+'; expected"),
        (["Liver", "1", 0, "+?"], "'x' has '\\+\\?'; expected"),
        (["Liver", "1", 3, ""], "'x' has the set of targets 3; the sets are 0 to 1"),
        (["Liver", "1", -1, ""], "'x' has the set of targets -1"),
        (["Liver", "1", 0, [9]], "'x' has the target 9; the targets are 0 to 1"),
        (["Liver", "1", 1, [0]], "'x' contains 'liver', which is not among its annotated"),
        (["Liver", "1", 0], "cases.x"),
        (["Liver", "1", "0", "++"], "cases.x.2"),
        (["Livr", "1", 0, "++"], "'x': .*'Livr'"),
    ],
)
def test_a_wrong_row_names_the_case(
    tmp_path: Path, row: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_table, "_LEAST_PACKED", 0)
    change(tmp_path, cases={"x": row})
    with pytest.raises(DataError, match=rf"duplus_cases\.json.*{message}"):
        read_case_table(tmp_path)
