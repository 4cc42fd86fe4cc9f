"""The shipped example is predicted into DICOM by the command, and read back by independent programs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from ..unit.dicom.series_phantom import PATIENT, write_series
from .conftest import Project

NAMES = ("liver", "spleen", "left kidney")
READER = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent)) or shutil.which("segimage2itkimage")


def write_source(image_file: Path, folder: Path) -> list[Path]:
    """Write an image as a DICOM series."""
    image = nibabel.load(image_file)
    to_mm = np.diag([-1, -1, 1, 1]) @ image.affine
    widths = np.linalg.norm(to_mm[:3, :3], axis=0)
    directions = to_mm[:3, :3] / widths
    sign = np.sign(np.cross(directions[:, 0], directions[:, 1]) @ directions[:, 2])
    return write_series(
        folder,
        np.asarray(image.dataobj).transpose(2, 1, 0),
        direction=(*directions[:, 0], *directions[:, 1]),
        spacing=(sign * widths[2], widths[1], widths[0]),
        origin=to_mm[:3, 3],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, example_model):
    """Predict the example's CT, with the series beside it."""
    folder = tmp_path_factory.mktemp("dicom")
    (folder / "images").mkdir()
    shutil.copy(example_model / "images" / "ct_0000.nii.gz", folder / "images")
    write_source(folder / "images" / "ct_0000.nii.gz", folder / "series" / "ct")
    printed = run(folder, example_model, "--dicom-source", folder / "series")
    assert printed.returncode == 0, printed.stderr[-2000:]
    (folder / "printed.txt").write_text(printed.stdout + printed.stderr)
    return folder


def run(folder: Path, example: Path, *options: object) -> subprocess.CompletedProcess[str]:
    words = ["-m", example / "model", "-f", "0", "-i", folder / "images", "-o", folder / "out", "--disable_tta"]
    words += ["-device", "cpu", "--context", "phantom_ct", "--targets", *NAMES, "--split", "--remove-small", "0.1"]
    words += ["--keep-largest", "liver", "--output-format", "dicom-seg", "rtstruct", *options]
    return Project(folder).run("duplus", "predict", *words)


def read_mask(folder: Path, name: str) -> np.ndarray:
    image = SimpleITK.ReadImage(str(folder / "out" / "ct" / f"{name.replace(' ', '_')}.nii.gz"))
    return SimpleITK.GetArrayFromImage(image) > 0


@pytest.mark.skipif(READER is None, reason="dcmqi is not installed (extra dev)")
def test_dcmqi_reads_the_masks_that_are_written_as_nifti(folder, tmp_path):
    words = [READER, "--inputDICOM", folder / "out" / "ct_seg.dcm", "--outputDirectory", tmp_path]
    subprocess.run([*map(str, words), "--outputType", "nii", "--prefix", "s"], check=True, capture_output=True)
    grid = SimpleITK.ReadImage(str(folder / "out" / "ct.nii.gz"))
    segments = [group[0] for group in json.loads((tmp_path / "s-meta.json").read_text())["segmentAttributes"]]
    assert {segment["SegmentLabel"] for segment in segments} == set(NAMES)
    for number, segment in enumerate(segments, 1):
        image = SimpleITK.ReadImage(str(tmp_path / f"s-{number}.nii.gz"))
        laid = SimpleITK.Resample(image, grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        mask = read_mask(folder, segment["SegmentLabel"])
        assert mask.any()
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(laid) > 0, mask)


def test_rt_utils_reads_the_masks_that_are_written_as_nifti(folder):
    builder = pytest.importorskip("rt_utils", reason="extra dev").RTStructBuilder
    back = builder.create_from(str(folder / "series" / "ct"), str(folder / "out" / "ct_rtstruct.dcm"))
    for name in NAMES:
        one, other = np.moveaxis(back.get_roi_mask_by_name(name), 2, 0), read_mask(folder, name)
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.99


def test_the_files_name_the_patient_and_nothing_else_does(folder):
    for name in ("ct_seg.dcm", "ct_rtstruct.dcm"):
        content = pydicom.dcmread(folder / "out" / name)
        assert {keyword: str(content[keyword].value) for keyword in PATIENT} == PATIENT
    others = [file for file in (folder / "out").rglob("*") if file.is_file() and file.suffix in (".json", ".csv")]
    text = (folder / "printed.txt").read_text() + "".join(file.read_text() for file in others)
    text += " ".join(str(file.relative_to(folder)) for file in (folder / "out").rglob("*"))
    secrets = [PATIENT[keyword] for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber")]
    assert not [word for word in (*secrets, "Doe", "Jane") if word in text]


def test_the_manifest_lists_the_files_and_what_was_removed(folder):
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    case = manifest["cases"]["ct"]
    assert {"ct_seg.dcm", "ct_rtstruct.dcm"} <= {output["path"] for output in case["outputs"]}
    assert manifest["run"]["options"]["keep_largest"] == ["liver"]
    assert set(case["removed"]) <= set(NAMES)
    assert "dicom_source" not in manifest["run"]["options"]


def test_a_prediction_is_continued_and_other_clean_up_is_not(folder, example_model):
    again = run(folder, example_model, "--dicom-source", folder / "series", "--continue_prediction")
    assert again.returncode == 0
    assert "1 of 1 cases are complete" in again.stdout
    other = run(
        folder, example_model, "--dicom-source", folder / "series", "--continue_prediction", "--keep-largest", "spleen"
    )
    assert other.returncode == 1


def test_without_the_series_nothing_is_predicted(folder, example_model):
    refused = run(folder, example_model)
    assert refused.returncode == 1
    assert "--dicom-source" in refused.stderr


def test_a_series_is_predicted_into_files_that_refer_to_it(folder, example_model, tmp_path):
    shutil.copytree(folder / "series" / "ct", tmp_path / "images" / "study" / "series")
    done = run(tmp_path, example_model, "--disable_progress_bar")
    assert done.returncode == 0, done.stderr[-2000:]
    [written] = (tmp_path / "out").glob("*_seg.dcm")
    segmentation, source = pydicom.dcmread(written), next((folder / "series" / "ct").rglob("*.dcm"))
    [series] = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == pydicom.dcmread(source).SeriesInstanceUID
    found = {str(segment.SegmentLabel) for segment in segmentation.SegmentSequence}
    assert found == set(NAMES)
    before = pydicom.dcmread(folder / "out" / "ct_seg.dcm").pixel_array
    # The series holds whole numbers.
    assert np.count_nonzero(segmentation.pixel_array != before) < 0.005 * np.count_nonzero(before)
