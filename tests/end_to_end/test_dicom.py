"""The shipped example from DICOM series made of its images: by commands and in Python, without a patient's name."""

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from duplus_nnunet.api import DuPLUSPredictor
from duplus_nnunet.demo.scores import measure_dice
from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.example.sources import TARGETS

from ..dicom_series import NAMES, write_export
from .conftest import Project

CONTEXTS = {"ct": "phantom_ct", "mr": "phantom_mr", "pet": "phantom_pet"}
QUICK = ("-f", "0", "-device", "cpu", "--disable_tta")


def name(uid):
    return f"series_{hashlib.sha256(uid.encode()).hexdigest()[:8]}"


@pytest.fixture(scope="module")
def export(example_model, tmp_path_factory):
    """A folder of three series, and the UID of each."""
    folder = tmp_path_factory.mktemp("dicom") / "export"
    return folder, write_export(example_model / "images", folder)


@pytest.fixture(scope="module")
def predicted(example_model, export, tmp_path_factory):
    """A zip file of the series, predicted by the command with all that is written beside the label maps."""
    folder = tmp_path_factory.mktemp("predicted")
    packed = shutil.make_archive(str(folder / "export"), "zip", export[0])
    more = ("--statistics", "--preview", "--split", "--probabilities", "--save_probabilities")
    words = ("predict", "-m", example_model / "model", "-i", packed, "-o", folder / "out", *QUICK, *more)
    done = Project(folder).run("duplus", *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "log.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture(scope="module")
def predictor(example_model):
    return DuPLUSPredictor.from_folder(example_model / "model", folds=(0,), device="cpu", mirroring=False)


@pytest.mark.parametrize("case", CONTEXTS)
def test_masks_lie_on_the_grid_of_the_series_and_find_the_targets(case, predicted, export, example_model):
    image = nibabel.load(predicted / "out" / f"{name(export[1][case])}.nii.gz")
    truth = nibabel.load(example_model / "labels" / f"{case}.nii.gz")
    np.testing.assert_allclose(image.affine, truth.affine, atol=1e-3)
    values = json.loads((example_model / "model" / "dataset.json").read_text())["labels"]
    labels, expected = np.asarray(image.dataobj), np.asarray(truth.dataobj)
    dice = {target: measure_dice(labels, expected, values[target]) for target in TARGETS}
    assert min(dice.values()) > 0.8, dice


def test_manifest_says_what_the_series_is(predicted, export):
    cases = json.loads((predicted / "out" / "manifest.json").read_text())["cases"]
    assert {name(export[1][case]): context for case, context in CONTEXTS.items()} == {
        case: record["context"] for case, record in cases.items()
    }
    assert all(record["inputs"][0]["sha256"] for record in cases.values())
    assert any("3600 s" in warning for warning in cases[name(export[1]["pet"])]["warnings"])


def test_nothing_that_is_written_names_the_patient(predicted):
    files = [file for file in (*(predicted / "out").rglob("*"), predicted / "log.txt") if file.is_file()]
    assert len(files) > 20
    for file in files:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for word in (*NAMES.values(), "Doe", "DOE_JANE"):
            assert word.encode() not in content, (file, word)
            assert word not in file.name


def test_complete_cases_are_left_out_when_continued(predicted, example_model, tmp_path):
    out = shutil.copytree(predicted / "out", tmp_path / "out")
    more = ("--statistics", "--preview", "--split", "--probabilities", "--save_probabilities", "--continue_prediction")
    words = ("predict", "-m", example_model / "model", "-i", predicted / "export.zip", "-o", out, *QUICK, *more)
    assert "3 of 3 cases are complete" in Project(tmp_path).do("duplus", *words)


def test_python_gives_the_same_label_map(predicted, export, predictor):
    prediction = predictor.predict(export[0], series="MR")
    assert prediction.context == "phantom_mr"
    expected = nibabel.load(predicted / "out" / f"{name(export[1]['mr'])}.nii.gz")
    ours = prediction.to_nibabel()
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(ours.affine, expected.affine, atol=1e-3)


def test_several_series_and_contexts_that_do_not_fit_are_refused(export, predictor):
    with pytest.raises(DataError, match="3 series"):
        predictor.predict(export[0])
    with pytest.raises(DataError, match="phantom_ct"):
        predictor.predict(export[0], series="MR", context="phantom_ct")
    with pytest.raises(PromptError, match="phantom_us"):
        predictor.predict(export[0], series="MR", context="phantom_us")


def test_a_table_of_jobs_names_folders_of_series(export, example_model, tmp_path):
    folders = dict(zip(CONTEXTS, sorted(export[0].iterdir()), strict=True))
    lines = ["case,image,targets", f"a,{folders['ct']},liver", f"b,{folders['pet']},spleen"]
    (tmp_path / "jobs.csv").write_text("\n".join(lines))
    words = ("predict", "-m", example_model / "model", "--jobs", tmp_path / "jobs.csv", "-o", tmp_path / "out", *QUICK)
    Project(tmp_path).do("duplus", *words)
    cases = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert {case: (record["context"], list(record["prompts"])) for case, record in cases.items()} == {
        "a": ("phantom_ct", ["liver"]),
        "b": ("phantom_pet", ["spleen"]),
    }


def test_patient_ids_are_kept_where_asked_for(export, example_model, tmp_path):
    words = ("predict", "-m", example_model / "model", "-i", export[0], "-o", tmp_path / "out", *QUICK)
    Project(tmp_path).do("duplus", *words, "--series", "CT", "--keep-ids", "--targets", "liver")
    assert len(list((tmp_path / "out").glob(f"{NAMES['PatientID']}_*.nii.gz"))) == 1


def test_list_and_nifti_of_the_command(export, example_model, tmp_path):
    project = Project(tmp_path)
    listed = json.loads(project.do("duplus", "dicom", "list", export[0], "--json"))["series"]
    assert {row["modality"] for row in listed} == {"CT", "MR", "PT"}
    assert NAMES["PatientID"] not in json.dumps(listed)
    table = project.do("duplus", "dicom", "list", export[0], "--keep-ids")
    assert NAMES["PatientID"] in table
    project.do("duplus", "dicom", "to-nifti", export[0], "-o", tmp_path / "nifti")
    for case in CONTEXTS:
        made = nibabel.load(tmp_path / "nifti" / f"{name(export[1][case])}_0000.nii.gz")
        original = nibabel.load(Path(example_model) / "images" / f"{case}_0000.nii.gz")
        expected = np.asarray(original.dataobj, float)
        atol = 0.5 if case == "ct" else expected.max() / 30000
        np.testing.assert_allclose(np.asarray(made.dataobj), expected, atol=atol)
        np.testing.assert_allclose(made.affine, original.affine, atol=1e-3)


def test_a_table_of_jobs_writes_segmentations_of_its_series(export, example_model, tmp_path):
    folders = dict(zip(CONTEXTS, sorted(export[0].iterdir()), strict=True))
    lines = ["case,image,targets", f"a,{folders['ct']},liver", f"b,{folders['mr']},spleen"]
    (tmp_path / "DOE_JANE").mkdir()
    (tmp_path / "DOE_JANE" / "jobs.csv").write_text("\n".join(lines))
    words = ("predict", "-m", example_model / "model", "--jobs", tmp_path / "DOE_JANE" / "jobs.csv")
    words += ("-o", tmp_path / "out")
    Project(tmp_path).do("duplus", *words, *QUICK, "--output-format", "dicom-seg")
    for case, modality, target in (("a", "ct", "liver"), ("b", "mr", "spleen")):
        content = pydicom.dcmread(tmp_path / "out" / f"{case}_seg.dcm")
        assert content.ReferencedSeriesSequence[0].SeriesInstanceUID == export[1][modality]
        assert [str(segment.SegmentLabel) for segment in content.SegmentSequence] == [target]
        mask = np.asarray(nibabel.load(tmp_path / "out" / f"{case}.nii.gz").dataobj) > 0
        assert np.count_nonzero(content.pixel_array) == np.count_nonzero(mask)
    kept = [file for file in (tmp_path / "out").rglob("*") if file.suffix in (".json", ".csv")]
    text = "".join(file.read_text() for file in kept if "predict_from_raw_data_args" not in file.name)
    assert not [word for word in (*NAMES.values(), "DOE_JANE", str(export[0])) if word in text]


def test_a_table_of_jobs_that_all_fail_writes_no_folder_of_an_image(export, example_model, tmp_path):
    source = shutil.copytree(sorted(export[0].iterdir())[0], tmp_path / "DOE_JANE")
    for file in source.iterdir():
        content = pydicom.dcmread(file)
        content.PixelData = content.PixelData[:40]
        content.save_as(file)
    (tmp_path / "plain_Jane").mkdir()
    (tmp_path / "plain_Jane" / "image_0000.nii.gz").write_bytes(b"no image")
    lines = ["case,image,targets,context", f"a,{source},liver,phantom_ct"]
    lines += [f"b,{tmp_path / 'plain_Jane' / 'image_0000.nii.gz'},liver,phantom_ct"]
    (tmp_path / "jobs.csv").write_text("\n".join(lines))
    words = ("predict", "-m", example_model / "model", "--jobs", tmp_path / "jobs.csv", "-o", tmp_path / "out", *QUICK)
    assert Project(tmp_path).run("duplus", *words).returncode == 1
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert set(json.loads(text)["cases"]) == {"a", "b"}
    assert not [word for word in (*NAMES.values(), "DOE_JANE", "plain_Jane", str(tmp_path)) if word in text]
