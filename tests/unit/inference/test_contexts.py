"""Contexts by case."""

import json
import re
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.inference.contexts import ContextChoice, read_contexts

KNOWN = ["thorax_ct", "thorax_pet", "pelvis_mr"]


def write(folder: Path, text: str, name: str = "contexts.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize("text", ["thorax_ct", "Thorax_CT", " thorax_ct "])
def test_name_is_the_context_of_every_case(text: str) -> None:
    choice = read_contexts(text, KNOWN)
    assert (choice.default, dict(choice.by_case)) == ("thorax_ct", {})
    assert choice.of("anything") == "thorax_ct"
    assert choice.check_cases(["a", "b"]) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("contexts.csv", "case,context\na,thorax_ct\nb,PELVIS_MR\n"),
        ("contexts.CSV", "\ufeffContext , Case, remark\nthorax_ct,a,first\n\npelvis_mr, b\n"),
        ("contexts.csv", 'case,context\r\n"a","thorax_ct"\r\nb,pelvis_mr'),
        ("contexts.json", '{"a": "thorax_ct", "b": "Pelvis_MR"}'),
    ],
)
def test_file_gives_each_case_its_own(name: str, text: str, tmp_path: Path) -> None:
    choice = read_contexts(write(tmp_path, text, name), KNOWN)
    assert choice.default is None
    assert (choice.of("a"), choice.of("b")) == ("thorax_ct", "pelvis_mr")


def test_unknown_name_lists_the_known_ones_nearest_first() -> None:
    with pytest.raises(PromptError, match=r"'thorax_pt'. Did you mean 'thorax_pet'\?.*\.csv"):
        read_contexts("thorax_pt", KNOWN)


@pytest.mark.parametrize("text", ["nowhere.csv", "nowhere.json", "folder/nowhere.csv"])
def test_missing_file_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"{text} "):
        read_contexts(text, KNOWN)


def test_other_file_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"contexts\.xlsx .*\.csv"):
        read_contexts(write(tmp_path, "", "contexts.xlsx"), KNOWN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: .*'case'"),
        ("case,modality\na,ct\n", "line 1: .*'context'.*'case', 'modality'"),
        ("case,context\n", r"contexts\.csv .*`case,context`"),
        ("case,context\na,thorax_ct\nb,\n", "line 3: .*context"),
        ("case,context\n,thorax_ct\n", "line 2: .*case"),
        ("case,context\na,thorax_ct\n\na,pelvis_mr\n", "line 4: .*'a'"),
    ],
)
def test_faulty_table_is_refused_by_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_contexts(write(tmp_path, text), KNOWN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ("[1]", "a list"),
        ("{}", r"contexts\.json "),
        ('{"a": 1}', "case 'a': .*1"),
        ('{"a": "thorax_ct", "a": "thorax_pet"}', "'a'"),
    ],
)
def test_faulty_mapping_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_contexts(write(tmp_path, text, "contexts.json"), KNOWN)


def test_unknown_context_is_told_by_line_with_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path, "case,context\na,thorax_ct\nb,pelvis_ct\n")
    with pytest.raises(PromptError, match=r"contexts\.csv, line 3: .*'pelvis_ct'.*'pelvis_mr'"):
        read_contexts(file, KNOWN)


def test_cases_without_a_context_are_listed(tmp_path: Path) -> None:
    choice = read_contexts(write(tmp_path, json.dumps({"a": "thorax_ct"}), "contexts.json"), KNOWN)
    with pytest.raises(DataError, match=r"2 of the 3 cases .*: b, c\."):
        choice.check_cases(["c", "a", "b"])
    with pytest.raises(DataError, match="'b'"):
        choice.of("b")


def test_cases_without_an_image_are_a_warning(tmp_path: Path) -> None:
    choice = ContextChoice(None, {"a": "thorax_ct", "b": "thorax_ct"}, "contexts.csv")
    assert re.fullmatch(r"contexts\.csv .*\b1 case.*: b\.", choice.check_cases(["a"]) or "")
    assert choice.check_cases(["a", "b"]) is None
