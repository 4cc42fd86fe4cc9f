"""New patients' images are DICOM series, whose patient ID is that of the clinical table where that is asked for."""

from types import SimpleNamespace

import pytest

from duplus_nnunet.example.folder import write_example
from duplus_nnunet.survival.prediction.images import DicomChoice, list_new_images

from ....dicom_series import NAMES, write_export


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    write_example(folder)
    write_export(folder / "images", folder / "export")
    return folder


@pytest.mark.parametrize("keep_ids", [False, True])
def test_series_are_cases_in_the_context_of_their_headers(example, keep_ids):
    schema = SimpleNamespace(find_patient=lambda case: f"found in {case}")
    model = SimpleNamespace(folder=example / "model", schema=schema)
    images = list_new_images(model, example / "export", None, DicomChoice(keep_ids=keep_ids))
    assert sorted(image.source.context for image in images) == ["phantom_ct", "phantom_mr", "phantom_pet"]
    expected = {NAMES["PatientID"]} if keep_ids else {f"found in {image.source.name}" for image in images}
    assert {image.patient for image in images} == expected
    assert all((NAMES["PatientID"] in image.source.name) == keep_ids for image in images)


def test_series_are_chosen(example):
    model = SimpleNamespace(folder=example / "model", schema=SimpleNamespace(find_patient=str))
    (image,) = list_new_images(model, example / "export", "phantom_mr", DicomChoice("MR"))
    assert image.source.context == "phantom_mr"
