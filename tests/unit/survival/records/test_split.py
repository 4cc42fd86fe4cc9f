"""`duplus survival split` assigns patients, not cases, to folds, and overwrites nothing."""

import json
from pathlib import Path

import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.data.case_table import Case, CaseTable, Source, write_case_table

NAME = "Dataset990_Lesions"
SCHEMA = """\
patient: patient
time: {column: days}
event: {column: event, seen: [1], censored: [0]}
cases: '^([^_]+)_'
covariates:
  age: {type: numeric}
"""


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve patients with a CT and a PET, one without a record, one whose images are for testing."""
    raw, preprocessed = tmp_path / "raw" / NAME, tmp_path / "preprocessed" / NAME
    for folder in (raw / "imagesTr", raw / "imagesTs", preprocessed):
        folder.mkdir(parents=True)
    (raw / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
    rows = [f"p{number:02d},{100 + number},{number % 2},{50 + number}" for number in range(13)]
    (raw / "clinical.csv").write_text("\n".join(["patient,days,event,age", *rows]))
    (raw / "clinical.yaml").write_text(SCHEMA)
    (raw / "imagesTs" / "p12_ct_0000.nii.gz").write_bytes(b"")
    names = [f"p{number:02d}_{kind}" for number in range(12) for kind in ("ct", "pet")] + ["zoe_ct"]
    cases = {name: Case("s", name.split("_")[0], ("t",), ("t",)) for name in names}
    write_case_table(CaseTable({"s": Source(NAME, "ct", ("t",), ("CT",))}, cases), preprocessed)
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
    return preprocessed


def test_all_cases_of_a_patient_are_on_one_side_and_each_patient_is_held_out_once(planned: Path) -> None:
    assert main(["survival", "split", "990", "--folds", "3"]) == 0
    splits = json.loads((planned / "splits_final.json").read_text())
    held = [case for fold in splits for case in fold["val"]]
    assert sorted(held) == sorted(f"p{number:02d}_{kind}" for number in range(12) for kind in ("ct", "pet"))
    for fold in splits:
        assert not {case.split("_")[0] for case in fold["train"]} & {case.split("_")[0] for case in fold["val"]}
        assert "zoe_ct" in fold["train"]
        assert sum(int(case[1:3]) % 2 for case in fold["val"] if case.endswith("_ct")) == 2  # of 6 events


def test_folds_can_be_drawn_again_and_are_numbered_on(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["survival", "split", "990", "--folds", "3", "--seed", "1"])
    second = json.loads((planned / "splits_final.json").read_text())
    (planned / "splits_final.json").unlink()
    assert main(["survival", "split", "990", "--folds", "3", "--repeats", "2"]) == 0
    splits = json.loads((planned / "splits_final.json").read_text())
    assert len(splits) == 6
    assert splits[3:] == second
    assert splits[:3] != second
    assert sorted(case for fold in splits[:3] for case in fold["val"]) == sorted(
        case for fold in splits[3:] for case in fold["val"]
    )
    assert "fold 5: 4 patients" in capsys.readouterr().out
    assert main(["survival", "split", "990", "--repeats", "0"]) == 1
    assert "--repeats" in capsys.readouterr().err


def test_the_same_folds_are_left_and_others_are_not_overwritten(
    planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["survival", "split", "990", "--folds", "3"])
    before = (planned / "splits_final.json").read_bytes()
    assert main(["survival", "split", "990", "--folds", "3"]) == 0
    assert "splits_final.json" in capsys.readouterr().out
    assert main(["survival", "split", "990", "--folds", "3", "--seed", "1"]) == 1
    assert "splits_final.json" in capsys.readouterr().err
    assert (planned / "splits_final.json").read_bytes() == before


def test_a_patient_with_training_and_test_images_is_refused(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (planned.parents[1] / "raw" / NAME / "imagesTs" / "p03_mr_0000.nii.gz").write_bytes(b"")
    assert main(["survival", "split", "990"]) == 1
    assert "'p03'" in capsys.readouterr().err


def test_a_dataset_that_was_not_planned_is_refused(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (planned / "duplus_cases.json").unlink()
    planned.rmdir()
    assert main(["survival", "split", "990"]) == 1
    assert NAME in capsys.readouterr().err


def test_a_table_that_cannot_be_used_is_refused(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (planned.parents[1] / "raw" / NAME / "clinical.csv").open("a") as file:
        file.write("\np00,5,1,50")
    assert main(["survival", "split", "990"]) == 1
    error = capsys.readouterr().err
    assert "'p00'" in error
    assert "2 rows" in error
