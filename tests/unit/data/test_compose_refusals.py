"""Errors of `duplus compose`, after which no files are left behind."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from duplus_nnunet.data.case_table import read_case_table

from .compose_calls import LEFT_HANDED, NOT_DRAWN, ORGANS, PET_CT, compose, fail, read, specify

WriteRaw = Callable[..., Path]
TWO_CONTEXTS = """\
dataset: Belly
contexts:
  belly_ct: {modality: computed tomography, region: abdomen}
  belly_mr: {modality: magnetic resonance imaging, region: abdomen}
targets: {liver: }
"""


@pytest.mark.usefixtures("sources")
def test_a_number_that_is_taken_is_refused(raw: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "nnUNet_results" / "Dataset501_Other").mkdir()
    assert re.search(r"501 .*nnUNet_results/Dataset501_Other", fail(capsys, raw, "1", "2"))


@pytest.mark.usefixtures("sources")
def test_an_earlier_split_of_preprocessed_data_is_reported(
    raw: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset501_All"
    folder.mkdir()
    (folder / "splits_final.json").write_text("[]", encoding="utf-8")
    assert "splits_final.json" in fail(capsys, raw, "1", "2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "No source was named"),
        (("1", "3"), "'3'"),
        (("1", "A"), "'Dataset001_A'"),
        (("1", "-o", "1", "-n", "A"), "Dataset001_A cannot be both"),
        (("1", "-o", "1000"), "-o is 1000; expected"),
        (("1", "-n", "a b"), "-n is 'a b'; expected"),
    ],
)
@pytest.mark.usefixtures("sources")
def test_wrong_words_are_refused(
    words: tuple[str, ...], message: str, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fail(capsys, raw, *words)


@pytest.mark.usefixtures("sources")
def test_without_nnunet_raw_the_remedy_is_named(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("nnUNet_raw")
    assert "nnUNet_raw is not set" in fail(capsys, raw, "1")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("skip: {7: [liver]}", r"`skip`.*'7'"),
        ("targets: {1: {lung: x}}", r"`targets`.*Dataset001_A.*'lung'"),
        ("contexts: {1: a_mr}", r"`contexts`.*Dataset001_A.*'a_mr'.*'a_ct'"),
        ("contexts: {1: {'a[0-3]': a_ct}}", r"case 'a4' .*'a\[0-3\]'"),
        ("patients: {patterns: {1: '(x.)'}}", r"'\(x\.\)'.*'a0' of Dataset001_A"),
        ("patients: {shared: [[1, 2], [2, 1]]}", r"`patients.*Dataset002_B"),
        ("splits: none.json", r"none\.json"),
        ("space: shared", r"compose\.yaml:1: .*'space'"),
        ("folds: 11", r"10 patient.* 11 folds"),
    ],
)
@pytest.mark.usefixtures("sources")
def test_a_specification_that_names_what_is_not_there_is_refused(
    spec: str, message: str, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, fail(capsys, raw, "1", "2", *specify(spec)))


def test_an_empty_source_is_named(write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw("Dataset001_A", {})
    assert re.search(r"Dataset001_A/imagesTr .*\*_0000\.nii\.gz", fail(capsys, raw, "1"))


@pytest.mark.usefixtures("sources")
def test_an_image_without_label_is_named(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "Dataset001_A" / "labelsTr" / "a3.nii.gz").unlink()
    assert re.search(r"'a3' of Dataset001_A .*labelsTr/a3\.nii\.gz", fail(capsys, raw, "1"))


@pytest.mark.usefixtures("sources")
def test_an_image_without_channel_number_is_named(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "Dataset001_A" / "imagesTr" / "a3.nii.gz").touch()
    assert re.search(r"a3\.nii\.gz .*CASE_0000\.nii\.gz", fail(capsys, raw, "1"))


def test_a_missing_channel_is_named(write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_raw("Dataset001_A", {"a": 1, "b": 1}, **PET_CT)
    (folder / "imagesTr" / "b_0000.nii.gz").unlink()
    assert "Case 'b' in" in (error := fail(capsys, raw, "1"))
    assert re.search(r"gap.* 2 channel.*_0000 .*_0001", error)


@pytest.mark.usefixtures("sources")
def test_a_value_without_a_label_names_case_and_value(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {"a2": 7})
    error = fail(capsys, raw, "1", "2")
    assert re.search(r"'a2' of Dataset001_A: .*a2\.nii\.gz .*value 7, .*expected 0, 1\.", error)


@pytest.mark.usefixtures("sources")
def test_a_label_on_another_grid_names_the_case(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(raw / "Dataset001_A" / "labelsTr" / "a2.nii.gz")
    image = SimpleITK.ReadImage(file)
    image.SetOrigin((0.0, 0.0, 0.0))
    SimpleITK.WriteImage(image, file)
    error = fail(capsys, raw, "1", "2")
    assert re.search(r"'a2' of Dataset001_A: .*origin \(-11, 3\.5, 40\.25\)", error)


@pytest.mark.parametrize("part", ["labelsTr/a2.nii.gz", "imagesTr/a2_0000.nii.gz"])
@pytest.mark.usefixtures("sources")
def test_a_file_that_is_cut_off_or_no_image_is_named(part: str, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = raw / "Dataset001_A" / part
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)), str(file), useCompression=True)
    file.write_bytes(file.read_bytes()[:-9])
    assert re.search(rf"Case 'a2' of Dataset001_A: .*{file.name} cannot be read", fail(capsys, raw, "1", "2"))
    file.write_bytes(b"<html>")
    assert re.search(rf"Case 'a2' of Dataset001_A: .*{file.name} cannot be read", fail(capsys, raw, "1", "2"))


def test_a_label_map_of_fractions_is_refused(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {f"a{i}": np.full((4, 5, 6), 0.5, np.float32) for i in range(5)})
    assert re.search(r"a\d\.nii\.gz .*0\.5; expected", fail(capsys, raw, "1"))


def test_sources_of_different_channels_say_how_to_split(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {f"a{i}": 1 for i in range(5)})
    write_raw("Dataset221_AutoPET", {f"p{i}": 1 for i in range(5)}, **PET_CT)
    error = fail(capsys, raw, "1", "221")
    assert "A: CT; AutoPET: CT, PET." in error
    assert "`split_channels: [Dataset221_AutoPET]`" in error
    assert compose("1", "221", *specify("split_channels: [Dataset221_AutoPET]")) == 0
    table = read_case_table(raw / "Dataset501_All")
    assert table is not None
    assert {name: source.context for name, source in table.sources.items()} == {
        "A": "a_ct",
        "AutoPET-autopet_ct": "autopet_ct",
        "AutoPET-autopet_pet": "autopet_pet",
    }
    link = raw / "Dataset501_All" / "imagesTr" / "AutoPET-autopet_pet_p0_0000.nii.gz"
    assert link.readlink().name == "p0_0001.nii.gz"
    patients = {table.cases[f"AutoPET-autopet_{one}_p0"].patient for one in ("ct", "pet")}
    assert patients == {"AutoPET/p0"}


def test_channels_of_one_name_are_distinguished_by_number(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(
        "Dataset221_AutoPET", {f"p{i}": 1 for i in range(5)}, **{**PET_CT, "channel_names": {"0": "CT", "1": "CT"}}
    )
    error = fail(capsys, raw, "221", *specify("split_channels: true"))
    assert re.search(r"Dataset221_AutoPET, 'CT', 'CT', .*'autopet_ct'", error)
    spec = "split_channels: true\ncontexts: {AutoPET: {0: autopet_ct, 1: autopet_pet}}"
    assert compose("221", *specify(spec)) == 0


def test_a_source_of_several_contexts_asks_which(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {f"{kind}{i}": 1 for i in range(5) for kind in ("ct", "mr")}
    write_raw("Dataset001_A", cases, channel_names={"0": "image"}, prompts=TWO_CONTEXTS)
    assert re.search(r"Dataset001_A.*'belly_ct'.*'belly_mr'", fail(capsys, raw, "1"))
    assert compose("1", *specify("contexts: {1: {^ct: belly_ct, ^mr: belly_mr}}")) == 0
    table = read_case_table(raw / "Dataset501_All")
    assert table is not None
    assert sorted(table.of_source("A-belly_mr")) == [f"A-belly_mr_mr{i}" for i in range(5)]


def test_a_source_of_several_contexts_is_divided_by_the_rules_of_its_entry(write_raw: WriteRaw, raw: Path) -> None:
    rules = TWO_CONTEXTS.replace("region: abdomen", "region: abdomen, cases: [ct.*], channel: CT", 1)
    rules = rules.replace("region: abdomen}", "region: abdomen, cases: [mr.*]}", 1)
    cases = {f"{kind}{i}": 1 for i in range(5) for kind in ("ct", "mr")}
    write_raw("Dataset001_A", cases, channel_names={"0": "image"}, prompts=rules)
    assert compose("1") == 0
    table = read_case_table(raw / "Dataset501_All")
    assert table is not None
    assert sorted(table.of_source("A-belly_mr")) == [f"A-belly_mr_mr{i}" for i in range(5)]
    assert table.sources["A-belly_ct"].channels == ("CT",)


def test_two_cases_of_one_name_are_refused(write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw("Dataset001_A", {"x_1": 1})
    write_raw("Dataset002_A_x", {"1": 1})
    error = fail(capsys, raw, "1", "2")
    assert "'A_x_1': '1' of Dataset002_A_x and 'x_1' of Dataset001_A" in error


def test_two_sources_of_one_name_are_refused(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {f"x{i}": 1 for i in range(5)})
    write_raw("Dataset002_A", {f"y{i}": 1 for i in range(5)})
    error = fail(capsys, raw, "1", "2")
    assert re.search(r"'A'.*`names: \{Dataset002_A: AB\}`", error)
    assert compose("1", "2", *specify("names: {2: AB}")) == 0


def test_equal_case_names_ask_whether_they_are_the_same_people(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Dataset001_A", "Dataset002_B"):
        write_raw(name, {f"p{i}": 1 for i in range(5)})
    error = fail(capsys, raw, "1", "2")
    assert "`patients: {shared: [[Dataset001_A, Dataset002_B]]}`" in error
    assert "`patients: {shared: false}`" in error
    assert compose("1", "2", *specify("patients: {shared: false}")) == 0
    table = read_case_table(raw / "Dataset501_All")
    assert table is not None
    assert table.find("A_p0").patient == "A/p0"
    assert compose("1", "2", *specify("patients: {shared: true}"), "--overwrite") == 0
    table = read_case_table(raw / "Dataset501_All")
    assert table is not None
    assert table.find("A_p0").patient == table.find("B_p0").patient == "A+B/p0"
    for fold in read(raw / "Dataset501_All", "splits_final.json"):
        assert {name[2:] for name in fold["train"]}.isdisjoint(name[2:] for name in fold["val"])


def test_a_patient_in_training_and_test_images_is_refused(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {f"p{i}_x": 1 for i in range(5)})
    write_raw("Dataset002_B", {f"q{i}_y": 1 for i in range(5)}, tests={"p3_y": 1})
    spec = specify("patients: {shared: [[1, 2]], patterns: {1: '(.*)_', 2: '(?P<patient>.*)_'}}")
    error = fail(capsys, raw, "1", "2", *spec)
    assert re.search(r"'A\+B/p3' .*Dataset001_A \(case 'p3_x'\) .*Dataset002_B \(case 'p3_y'\)", error)


@pytest.mark.usefixtures("sources")
def test_a_split_of_the_user_with_a_patient_on_both_sides_is_refused(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.json").write_text(json.dumps([{"train": ["A_a0"], "val": ["A_a1"]}]), encoding="utf-8")
    spec = "splits: mine.json\npatients: {patterns: {1: '(a)'}}"
    error = fail(capsys, raw, "1", "2", *specify(spec))
    assert re.search(r"'A/a' is in train \(case 'A_a0'\) and in val \(case 'A_a1'\)", error)
    assert compose("1", "2", *specify("splits: mine.json")) == 0
    assert read(raw / "Dataset501_All", "splits_final.json") == [{"train": ["A_a0"], "val": ["A_a1"]}]


def test_a_target_that_is_annotated_nowhere_is_refused(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {f"a{i}": 1 for i in range(5)}, labels=ORGANS, prompts=NOT_DRAWN)
    error = fail(capsys, raw, "1")
    assert "'spleen'" in error
    assert "`skip: {Dataset001_A: [spleen]}`" in error
    assert compose("1", *specify("skip: {Dataset001_A: [spleen]}")) == 0


def test_too_many_labels_for_the_reorienting_reader_are_refused(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"background": 0, **{f"structure {i}": i for i in range(1, 256)}}
    write_raw("Dataset001_A", {f"a{i}": 1 for i in range(5)}, labels=labels)
    write_raw("Dataset002_B", {f"b{i}": 1 for i in range(5)}, labels=labels, direction=LEFT_HANDED)
    error = fail(capsys, raw, "1", "2")
    assert re.search(r"254 .*255", error)


def test_files_of_different_endings_are_refused(
    write_raw: WriteRaw, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw("Dataset001_A", {f"a{i}": 1 for i in range(5)})
    folder = write_raw("Dataset002_B", {"b": 1}, file_ending=".nrrd")
    for file in folder.glob("*/*.nii.gz"):
        shutil.move(file, str(file).replace(".nii.gz", ".nrrd"))
    assert "Dataset001_A: '.nii.gz', Dataset002_B: '.nrrd'" in fail(capsys, raw, "1", "2")


@pytest.mark.usefixtures("sources")
def test_a_composed_dataset_is_not_a_source(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compose("1", "2")
    assert "Dataset501_All" in fail(capsys, raw, "-o", "502", "501")
