"""Series with structures become a raw dataset of nnU-Net."""

import gzip
import json
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from duplus_nnunet.data.case_table import read_case_table
from duplus_nnunet.data.converted_table import read_raw_table
from duplus_nnunet.dicom.codes import NamedMask
from duplus_nnunet.dicom.rtstruct import write_structure_set
from duplus_nnunet.dicom.segmentation import write_segmentation
from duplus_nnunet.dicom.source_slices import read_source_slices
from duplus_nnunet.dicom.training_data import Choices, convert_drawn
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry import find_entry

from .series_phantom import CORONAL, PATIENT, make_masks, write_series

SHAPE = (4, 8, 9)
VOLUME = np.arange(np.prod(SHAPE)).reshape(SHAPE) - 100


def box(*ranges):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*pair) for pair in ranges)] = True
    return mask


LEFT, RIGHT, TUMOR = box((0, 4), (1, 4), (5, 8)), box((0, 4), (1, 4), (1, 4)), box((1, 3), (2, 3), (6, 7))
KIDNEYS = {"Kidney_L": LEFT, "Kidney_R": RIGHT}
NAMED = {"PatientName": "Doe^Jane", "PatientID": "PID12345", "PatientBirthDate": "19700102", "AccessionNumber": "ACC77"}


def write_patient(folder, structures, form="rtstruct", **options):
    """Write a series with a file of structures beside it."""
    files = write_series(folder / "images", VOLUME, **options)
    source = read_source_slices(files)
    targets, masks = [NamedMask(name) for name in structures], list(structures.values())
    if form == "rtstruct":
        write_structure_set(folder / "structures.dcm", source, targets, masks)
    else:
        write_segmentation(folder / "structures.dcm", source, targets, masks)
    return source


def convert(tmp_path, files=(), **choices):
    return convert_drawn(tmp_path / "in", list(files), tmp_path / "Dataset001_Clinical", Choices(**choices))


def test_a_side_is_known_by_the_other_side_in_another_patient(tmp_path):
    write_patient(tmp_path / "in" / "one", KIDNEYS, PatientID="one")
    write_patient(tmp_path / "in" / "two", {"Kidney_L": LEFT}, PatientID="two")
    done = convert(tmp_path)
    assert done.targets == {"left kidney": 2, "right kidney": 1}
    assert done.matched == {"Kidney_L": "left kidney", "Kidney_R": "right kidney"}
    assert not done.unmatched


def test_table_of_cases_has_patients_and_annotated_targets(tmp_path):
    write_patient(tmp_path / "in" / "one", KIDNEYS)
    write_patient(tmp_path / "in" / "again", {"Kidney_L": LEFT})
    write_patient(tmp_path / "in" / "two", {"Kidney_L": LEFT}, PatientID="two")
    done = convert(tmp_path)
    raw = read_case_table(done.folder)
    entry = find_entry("Dataset001_Clinical", json.loads((done.folder / "dataset.json").read_text()), done.folder)
    table = read_raw_table(done.folder, entry, json.loads((done.folder / "dataset.json").read_text()), raw.cases)
    assert sorted(case.annotated for case in table.cases.values()) == [
        ("left kidney",),
        ("left kidney",),
        ("left kidney", "right kidney"),
    ]
    assert sorted(Counter(case.patient for case in table.cases.values()).values()) == [1, 2]
    text = (done.folder / "duplus_cases.json").read_text()
    assert not [word for word in (*PATIENT.values(), "two") if word in text]


