"""Series are found in folders of any form and in zip files, which are unpacked safely."""

import gc
import zipfile
from pathlib import Path

import numpy as np
import pydicom.data
import pytest

from duplus_nnunet.dicom.choosing import choose_series, list_left_out, require_one
from duplus_nnunet.dicom.finding import find_series, holds_dicom
from duplus_nnunet.dicom.reading import read_volume
from duplus_nnunet.errors import DataError

from ...dicom_series import CT, MR, PET, make_slices, make_stored, save

SAMPLES = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture
def export(tmp_path):
    """A folder as from a CD: three series of two patients, nested, with other files among them."""
    folder = tmp_path / "export"
    save(folder / "A" / "B", make_slices(make_stored(), sop=CT, SeriesDescription="Portal venous 2 mm"))
    save(folder / "A", make_slices(make_stored((3, 5, 4)), sop=MR, SeriesDescription="T2 haste"))
    save(folder / "C", make_slices(make_stored((4, 5, 4)), sop=PET, PatientID="2", SeriesDescription="WB"))
    save(folder / "D", make_slices(make_stored((1, 5, 4)), sop=CT, SeriesDescription="Scout"))
    (folder / "README.txt").write_text("viewer on this disk")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    return folder


def pack(folder, file):
    with zipfile.ZipFile(file, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    return file


def test_nested_series_are_found_among_other_files(export):
    study = find_series(export)
    assert {one.shape for one in study.series} == {(6, 9, 8), (3, 5, 4), (4, 5, 4), (1, 5, 4)}
    assert study.others == 2
    assert holds_dicom(export)


def test_zip_file_holds_the_same_and_its_folder_goes_away(export, tmp_path):
    study = find_series(pack(export, tmp_path / "export.zip"))
    folder = study.workspace.folder
    assert [one.uid for one in study.series] == [one.uid for one in find_series(export).series]
    expected = read_volume(choose_series(find_series(export), "MR")[0]).values
    np.testing.assert_array_equal(read_volume(choose_series(study, "MR")[0]).values, expected)
    assert {path.name.isdecimal() for path in folder.iterdir()} == {True}
    del study
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "C:/outside"])
def test_zip_file_with_a_path_outside_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"content")
    with pytest.raises(DataError, match=r"a\.zip"):
        find_series(tmp_path / "a.zip")
    assert not (tmp_path.parent / "outside").exists()


def test_zip_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("duplus_nnunet.dicom.finding._MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large", bytes(100_000))
    with pytest.raises(DataError, match="1 files"):
        find_series(tmp_path / "a.zip")


def test_damaged_zip_file_is_refused(export, tmp_path):
    file = pack(export, tmp_path / "a.zip")
    content = bytearray(file.read_bytes())
    content[200:260] = bytes(60)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip"):
        find_series(file)


@pytest.mark.parametrize("name", ["missing", "empty", "file.txt"])
def test_source_without_dicom_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(DataError, match=name):
        find_series(tmp_path / name)
    assert not holds_dicom(tmp_path / name)


def test_whole_and_original_series_are_chosen_by_default(export):
    study = find_series(export)
    chosen = choose_series(study)
    assert {one.modality for one in chosen} == {"CT", "MR", "PT"}
    assert len(chosen) == 3
    with pytest.raises(DataError, match="3 series"):
        require_one(study, chosen)


@pytest.mark.parametrize("wanted", ["ct", "CT", "*VENOUS*", "portal venous 2 mm"])
def test_series_is_chosen_by_modality_or_description(export, wanted):
    (series,) = choose_series(find_series(export), wanted)
    assert series.shape == (6, 9, 8)


def test_series_is_chosen_by_number_or_hash(export):
    study = find_series(export)
    for number, one in enumerate(study.series, 1):
        if one.is_usable:
            assert choose_series(study, str(number)) == choose_series(study, one.hash) == [one]


@pytest.mark.parametrize("wanted", ["9", "scout", "NM", "*arterial*", "0"])
def test_choice_that_names_no_usable_series_is_refused(export, wanted):
    with pytest.raises(DataError, match=wanted.strip("*")):
        choose_series(find_series(export), wanted)


def test_derived_series_are_chosen_only_where_nothing_else_is(tmp_path):
    derived = {"ImageType": ["DERIVED", "PRIMARY"]}
    save(tmp_path / "a", make_slices(make_stored(), **derived))
    assert len(choose_series(find_series(tmp_path))) == 1
    save(tmp_path / "b", make_slices(make_stored((4, 5, 5))))
    (series,) = choose_series(find_series(tmp_path))
    assert series.shape == (4, 5, 5)


