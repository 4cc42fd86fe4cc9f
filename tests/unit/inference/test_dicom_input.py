"""DICOM enters a prediction by one border: what is taken as DICOM, which context it gets, and how cases are named."""

from pathlib import Path

import pytest

from duplus_nnunet import extras
from duplus_nnunet.errors import DataError, HostError, PromptError
from duplus_nnunet.inference.dicom_input import check_reader, open_dicom, open_dicom_image
from duplus_nnunet.inference.reading import InputCase
from duplus_nnunet.plans_form import PlannedContext

from ...dicom_series import CT, MR, NAMES, PET, make_pet_values, make_slices, make_stored, save

CT_WORDS, MR_WORDS = "computed tomography", "magnetic resonance imaging"


def make_context(modality, region="abdomen"):
    return PlannedContext(sentences=[f"A {modality}"], target_prompts={}, modality=modality, region=region)


CONTEXTS = {"ct": make_context(CT_WORDS), "mr": make_context(MR_WORDS)}


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export"
    save(folder / "a", make_slices(make_stored(), sop=CT))
    save(folder / "b", make_slices(make_stored((4, 5, 5)), sop=MR))
    save(folder / "c", make_slices(make_stored((4, 5, 5)), sop=PET, **make_pet_values()))
    return folder


def find(found, modality):
    return next(image for image in found.images if image.series.modality == modality)


def test_folder_of_nnunet_images_is_not_looked_through(export):
    assert len(open_dicom(export).images) == 3
    (export / "case_0000.nii.gz").touch()
    assert open_dicom(export) is None


@pytest.mark.parametrize("name", ["image.nii.gz", "missing", "missing.zip"])
def test_other_sources_are_not_dicom(tmp_path, name):
    (tmp_path / "image.nii.gz").touch()
    assert open_dicom(tmp_path / name) is None
    assert open_dicom(tmp_path) is None


def test_contexts_are_those_of_the_modality_and_others_are_left_out(export, capsys):
    found, choice = open_dicom(export).choose_contexts(CONTEXTS, None)
    assert choice.by_case == {find(found, "CT").name: "ct", find(found, "MR").name: "mr"}
    assert "PT" in capsys.readouterr().err


def test_named_context_leaves_out_other_modalities(export):
    found, choice = open_dicom(export).choose_contexts(CONTEXTS, "MR")
    assert [image.series.modality for image in found.images] == ["MR"]
    assert choice.of(found.images[0].name) == "mr"


def test_table_of_contexts_is_checked_against_the_modality(export, tmp_path):
    found = open_dicom(export)
    table = tmp_path / "contexts.csv"
    names = {modality: find(found, modality).name for modality in ("CT", "MR")}
    table.write_text(f"case,context\n{names['CT']},ct\n{names['MR']},mr\n")
    assert found.choose_contexts(CONTEXTS, str(table))[1].by_case == {names["CT"]: "ct", names["MR"]: "mr"}
    table.write_text(f"case,context\n{names['CT']},mr\n{names['MR']},mr\n")
    with pytest.raises(DataError, match="'mr'"):
        found.choose_contexts(CONTEXTS, str(table))
    table.write_text(f"case,context\n{names['CT']},ct\n")
    with pytest.raises(DataError, match=names["MR"]):
        found.choose_contexts(CONTEXTS, str(table))


def test_chosen_series_of_another_modality_is_refused(export):
    with pytest.raises(DataError, match="PT"):
        open_dicom(export, "PT").choose_contexts(CONTEXTS, None)
    with pytest.raises(DataError, match="MR"):
        open_dicom(export, "MR").choose_contexts(CONTEXTS, "ct")
    with pytest.raises(DataError, match=CT_WORDS):
        open_dicom(export, "MR").choose_contexts({"ct": CONTEXTS["ct"]}, "ct")


def test_several_possible_contexts_are_asked_for(export):
    contexts = {"thorax": make_context(CT_WORDS, "thorax"), "abdomen": make_context(CT_WORDS)}
    with pytest.raises(PromptError, match="thorax, abdomen"):
        open_dicom(export, "CT").choose_contexts(contexts, None)


def test_body_part_that_fits_no_context_is_asked_about(tmp_path):
    folder = save(tmp_path, make_slices(make_stored(), sop=CT, BodyPartExamined="HEAD"))
    with pytest.raises(PromptError, match="abdomen"):
        open_dicom(folder).choose_contexts(CONTEXTS, None)
    assert open_dicom(folder).choose_contexts(CONTEXTS, "ct")[1].default == "ct"


def test_cases_are_named_by_a_hash_or_by_the_patient_id_where_asked_for(tmp_path):
    folder = save(tmp_path, make_slices(make_stored(), PatientID="A/../B 1"))
    (hashed,), (named,) = open_dicom(folder).images, open_dicom(folder, keep_ids=True).images
    assert hashed.name == f"series_{hashed.series.hash}"
    assert named.name == f"A-..-B-1_{named.series.hash}"
    assert Path(named.name).name == named.name


def test_image_file_is_written_and_removed(export):
    image = open_dicom_image(export, "CT").images[0]
    assert not Path(image.file).exists()
    assert len(image.slices) == 6
    image.write()
    assert Path(image.file).exists()
    assert not any(value in image.file + image.label for value in NAMES.values())
    image.remove()
    assert not Path(image.file).exists()


def test_measure_changes_with_the_pixels(tmp_path):
    slices = make_slices(make_stored())
    before = open_dicom_image(save(tmp_path, slices)).images[0].measure()
    assert open_dicom_image(tmp_path).images[0].measure() == before
    slices[0].PixelData = bytes(len(slices[0].PixelData))
    assert open_dicom_image(save(tmp_path, slices)).images[0].measure() != before


def test_one_image_is_not_made_of_several_series(export):
    with pytest.raises(DataError, match="3 series"):
        open_dicom_image(export)


def test_models_of_several_channels_or_pictures_are_refused():
    check_reader("SimpleITKIO", 1)
    with pytest.raises(DataError, match="2 channels"):
        check_reader("SimpleITKIO", 2)
    with pytest.raises(DataError, match="NaturalImage2DIO"):
        check_reader("NaturalImage2DIO", 1)


def test_missing_extra_is_named(export, monkeypatch):
    def fail(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras.importlib, "import_module", fail)
    with pytest.raises(HostError, match=r"duplus-nnunet\[dicom\]"):
        open_dicom(export)


def test_a_text_that_is_kept_holds_no_folder_of_the_images(tmp_path):
    file = tmp_path / "Doe_Jane" / "image_0000.nii.gz"
    case = InputCase("a", (str(file),), None, slices=(str(tmp_path / "PID12345" / "IM1"),))
    text = case.hide_folders(f"{file} cannot be read; {tmp_path / 'PID12345'} neither.")
    assert "image_0000.nii.gz" in text
    assert not [word for word in ("Doe", "PID12345", str(tmp_path)) if word in text]