@pytest.mark.parametrize("form", ["rtstruct", "seg"])
def test_image_and_labels_are_those_of_the_series(tmp_path, form):
    source = write_patient(tmp_path / "in", KIDNEYS, form, direction=CORONAL)
    done = convert(tmp_path)
    (case,) = done.cases
    image = nibabel.load(done.folder / "imagesTr" / f"{case}_0000.nii.gz")
    labels = nibabel.load(done.folder / "labelsTr" / f"{case}.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), VOLUME)
    np.testing.assert_allclose(image.affine[:, [2, 1, 0, 3]], source.affine, atol=1e-4)
    np.testing.assert_array_equal(labels.affine, image.affine)
    values = json.loads((done.folder / "dataset.json").read_text())["labels"]
    assert list(values) == ["background", "left kidney", "right kidney"]
    voxels = np.asarray(labels.dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(voxels == values["left kidney"], LEFT)
    np.testing.assert_array_equal(voxels == values["right kidney"], RIGHT)


def test_the_registry_checks_the_dataset(tmp_path):
    from duplus_nnunet.prompt_registry import find_entry

    write_patient(tmp_path / "in", KIDNEYS)
    folder = convert(tmp_path).folder
    entry = find_entry(folder.name, json.loads((folder / "dataset.json").read_text()), folder)
    assert [target.missing for target in entry.targets] == ["not annotated"] * 2
    assert [context.modality for context in entry.contexts.values()] == ["computed tomography"]


def test_intensities_are_rescaled(tmp_path):
    write_patient(tmp_path / "in", KIDNEYS, RescaleSlope=None, RescaleIntercept=None)
    import pydicom

    for file in (tmp_path / "in" / "images").iterdir():
        content = pydicom.dcmread(file)
        content.RescaleSlope, content.RescaleIntercept = 2, -1000
        content.save_as(file)
    done = convert(tmp_path)
    (image,) = (done.folder / "imagesTr").iterdir()
    np.testing.assert_array_equal(np.asarray(nibabel.load(image).dataobj).transpose(2, 1, 0), VOLUME * 2 - 1000)


def test_structures_without_a_target_are_listed_and_left_out(tmp_path):
    write_patient(tmp_path / "in", {**KIDNEYS, "GTVp": TUMOR, "Couch": box((0, 1), (7, 8), (0, 9))})
    done = convert(tmp_path)
    assert done.matched == {"Kidney_L": "left kidney", "Kidney_R": "right kidney"}
    assert set(done.unmatched) == {"GTVp", "Couch"}
    record = json.loads((done.folder / "conversion.json").read_text())
    assert record["structures_left_out"] == 2
    assert set(record["structures"]) == set(KIDNEYS)


def test_names_of_structures_are_kept_on_file_by_choice(tmp_path):
    write_patient(tmp_path / "in", {**KIDNEYS, "GTVp": TUMOR, "Couch": box((0, 1), (7, 8), (0, 9))})
    done = convert(tmp_path, by_hand=(("gtvp", "kidney tumor"),), precedence=("kidney tumor",), keep_ids=True)
    record = json.loads((done.folder / "conversion.json").read_text())
    assert set(record["structures_left_out"]) == {"Couch"}
    assert record["structures"]["GTVp"] == "kidney tumor"


def test_a_structure_is_mapped_by_hand_and_precedence_settles_shared_voxels(tmp_path):
    write_patient(tmp_path / "in", {**KIDNEYS, "GTVp": TUMOR})
    done = convert(tmp_path, by_hand=(("gtvp", "kidney tumor"),), precedence=("kidney tumor",))
    values = json.loads((done.folder / "dataset.json").read_text())["labels"]
    (file,) = (done.folder / "labelsTr").iterdir()
    voxels = np.asarray(nibabel.load(file).dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(voxels == values["kidney tumor"], TUMOR)
    np.testing.assert_array_equal(voxels == values["left kidney"], LEFT & ~TUMOR)


def refuse(tmp_path, files=(), **choices):
    with pytest.raises(DataError) as caught:
        convert(tmp_path, files, **choices)
    assert not (tmp_path / "Dataset001_Clinical").exists()
    return str(caught.value)


def test_shared_voxels_without_precedence_are_refused(tmp_path):
    write_patient(tmp_path / "in", {**KIDNEYS, "GTVp": TUMOR})
    assert f"share {TUMOR.sum()} voxels" in refuse(tmp_path, by_hand=(("GTVp", "kidney tumor"),))


def test_two_structures_of_one_target_are_refused(tmp_path):
    write_patient(tmp_path / "in", {"Kidney_L": LEFT, "left kidney": RIGHT, "Kidney_R": TUMOR})
    assert "both 'left kidney'" in refuse(tmp_path)


def test_names_by_hand_that_no_file_has_are_refused(tmp_path):
    write_patient(tmp_path / "in", KIDNEYS)
    assert "'GTV'" in refuse(tmp_path, by_hand=(("GTV", "kidney tumor"),))
    assert "'liver'" in refuse(tmp_path, precedence=("liver",))


def test_no_known_structure_is_refused(tmp_path):
    write_patient(tmp_path / "in", {"Couch": LEFT})
    assert "Couch" in refuse(tmp_path)


def test_several_patients_are_found_and_folds_are_by_patient(tmp_path):
    for number, patient in enumerate("aab"):
        write_patient(tmp_path / "in" / str(number), KIDNEYS, PatientID=patient)
    done = convert(tmp_path)
    assert len(done.cases) == 3
    first, second = json.loads((done.folder / "splits_final.json").read_text())
    assert sorted([len(first["val"]), len(second["val"])]) == [1, 2]


def test_no_file_or_name_holds_what_names_the_patient(tmp_path):
    write_patient(tmp_path / "in", KIDNEYS)
    done = convert(tmp_path)
    files = [file for file in done.folder.rglob("*") if file.is_file()]
    text = " ".join(str(file.relative_to(done.folder)) for file in files)
    text += " ".join(file.read_text() for file in files if file.suffix in (".json", ".yaml"))
    for image in done.folder.rglob("*.nii.gz"):
        text += str(nibabel.load(image).header)
    assert not [word for word in (*PATIENT.values(), "Doe", "Jane") if word not in ("F", "S1") and word in text]


def test_no_file_holds_names_that_were_typed_into_structures_and_series(tmp_path):
    """What people type may name the patient, in what is matched by hand, left out, or refused."""
    secrets = {"Doe GTV": LEFT, "Jane Liver box": RIGHT}
    write_patient(tmp_path / "in" / "Doe_Jane", {**secrets, **{"Kidney_R": TUMOR}}, SeriesDescription="Doe CT", **NAMED)
    both = {"Doe GTV": LEFT, "Doe GTV two": RIGHT}
    write_patient(tmp_path / "in" / "Doe_John", both, PatientID="Doe8", SeriesDescription="Doe CT")
    by_hand = (("Doe GTV", "kidney tumor"), ("Doe GTV two", "kidney tumor"))
    done = convert(tmp_path, by_hand=by_hand, precedence=("kidney tumor",))
    assert (len(done.cases), len(done.left_out)) == (1, 1)
    assert "Doe GTV" in done.matched
    assert "Jane Liver box" in done.unmatched
    written = [file for file in done.folder.rglob("*") if file.is_file()]
    for file in written:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for word in ("Doe", "Jane", "John", *NAMED.values()):
            assert word not in str(file.relative_to(done.folder))
            assert word.encode() not in content, (file, word)


def test_patient_ids_are_kept_by_choice(tmp_path):
    write_patient(tmp_path / "in", KIDNEYS, PatientID="A/7")
    (case,) = convert(tmp_path, keep_ids=True).cases
    assert case.startswith("A-7_")


def test_a_case_that_cannot_be_converted_is_left_out(tmp_path):
    write_patient(tmp_path / "in" / "a", KIDNEYS)
    write_patient(tmp_path / "in" / "b", KIDNEYS)
    sorted((tmp_path / "in" / "b" / "images").iterdir())[1].unlink()
    done = convert(tmp_path)
    assert len(done.cases) == 1
    (why,) = done.left_out.values()
    assert "spaced" in why
    assert str(tmp_path) not in why


@pytest.mark.parametrize(("changed", "word"), [({"Modality": "MR"}, "CT and MR"), ({"Modality": "US"}, "CT and US")])
def test_two_modalities_are_refused(tmp_path, changed, word):
    write_patient(tmp_path / "in" / "a", KIDNEYS)
    write_patient(tmp_path / "in" / "b", KIDNEYS, **changed)
    assert word in refuse(tmp_path)


def test_a_pet_series_without_suv_is_refused(tmp_path):
    write_patient(tmp_path / "in", KIDNEYS, Modality="PT", Units="BQML")
    assert "CorrectedImage" in refuse(tmp_path)


def test_structures_of_a_series_that_is_not_there_are_refused(tmp_path):
    write_patient(tmp_path / "in" / "a", KIDNEYS)
    write_patient(tmp_path / "other", KIDNEYS)
    assert "not in" in refuse(tmp_path, [tmp_path / "other" / "structures.dcm"])


def test_two_files_of_one_series_are_refused_unless_one_is_named(tmp_path):
    write_patient(tmp_path / "in", KIDNEYS)
    (tmp_path / "in" / "again.dcm").write_bytes((tmp_path / "in" / "structures.dcm").read_bytes())
    assert "again.dcm" in refuse(tmp_path)
    assert len(convert(tmp_path, [tmp_path / "in" / "again.dcm"]).cases) == 1


def test_a_folder_without_structures_is_refused(tmp_path):
    write_series(tmp_path / "in", VOLUME)
    assert "no RTSTRUCT" in refuse(tmp_path)


def test_an_existing_dataset_is_kept(tmp_path):
    write_patient(tmp_path / "in", KIDNEYS)
    folder: Path = convert(tmp_path).folder
    with pytest.raises(DataError, match="exists"):
        convert(tmp_path)
    assert folder.is_dir()


def test_empty_structures_are_noted(tmp_path):
    write_patient(tmp_path / "in", {**KIDNEYS, "liver": make_masks(SHAPE)["liver"] & ~LEFT & ~RIGHT})
    import pydicom

    content = pydicom.dcmread(tmp_path / "in" / "structures.dcm")
    content.ROIContourSequence = content.ROIContourSequence[:2]
    content.save_as(tmp_path / "in" / "structures.dcm")
    (notes,) = convert(tmp_path).cases.values()
    assert notes == ("liver: empty",)


@pytest.mark.parametrize(
    "values",
    [{"RescaleSlope": None}, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}],
)
def test_what_is_not_predicted_is_not_trained_on(tmp_path, values):
    write_patient(tmp_path / "in" / "one", KIDNEYS)
    source = write_patient(tmp_path / "in" / "two", KIDNEYS, PatientID="two")
    for file in (tmp_path / "in" / "two" / "images").rglob("*.dcm"):
        header = pydicom.dcmread(file)
        for name, value in values.items():
            setattr(header, name, value) if value is not None else delattr(header, name)
        header.save_as(file)
    done = convert(tmp_path)
    assert (len(done.cases), len(done.left_out)) == (1, 1)
    assert source.series not in str(done.left_out)
