"""Tables of jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import DataError, HostError
from duplus_nnunet.inference.jobs import group_jobs, read_jobs, require_storages


def read(tmp_path: Path, content: Any, name: str = "jobs.csv") -> Any:
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_jobs(file, ".nii.gz")


def test_a_csv_gives_lists_where_there_are_semicolons(tmp_path: Path) -> None:
    (job,) = read(tmp_path, "case,image,context,targets,prompts\na,x_0000.nii.gz;x_0001.nii.gz,ct,liver; spleen,\n")
    assert job.case == "a"
    assert job.images == (str(tmp_path / "x_0000.nii.gz"), str(tmp_path / "x_0001.nii.gz"))
    assert (job.context, job.targets, job.prompts) == ("ct", ("liver", "spleen"), ())


def test_a_json_says_the_same_as_a_csv(tmp_path: Path) -> None:
    rows = [{"case": "a", "image": ["x_0000.nii.gz"], "context": "ct", "targets": ["liver"], "prompts": ["a b, c"]}]
    in_json = read(tmp_path, rows, "jobs.json")[0]
    in_csv = read(tmp_path, 'case,image,context,targets,prompts\na,x_0000.nii.gz,ct,liver,"a b, c"\n')[0]
    assert {**vars(in_json), "origin": ""} == {**vars(in_csv), "origin": ""}


def test_the_image_alone_is_enough(tmp_path: Path) -> None:
    first, second = read(tmp_path, "image\nscan_0000.nii.gz\nother.nii.gz\n")
    assert (first.case, second.case) == ("scan", "other")
    assert (first.context, first.targets) == ("", ())


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "x.nii.gz"
    assert read(tmp_path, f"image\n{file}\n")[0].images == (str(file),)


def test_jobs_of_one_selection_are_run_together(tmp_path: Path) -> None:
    jobs = read(tmp_path, "image,targets\na.nii.gz,liver\nb.nii.gz,spleen\nc.nii.gz,liver\n")
    assert [[job.case for job in group] for group in group_jobs(jobs)] == [["a", "c"], ["b"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,organ\nx.nii.gz,liver\n", "Did you mean"),
        ("case,context\na,ct\n", "no image"),
        ("image\n", r"jobs\.\w+ "),
        ("", r"jobs\.\w+ "),
        ("case,image\na,x.nii.gz\nA,y.nii.gz\n", "line 2 and line 3 .*'[Aascn]+'"),
        ("image\nx/scan.nii.gz\ny/scan.nii.gz\n", "line 2 and line 3 .*'[Aascn]+'"),
        ("case,image\n../a,x.nii.gz\n", r"'\.\./a'"),
        ("image\nx.nii.gz,y,z\n", "line 2: .*header"),
    ],
)
def test_a_bad_csv_says_where(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON"),
        ({"image": "x"}, "dict"),
        ([{"image": "x", "target": "liver"}], "Did you mean 'targets'"),
        ([{"image": 3}], "(3|'liver', 3)"),
        ([{"image": ["x"], "targets": ["liver", 3]}], "(3|'liver', 3)"),
        ([], r"jobs\.\w+ "),
    ],
)
def test_a_bad_json_says_where(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content, "jobs.json")


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.csv or \.json"):
        read(tmp_path, "image\nx\n", "jobs.xlsx")
    with pytest.raises(DataError, match="cannot be read"):
        read_jobs(tmp_path / "none.csv", ".nii.gz")


def test_a_url_stays_and_names_its_case(tmp_path: Path) -> None:
    (job,) = read(tmp_path, "image\nhttps://me:secret@host/in/scan_0000.nii.gz?sig=ab\n")
    assert job.images == ("https://me:secret@host/in/scan_0000.nii.gz?sig=ab",)
    assert job.case == "scan"


@pytest.mark.parametrize("url", ["s3://me:secret@bucket/series", "s3://me:secret@bucket/series.zip"])
def test_what_is_no_image_at_a_url_is_refused_without_credentials(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="DICOM") as caught:
        read(tmp_path, f"image\n{url}\n")
    assert "secret" not in str(caught.value)


def test_the_missing_package_of_a_storage_is_named_with_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = read(tmp_path, "image\na_0000.nii.gz\ns3://bucket/b_0000.nii.gz\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HostError, match=r"line 3.*s3fs"):
        require_storages(jobs)
    require_storages(jobs[:1])
