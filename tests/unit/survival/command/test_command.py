"""The command `duplus survival`: drafting, checking and evaluating a clinical table."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from duplus_nnunet import cli
from duplus_nnunet.errors import DataError
from duplus_nnunet.survival.records.drafting import NamedColumns, draft
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import Rows, read_records

TABLE = """\
patient,age,sex,grade,hospital,event_relapse,time_months,note,stage
{rows}"""


def make_table(count: int = 24) -> str:
    rows = [
        f"P_{n:02d},{40 + n * 7 % 31},{'FM'[n // 2 % 2]},{('Low', 'Intermediate', 'High')[n % 3]},{'AB'[n % 2]},"
        f"{n % 2},{1 + n * 5 % 23}.5,seen by Dr {n},III"
        for n in range(count)
    ]
    return TABLE.format(rows="\n".join(rows))


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "Dataset007_Sarcoma"
    (folder / "imagesTr").mkdir(parents=True)
    for number in range(24):
        (folder / "imagesTr" / f"P_{number:02d}_0000.nii.gz").touch()
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
    (folder / "clinical.csv").write_text(make_table())
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    return folder


def guess(text: str, cases: tuple[str, ...] = (), **named: Any) -> dict[str, Any]:
    lines = [line.split(",") for line in text.splitlines()]
    rows = Rows("t.csv", tuple(lines[0]), tuple(dict(zip(lines[0], line, strict=True)) for line in lines[1:]))
    content: dict[str, Any] = yaml.safe_load(draft(rows, cases, NamedColumns(**named)))
    records, findings = read_records(rows, ClinicalSchema.model_validate(content))
    assert len(records) == len(rows.rows), findings
    return content


def test_a_draft_can_be_used_at_once(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["survival", "draft", "7"]) == 0
    drafted = yaml.safe_load((dataset / "clinical.yaml").read_text())
    assert drafted["patient"] == "patient"
    assert drafted["centre"] == "hospital"
    assert drafted["time"] == {"column": "time_months", "unit": "months"}
    assert drafted["event"] == {"column": "event_relapse", "seen": [1], "censored": [0]}
    assert drafted["covariates"] == {
        "age": {"type": "numeric"},
        "sex": {"type": "categorical"},
        "grade": {"type": "ordinal", "order": ["Low", "Intermediate", "High"]},
    }
    assert set(drafted["ignored"]) == {"note", "stage"}
    capsys.readouterr()
    assert cli.main(["survival", "check", "7"]) == 0
    out = capsys.readouterr().out
    assert [int(number) for number in re.findall(r"\d+", out.splitlines()[0])] == [24, 24, 12]
    assert "A  12 patients, 0 with the event" in out


def test_a_schema_is_not_overwritten(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dataset / "clinical.yaml").write_text("mine")
    assert cli.main(["survival", "draft", "7"]) == 1
    assert "clinical.yaml" in capsys.readouterr().err
    assert (dataset / "clinical.yaml").read_text() == "mine"


def test_errors_end_with_exit_code_1_and_json_holds_them(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["survival", "draft", "7"]) == 0
    (dataset / "clinical.csv").write_text(make_table() + "\nP_99,50,F,Low,A,2,3.5,x,III\n")
    capsys.readouterr()
    assert cli.main(["survival", "check", "7", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["patients"], found["events"]) == (25, 24, 12)
    assert found["findings"][0]["severity"] == "error"
    assert re.search(r"25.*P_99.*'event_relapse'.*'2'", found["findings"][0]["text"])


def test_a_table_no_row_of_which_can_be_read_is_reported(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["survival", "draft", "7"]) == 0
    (dataset / "clinical.csv").write_text(make_table().replace(".5,", " months,"))
    capsys.readouterr()
    assert cli.main(["survival", "check", "7"]) == 1
    out = capsys.readouterr().out
    assert [int(number) for number in re.findall(r"\d+", out.splitlines()[0])] == [24, 0, 0]
    assert cli.main(["survival", "evaluate", "7"]) == 1
    assert cli.main(["survival", "check", "7", "--json"]) == 1


def test_images_of_more_datasets_count(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = dataset.with_name("Dataset008_MR")
    (other / "imagesTs").mkdir(parents=True)
    (other / "imagesTs" / "Q_01_0000.nii.gz").touch()
    (other / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "channel_names": {"0": "MR"}}))
    assert cli.main(["survival", "draft", "7"]) == 0
    assert cli.main(["survival", "check", "7", "8"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"1 of 25 .*: Q_01", out)
    assert re.search(r"Dataset008_MR \(MR\): 24 of 24 ", out)
    assert "Dataset007_Sarcoma (CT)" not in out  # all patients have an image there


def test_patients_with_images_in_imagests_alone_are_left_out_unless_asked_for(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sksurv")
    assert cli.main(["survival", "draft", "7"]) == 0
    (dataset / "imagesTs").mkdir()
    for number in range(4):
        name = f"P_{number:02d}_0000.nii.gz"
        (dataset / "imagesTr" / name).rename(dataset / "imagesTs" / name)
    assert cli.main(["survival", "check", "7"]) == 0
    assert "note: 4 patient(s)" in capsys.readouterr().out
    arguments = ["survival", "evaluate", "7", "--folds", "3", "--seeds", "1", "--json"]
    assert cli.main(arguments) == 0
    answer = capsys.readouterr()
    assert "note: 4 patient(s)" in answer.err
    assert json.loads(answer.out)["scored"]["patients"] == 20
    assert cli.main([*arguments, "--with-test-patients"]) == 0
    assert json.loads(capsys.readouterr().out)["scored"]["patients"] == 24
    for image in (dataset / "imagesTr").iterdir():
        image.rename(dataset / "imagesTs" / image.name)
    assert cli.main(arguments) == 1
    assert "--with-test-patients" in capsys.readouterr().err


def test_a_missing_table_or_missing_images_are_errors(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dataset / "clinical.csv").unlink()
    assert cli.main(["survival", "draft", "7"]) == 1
    assert "clinical.csv" in capsys.readouterr().err
    for image in (dataset / "imagesTr").iterdir():
        image.unlink()
    assert cli.main(["survival", "check", "7"]) == 1


@pytest.mark.parametrize(
    ("cases", "pattern", "found"),
    [
        (("P1", "P2"), None, "P1"),
        (("P1_CT", "P2_CT", "P2_PET"), "^([^_]+)", "P1"),
        (("P1-0", "P2-1"), r"^([^\-]+)", "P1"),
        (("CT_P1", "PET_P1", "CT_P2"), "^(?:PET_|CT_)(.+)$", "P1"),
        (("CT_2_P1", "CT_P1"), "^(?:CT_2_|CT_)(.+)$", "P1"),
        (("A1_P1", "A1_elsewhere"), "^(?:A1_)(.+)$", "P1"),
        (("scanP1", "scanP2"), None, "scanP1"),
    ],
)
def test_patients_are_found_in_case_identifiers(cases: tuple[str, ...], pattern: str | None, found: str) -> None:
    text = "patient,time,event\nP1,5,1\nP2,6,0"
    drafted = guess(text, cases)
    assert drafted.get("cases") == pattern
    assert ClinicalSchema.model_validate(drafted).find_patient(cases[0]) == found


def test_patients_with_the_separator_in_their_names_are_found_too() -> None:
    drafted = guess("patient,time,event\nA_1,5,1\nA_2,6,0", ("A_1_CT", "A_2_PET"))
    assert ClinicalSchema.model_validate(drafted).find_patient("A_2_PET") == "A_2"


def test_columns_can_be_named_where_the_draft_cannot_guess_them() -> None:
    text = "who,x,y\nP1,5,1\nP2,6,0\nP3,7,0"
    with pytest.raises(DataError, match="--event COLUMN --time COLUMN"):
        guess(text)
    drafted = guess(text, patient="who", time="x", event="y")
    assert drafted["event"] == {"column": "y", "seen": [1], "censored": [0]}
    with pytest.raises(DataError, match="Unknown column 'z'"):
        guess(text, patient="z")


def test_codes_in_words_and_of_competing_events_are_recognised() -> None:
    drafted = guess("patient,time,status\nP1,5,dead\nP2,6,alive\nP3,7,other", event="status")
    assert drafted["event"] == {"column": "status", "seen": ["dead"], "censored": ["alive"], "competing": ["other"]}


@pytest.mark.parametrize("codes", [("progressed?", "stable"), ("1", "2", "3"), ("DOD", "CR", "AWD"), ("no", "0")])
def test_unclear_codes_must_be_given(codes: tuple[str, ...]) -> None:
    text = "patient,time,outcome\n" + "\n".join(f"P{n},{n + 5},{codes[n % len(codes)]}" for n in range(6))
    with pytest.raises(DataError, match=r"--seen CODE --censored CODE"):
        guess(text, event="outcome")
    drafted = guess(text, event="outcome", seen=(codes[0],), censored=codes[1:])["event"]
    assert [str(code).casefold() for code in drafted["seen"]] == [codes[0].casefold()]
    with pytest.raises(DataError, match="Unknown code 'x'"):
        guess(text, event="outcome", seen=("x",))
    first = min(code.casefold() for code in codes)
    with pytest.raises(DataError, match=f"code '{re.escape(first)}'"):
        guess(text, event="outcome", seen=codes, censored=codes)


@pytest.mark.parametrize(("one", "other"), [("Died", "No"), ("progressed", "stable"), ("²", "0"), ("1", "²")])
def test_one_known_code_implies_the_other(one: str, other: str) -> None:
    drafted = guess(f"patient,time,status\nP1,5,{one}\nP2,6,{other}", event="status")["event"]
    assert [str(drafted[kind][0]) for kind in ("seen", "censored")] == [one.casefold(), other.casefold()]


def test_a_column_of_the_living_is_not_taken_for_one_of_events() -> None:
    text = "patient,time,alive\nP1,5,1\nP2,6,0"
    with pytest.raises(DataError, match="--seen CODE"):
        guess(text, event="alive")
    assert guess(text, event="alive", seen=("0",))["event"] == {"column": "alive", "seen": [0], "censored": [1]}


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("os_status,pfs_time,os_time", ("os_status", "os_time")),
        ("relapse,OSTime,OSStatus,age", ("OSStatus", "OSTime")),
        ("death,time_os,relapse,age", ("death", "time_os")),
    ],
)
def test_a_time_is_taken_with_its_own_event(header: str, pair: tuple[str, str]) -> None:
    names = header.split(",")
    numbers = {name: ("5", "6") if re.search("time|months|age", name, re.I) else ("1", "0") for name in names}
    text = "\n".join([f"patient,{header}", *(f"P{n}," + ",".join(numbers[name][n] for name in names) for n in (0, 1))])
    drafted = guess(text)
    assert (drafted["event"]["column"], drafted["time"]["column"]) == pair


def test_other_times_and_events_are_named_in_the_draft() -> None:
    columns = ("patient", "death", "time_os", "relapse", "time_rfs")
    rows = Rows("t.csv", columns, tuple(dict(zip(columns, line, strict=True)) for line in ("a1516", "b0708")))
    assert re.search(r"# .*: relapse, time_rfs\.", draft(rows, (), NamedColumns(endpoint="death")))


def test_a_time_of_entry_is_no_covariate() -> None:
    text = "id,time_entry,time_exit,died,start\na,0,5,1,9\nb,2,6,0,1\nc,,7,1,2\n"
    content = guess(text)
    assert (content["entry"], content["time"]["column"], content["event"]["column"]) == (
        "time_entry",
        "time_exit",
        "died",
    )
    assert "entry" not in guess(text.replace("b,2,6", "b,8,6"))


@pytest.mark.parametrize(
    ("name", "is_entry"),
    [("entry_days", True), ("delayedEntry", True), ("tstart", True), ("age_at_entry", False), ("start_dose", False)],
)
def test_measurements_at_entry_are_covariates(name: str, is_entry: bool) -> None:
    content = guess(f"id,time,died,{name}\na,90,1,0\nb,80,0,51\nc,70,1,62\n")
    assert (content.get("entry") == name) == is_entry
    assert (name in content["covariates"]) != is_entry


def test_none_can_be_a_value_and_identifiers_are_no_covariates() -> None:
    lines = [
        f"P{n},{n + 5},{n % 2},{('None', 'Yes')[n // 2 % 2]},{('none', 'mild', 'severe')[n % 3]},"
        f"{('Unknown', 'Yes')[n % 2]},{70000 + n * 7919 % 9973},{n + 1},{n % 3},{40 + n * 7 % 31}"
        for n in range(24)
    ]
    header = "patient,time,event,chemo,pain,smoker,number,line,site_id,age"
    drafted = guess("\n".join([header, *lines]), patient="patient", unit="days")
    assert drafted["covariates"] == {
        "chemo": {"type": "ordinal", "order": ["None", "Yes"]},
        "pain": {"type": "ordinal", "order": ["none", "mild", "severe"]},
        "age": {"type": "numeric"},
    }
    assert set(drafted["ignored"]) == {"smoker", "number", "line", "site_id"}
    assert "'Unknown'" in drafted["ignored"]["smoker"]


def test_an_event_that_some_lack_is_found_all_the_same() -> None:
    columns = ("patient", "time", "event")
    lines = (("a", "5", "1"), ("b", "6", "0"), ("c", "7", "NA"))
    rows = Rows("t.csv", columns, tuple(dict(zip(columns, line, strict=True)) for line in lines))
    assert yaml.safe_load(draft(rows, (), NamedColumns()))["event"] == {"column": "event", "seen": [1], "censored": [0]}


def test_an_event_is_preferred_to_a_status_and_codes_of_r_are_known() -> None:
    drafted = guess("PatientID,time,HPV_status,Relapse\nP1,5,1,1\nP2,6,1,0\nP3,7,0,0")
    assert drafted["event"]["column"] == "Relapse"
    drafted = guess("patient,time,status\nP1,5,1\nP2,6,2", event="status")
    assert drafted["event"] == {"column": "status", "seen": [2], "censored": [1]}


@pytest.mark.parametrize(
    ("text", "named", "message"),
    [
        ("patient,time,event\nP1,5,0\nP2,6,0", {}, "'event'.* 1 code"),
        ("patient,time,event\nP1,5,0\nP2,6,1", {"time": "event"}, "event.*event"),
    ],
)
def test_a_draft_that_cannot_be_made_has_its_reason(text: str, named: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        guess(text, **named)


def test_a_patient_column_is_no_centre() -> None:
    assert "centre" not in guess("hospital_id,time,event\nP1,5,0\nP2,6,1")


def test_columns_known_only_after_treatment_are_ignored() -> None:
    drafted = guess("patient,time,event,response,last_contact\nP1,5,1,2,3\nP2,6,0,3,4\nP3,7,0,4,5")
    assert set(drafted["ignored"]) == {"response", "last_contact"}


def test_records_are_cross_validated(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sksurv")
    assert cli.main(["survival", "draft", "7"]) == 0
    capsys.readouterr()
    words = ["survival", "evaluate", "7", "-o", str(tmp_path / "out"), "--folds", "2", "--seeds", "1"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:2] == ["Harrell's", "C"]
    assert "random survival forest" in out
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["seeds"] == [0]
    files = ("predictions.csv", "survival_curves.csv", "kaplan_meier.png", "calibration.png", "model_card.md")
    assert all((tmp_path / "out" / name).is_file() for name in files)
    assert "Dataset007_Sarcoma" in (tmp_path / "out" / "model_card.md").read_text()


def test_a_table_with_errors_is_not_cross_validated(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sksurv")
    assert cli.main(["survival", "draft", "7"]) == 0
    (dataset / "clinical.csv").write_text(make_table() + "\nP_99,50,F,Low,A,2,3.5,x,III\n")
    assert cli.main(["survival", "evaluate", "7"]) == 1
    assert re.search(r"error: .*P_99", capsys.readouterr().err)
    (dataset / "clinical.csv").write_text(make_table())
    assert cli.main(["survival", "evaluate", "7", "--folds", "13"]) == 1
    assert re.search(r"13 folds.* 12 patients", capsys.readouterr().err)
    for horizon in ("-1", "nan"):
        assert cli.main(["survival", "evaluate", "7", "--horizons", horizon]) == 1
        assert f"(--horizons) are {horizon};" in capsys.readouterr().err


def test_without_scikit_survival_the_error_has_the_install_command(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sksurv", None)
    assert cli.main(["survival", "evaluate", "7"]) == 1
    assert capsys.readouterr().err.strip().endswith("pip install 'duplus-nnunet[survival]'")


def test_a_table_alone_needs_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "hospital.csv"
    table.write_text(make_table())
    assert cli.main(["survival", "draft", "--table", str(table)]) == 0
    assert (tmp_path / "hospital.yaml").is_file()
    assert cli.main(["survival", "check", "--table", str(table), "--json"]) == 0
    assert cli.main(["survival", "check"]) == 1
    assert "--table" in capsys.readouterr().err
