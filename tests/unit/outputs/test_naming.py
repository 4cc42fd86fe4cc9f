"""File names of targets and cases."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs import manifest, statistics
from duplus_nnunet.outputs.naming import (
    find_case_folder,
    name_case,
    name_cases,
    name_files,
    require_valid_text,
    show_name,
    to_valid_text,
)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("liver", "liver"),
        ("left kidney", "left_kidney"),
        ("T2-FLAIR lesion", "T2-FLAIR_lesion"),
        ("lung/upper lobe\\left", "lung_upper_lobe_left"),
        ("Größe der Drüse", "Grosse_der_Druse"),
        ("../../etc/passwd", "etc_passwd"),
        ("tumour (> 1.5 cm)", "tumour_1_5_cm"),
        ("CON", "CON_"),
        ("lpt1", "lpt1_"),
        ("肝臓", "target"),
        ("", "target"),
    ],
)
def test_name_becomes_a_file_name_for_every_system(name: str, file: str) -> None:
    assert name_files([name]) == (file,)


def test_names_that_become_the_same_are_numbered() -> None:
    assert name_files(["left kidney", "Left_Kidney", "left/kidney"]) == (
        "left_kidney",
        "Left_Kidney_2",
        "left_kidney_3",
    )


def test_number_that_is_taken_is_passed_over() -> None:
    assert name_files(["a 2", "a", "a"]) == ("a_2", "a", "a_3")


def test_long_text_is_cut() -> None:
    assert len(name_files(["tumour " * 60])[0]) <= 80


@given(st.lists(st.text(max_size=100), max_size=8))
def test_any_names_become_safe_and_different(names: list[str]) -> None:
    files = name_files(names)
    assert len({file.casefold() for file in files}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,90}", file) for file in files)
    assert not {"con", "aux", "nul", "com1"} & {file.casefold() for file in files}


@pytest.mark.parametrize(
    "case", ["case_001", "Fall ü 1.2", "P-01.v2", "manifest", "CONrad", "肝臓", "می\u200cرود", "x" * 140]
)
def test_case_keeps_its_own_name(case: str) -> None:
    assert find_case_folder(Path("out"), case) == Path("out") / case


@pytest.mark.parametrize(
    ("case", "start"),
    [
        ("", "case_"),
        ("..", "case_"),
        ("a/b", "a_b_"),
        ("..\\b", "__b_"),
        ("two\nlines", "two_lines_"),
        ("a\tb", "a_b_"),
        ("scan\u202egnp.exe", "scan_gnp.exe_"),
        ("CON", "_CON_"),
        ("nul.1", "_nul.1_"),
        ("com\u00b9", "_com\u00b9_"),
        ("-rf", "_rf_"),
        ("ends. ", "ends_"),
        ("manifest.json", "manifest.json_"),
        ("Part_0_of_2", "Part_0_of_2_"),
        ("bytes\udcff", "bytes__"),
        ("ü" * 300, "ü" * 65),
    ],
)
def test_case_that_cannot_be_a_file_gets_a_name_with_a_checksum(case: str, start: str) -> None:
    assert re.fullmatch(re.escape(start) + "_?[0-9a-f]{8}", name_case(case))


@given(st.text(st.characters(), max_size=300))
def test_any_case_becomes_a_file_name_for_every_system(case: str) -> None:
    name = name_case(case)
    assert 0 < len(name.encode()) <= 140
    assert not re.search(r'[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069<>:"/\\|?*]|^[-.]|[. ]$', name)
    assert name_case(name) == name


def test_long_cases_with_one_beginning_stay_apart() -> None:
    assert name_case("x" * 300) != name_case("x" * 301)


@pytest.mark.parametrize(
    "cases",
    [("Liver", "liver"), ("u\u0308", "ü"), ("a", "a.npz"), ("a", "a_preview.png"), ("a", "a.nii.gz"), ("a\n", "a\t")],
)
def test_cases_that_would_share_a_file_are_told_apart(cases: tuple[str, str]) -> None:
    first, second = name_cases(cases, ".nii.gz")
    assert first == name_case(cases[0])
    assert re.fullmatch(r".+_[0-9a-f]{8}", second)
    assert first.casefold() != second.casefold()


def test_own_files_are_reserved() -> None:
    own = (
        manifest.NAME,
        statistics.JSON_NAME,
        statistics.CSV_NAME,
        *(f"legend.{end}" for end in ("json", "ctbl", "label")),
    )
    assert all(name_case(name) != name for name in own)


def test_invisible_characters_are_shown_in_messages() -> None:
    assert show_name("Fall ü\n\u202e\udcff") == "Fall ü\\n\\u202e\\udcff"
    assert to_valid_text("ü\udcff") == "ü\\udcff"


def test_path_that_is_not_utf8_is_refused() -> None:
    require_valid_text("Fall ü")
    with pytest.raises(DataError, match=r"b\\udcff"):
        require_valid_text("b\udcff")
