"""What `duplus survival predict` says while it runs: warnings summed up, and progress."""

from duplus_nnunet.survival.prediction.notices import list_notices
from duplus_nnunet.survival.prediction.rows import PatientPrediction


def make_row(patient: str, *warnings: str) -> PatientPrediction:
    return PatientPrediction(patient, 0.0, (), (), None, "", (), 0, warnings)


ROWS = [make_row("a", "old", "no image"), make_row("b", "no image"), make_row("c", "no image"), make_row("d")]


def test_a_warning_of_several_patients_is_one_line() -> None:
    lines = list(list_notices(ROWS, ()))
    assert len(lines) == 2
    assert "a, b, c" in lines[1]


def test_warnings_of_patients_who_were_not_asked_for_are_one_line() -> None:
    lines = list(list_notices([make_row("x", "odd"), *ROWS], {"x"}))
    assert len(lines) == 2
    assert "x: odd" in lines[0]
    assert "a, b, c, d" in lines[1]
