"""What was asked is written as a table of jobs that `duplus predict` reads."""

import json
from pathlib import Path

import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.jobs import read_jobs
from duplus_nnunet.napari_plugin.jobs import Done, write_jobs


def test_targets_share_a_job_and_texts_have_their_own(tmp_path: Path) -> None:
    image = tmp_path / "scans" / "ct_0000.nii.gz"
    done = [
        Done((image,), "ct", "amos_ct", "liver", True),
        Done((image,), "ct", "amos_ct", "renal pelvis; left", False),
        Done((image,), "ct", "amos_ct", "spleen", True),
        Done((image,), "CT", "amos_mr", "liver", True),
    ]
    write_jobs(tmp_path / "jobs.json", done, tmp_path / "own")
    first, text, other = read_jobs(tmp_path / "jobs.json", ".nii.gz")
    assert (first.case, first.context, first.targets, first.prompts) == ("ct", "amos_ct", ("liver", "spleen"), ())
    assert (text.case, text.targets, text.prompts) == ("ct_2", (), ("renal pelvis; left",))
    assert (other.case, other.context, other.targets) == ("CT_3", "amos_mr", ("liver",))
    assert {job.images for job in (first, text, other)} == {(str(image),)}


def test_images_without_a_file_are_copied_beside_the_table(tmp_path: Path) -> None:
    own = tmp_path / "own"
    files = (own / "1" / "scan_0000.nii.gz", own / "1" / "scan_0001.nii.gz")
    own.joinpath("1").mkdir(parents=True)
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
    write_jobs(tmp_path / "saved" / "jobs.json", [Done(files, "scan", "ct", "liver", True)], own)
    (row,) = json.loads((tmp_path / "saved" / "jobs.json").read_text())
    assert not any(Path(image).is_absolute() for image in row["image"])
    (job,) = read_jobs(tmp_path / "saved" / "jobs.json", ".nii.gz")
    assert [Path(image).read_bytes() for image in job.images] == [b"\0", b"\1"]


def test_nothing_and_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="target"):
        write_jobs(tmp_path / "jobs.json", [], tmp_path)
    with pytest.raises(DataError, match=r"\.json"):
        write_jobs(tmp_path / "jobs.txt", [Done((), "a", "b", "c", True)], tmp_path)
    assert list(tmp_path.iterdir()) == []
