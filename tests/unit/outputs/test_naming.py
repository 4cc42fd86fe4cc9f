"""File names of targets and cases."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs.naming import find_case_folder, name_files


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


def test_case_keeps_its_own_name() -> None:
    assert find_case_folder(Path("out"), "Fall ü 1.2") == Path("out") / "Fall ü 1.2"


@pytest.mark.parametrize("case", ["", ".", "..", "a/b", "..\\b"])
def test_case_that_leads_elsewhere_is_refused(case: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(case))):
        find_case_folder(Path("out"), case)