def test_damaged_files_end_nothing(tmp_path):
    """Each byte range of a header is overwritten in turn: a file is left out, or read with what is left."""
    save(tmp_path, make_slices(make_stored((2, 4, 4))))
    content = next(tmp_path.iterdir()).read_bytes()
    for start in range(132, len(content) - 8, 23):
        (tmp_path / f"damaged{start}").write_bytes(content[:start] + b"\xff" * 8 + content[start + 8 :])
        (tmp_path / f"cut{start}").write_bytes(content[:start])
    assert find_series(tmp_path).series


def test_values_that_break_a_rule_are_not_quoted(tmp_path, recwarn, capsys):
    slices = make_slices(make_stored())
    for one in slices:
        one["Modality"]._value = "doe^jane who was born in march"
    find_series(save(tmp_path, slices))
    assert not [warning for warning in recwarn if "jane" in str(warning.message)]
    assert "jane" not in capsys.readouterr().err


def test_folder_without_a_usable_series_says_why(tmp_path):
    save(tmp_path, make_slices(make_stored((1, 5, 4))))
    with pytest.raises(DataError, match="single slice"):
        choose_series(find_series(tmp_path))


def test_sample_disk_of_pydicom_is_listed():
    """Its 81 files are real series, thinned out: single slices and missing ones are named, nothing fails."""
    study = find_series(SAMPLES / "dicomdirtests")
    by_modality = {one.modality for one in study.series}
    assert by_modality >= {"CT", "MR", "CR"}
    assert all(one.refusals for one in study.series if one.modality == "CR")
    assert sum(len(one.slices) for one in study.series) > 20


@pytest.mark.parametrize(
    "name",
    ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm",
     "MR_small_bigendian.dcm", "MR_small_implicit.dcm"],
)  # fmt: skip
def test_samples_of_pydicom_in_each_encoding_have_the_same_values(tmp_path, name):
    """Two copies of a sample, one moved by a slice, make the smallest volume."""
    first, second = pydicom.dcmread(SAMPLES / name), pydicom.dcmread(SAMPLES / name)
    normal = np.cross(first.ImageOrientationPatient[:3], first.ImageOrientationPatient[3:])
    second.ImagePositionPatient = [float(v) for v in np.array(first.ImagePositionPatient, float) + 3 * normal]
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = f"{first.SOPInstanceUID}.1"
    first.save_as(tmp_path / "a")
    second.save_as(tmp_path / "b")
    (series,) = find_series(tmp_path).series
    expected = pydicom.dcmread(SAMPLES / "MR_small.dcm").pixel_array
    np.testing.assert_array_equal(read_volume(series).values, np.stack([expected, expected]))


@pytest.mark.parametrize(("name", "value"), [("PatientID", "2"), ("FrameOfReferenceUID", "1.2.3")])
def test_series_of_two_patients_or_places_is_refused(tmp_path, name, value):
    slices = make_slices(make_stored((6, 5, 4)), sop=CT)
    for one in slices[3:]:
        setattr(one, name, value)
    save(tmp_path, slices)
    (series,) = find_series(tmp_path).series
    assert any(name in reason for reason in series.refusals)


@pytest.mark.parametrize("length", [140, 500])
def test_series_beside_a_damaged_file_is_refused(tmp_path, length):
    save(tmp_path / "a", make_slices(make_stored((6, 5, 4)), sop=CT))
    save(tmp_path / "b", make_slices(make_stored((6, 5, 4)), sop=MR))
    last = next(file for file in (tmp_path / "a").rglob("*") if file.is_file())
    last.write_bytes(last.read_bytes()[:length])
    usable = {one.modality: one.is_usable for one in find_series(tmp_path).series}
    assert usable == {"CT": False, "MR": True}


def test_a_doubtful_series_is_taken_where_its_patient_has_no_other(tmp_path):
    save(tmp_path / "a", make_slices(make_stored((6, 5, 4)), sop=CT, PatientID="1"))
    derived = ["DERIVED", "PRIMARY", "AXIAL"]
    save(tmp_path / "b", make_slices(make_stored((6, 5, 4)), sop=CT, PatientID="2", ImageType=derived))
    save(tmp_path / "c", make_slices(make_stored((6, 5, 4)), sop=CT, PatientID="1", ImageType=derived))
    study = find_series(tmp_path)
    chosen = choose_series(study)
    assert sorted((one.about.patient, bool(one.doubts)) for one in chosen) == [("1", False), ("2", True)]
    (left_out,) = list_left_out(study, chosen)
    assert "derived" in left_out
