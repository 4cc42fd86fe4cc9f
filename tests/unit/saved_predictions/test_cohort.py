"""The table over a folder of label maps; expected numbers are computed by nibabel and SciPy."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from duplus_nnunet import cli
from duplus_nnunet.data.case_table import Case, CaseTable, Source, write_case_table
from duplus_nnunet.outputs.manifest import CaseRecord, Manifest, RunRecord

LABELS = {"background": 0, "liver": 1, "left kidney": 2, "right kidney": 3, "organs": [1, 2, 3]}
DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": LABELS,
    "regions_class_order": [1, 2, 3, 4],
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
SPACING = (1.5, 2.0, 3.0)
SHAPE = (12, 10, 8)


def save(file: Path, array: Any, spacing: tuple[float, ...] = SPACING) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]))
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    nibabel.save(image, file)


def make_labels(*, liver: int = 3, swapped: bool = False) -> Any:
    """Make a liver of two parts, and kidneys; the first axis of the file runs to the patient's right."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4 : 4 + liver, 2:5, 2:4] = 1
    labels[10, 8, 6] = 1
    labels[0:2, 6:8, 3:6] = 3 if swapped else 2
    labels[8:11, 6:8, 3:6] = 2 if swapped else 3
    return labels


def make_image(seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(-300, 350, SHAPE).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable, raising=False)
    save(tmp_path / "p" / "a.nii.gz", make_labels())
    save(tmp_path / "p" / "b.nii.gz", np.zeros(SHAPE, np.uint8))
    for name in "ab":
        save(tmp_path / "images" / f"{name}_0000.nii.gz", make_image())
    (tmp_path / "p" / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return tmp_path


def read_csv(file: Path) -> dict[str, dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return {row["case"]: row for row in csv.DictReader(lines)}


def measure(home: Path, *options: str) -> tuple[int, dict[str, dict[str, str]], Any]:
    code = cli.main(["cohort", str(home / "p"), *options])
    return code, read_csv(home / "p" / "cohort.csv"), json.loads((home / "p" / "cohort.json").read_text())


def test_measures_equal_those_of_scipy(folder: Path) -> None:
    code, rows, _ = measure(folder, "--images", str(folder / "images"))
    labels, image = make_labels(), make_image().astype(np.float64)
    assert code == 0
    for name, values in {"liver": [1], "left kidney": [2], "organs": [1, 2, 3]}.items():
        mask = np.isin(labels, values)
        parts, number = ndimage.label(mask, np.ones((3, 3, 3)))
        found = {key.removeprefix(f"{name}."): value for key, value in rows["a"].items() if key.startswith(f"{name}.")}
        assert float(found["volume_ml"]) == pytest.approx(mask.sum() * 9 / 1000)
        assert int(found["components"]) == number
        assert float(found["largest_ml"]) == pytest.approx(np.bincount(parts.ravel())[1:].max() * 9 / 1000)
        assert float(found["intensity_mean"]) == pytest.approx(image[mask].mean(), abs=1e-3)
        assert float(found["intensity_std"]) == pytest.approx(image[mask].std(), abs=1e-3)
        low, median, high = np.percentile(image[mask], (5, 50, 95))
        stated = [float(found[f"intensity_{key}"]) for key in ("p05", "median", "p95")]
        assert stated == pytest.approx([low, median, high], abs=1e-3)
    assert (rows["a"]["liver.touches_border"], rows["a"]["left kidney.touches_border"]) == ("false", "true")
    assert rows["a"]["unit"] == "HU"


def test_empty_label_map_is_a_row_of_absent_targets(folder: Path) -> None:
    _, rows, content = measure(folder, "--images", str(folder / "images"))
    assert (rows["b"]["liver.present"], rows["b"]["liver.volume_ml"]) == ("false", "0.0")
    assert rows["b"]["liver.intensity_mean"] == rows["b"]["liver.largest_ml"] == ""
    assert content["targets"]["liver"]["images"] == 2
    assert content["targets"]["liver"]["present"] == 1


def test_intensities_need_images(folder: Path) -> None:
    _, rows, content = measure(folder)
    assert not [column for column in rows["a"] if "intensity" in column or column == "unit"]
    assert content["cases"]["a"]["units"] == {}


def test_four_axes_and_other_grids_are_refused_and_the_others_measured(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folder / "p" / "four.nii.gz", np.zeros((4, 4, 4, 2), np.uint8))
    save(folder / "p" / "grid.nii.gz", make_labels())
    save(folder / "images" / "grid_0000.nii.gz", make_image(), (1.5, 2.0, 2.5))
    (folder / "p" / "torn.nii.gz").write_bytes(b"\x1f\x8b rest")
    odd = make_labels()
    odd[0, 0, 0] = 7
    save(folder / "p" / "value.nii.gz", odd)
    code, rows, content = measure(folder, "--images", str(folder / "images"))
    assert code == 1
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {"four", "grid", "torn", "value"}
    assert set(content["failed"]) == {"four", "grid", "torn", "value"}
    assert rows["a"]["status"] == "measured"
    assert "different grids" in rows["grid"]["message"]
    assert "4 of 6" in capsys.readouterr().err


def test_several_channels_have_a_unit_each(folder: Path) -> None:
    channels = {"channel_names": {"0": "CT", "1": "PET", "2": "T2"}}
    (folder / "p" / "dataset.json").write_text(json.dumps(DATASET_JSON | channels))
    for number in (1, 2):
        save(folder / "images" / f"a_000{number}.nii.gz", np.abs(make_image(number)) / 100)
    _, rows, _ = measure(folder, "--images", str(folder / "images"))
    assert [rows["a"][f"unit.{name}"] for name in ("CT", "PET", "T2")] == ["HU", "SUV", ""]
    mask = make_labels() == 1
    expected = (np.abs(make_image(1)) / 100)[mask].mean()
    assert float(rows["a"]["liver.intensity_mean.PET"]) == pytest.approx(expected, abs=1e-5)


def test_exchanged_sides_are_flagged(folder: Path) -> None:
    save(folder / "p" / "turned.nii.gz", make_labels(swapped=True))
    both = make_labels()
    both[both == 2] = 0
    both[8:11, 6:7, 3:6] = 2
    save(folder / "p" / "one_side.nii.gz", both)
    _, _, content = measure(folder)
    kinds = {case: [flag["kind"] for flag in row["flags"]] for case, row in content["cases"].items()}
    assert kinds == {"a": [], "b": [], "turned": ["sides exchanged"], "one_side": ["same side"]}


def test_exchanged_sides_are_found_in_any_orientation(folder: Path) -> None:
    """A flipped first axis exchanges the sides in the array, not in the patient."""
    affine = np.diag([-1.5, 2.0, 3.0, 1.0])
    image = nibabel.Nifti1Image(make_labels()[::-1].copy(), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nibabel.save(image, folder / "p" / "flipped.nii.gz")
    _, _, content = measure(folder)
    assert content["cases"]["flipped"]["flags"] == []


def test_unusual_volume_and_absent_target_are_flagged(folder: Path) -> None:
    for number in range(12):
        save(folder / "p" / f"c{number}.nii.gz", make_labels(liver=3 + number % 2))
    tiny = make_labels()
    tiny[tiny == 1] = 0
    tiny[5, 5, 5] = 1
    save(folder / "p" / "tiny.nii.gz", tiny)
    _, rows, content = measure(folder)
    flags = {case: {(flag["target"], flag["kind"]) for flag in row["flags"]} for case, row in content["cases"].items()}
    assert ("liver", "unusual volume") in flags.pop("tiny")
    assert flags.pop("b") == {(target, "absent") for target in LABELS if target != "background"}
    assert not any(flags.values())
    volumes = np.log([19 if number % 2 == 0 else 25 for number in range(12)] + [19, 1])
    deviations = np.abs(volumes - np.median(volumes))
    expected = (volumes[-1] - np.median(volumes)) / (1.4826 * max(np.median(deviations), 0.05))
    [found] = [flag for flag in content["cases"]["tiny"]["flags"] if flag["target"] == "liver"]
    assert found["robust_z"] == pytest.approx(expected, abs=1e-5)
    assert "liver: unusual volume" in rows["tiny"]["flags"]


def test_manifest_gives_contexts_requested_targets_and_warnings(folder: Path) -> None:
    run = RunRecord("model", {}, ("0",), {"abdomen_ct": "A computed tomography of abdomen"}, {})
    manifest = Manifest(run)
    manifest.record("patient/1", CaseRecord("complete", "abdomen_ct", {"Liver": "x"}, warnings=("odd",), file_name="a"))
    manifest.record("broken", CaseRecord("failed", "abdomen_ct"))
    manifest.write(folder / "p")
    content = DATASET_JSON | {"channel_names": {"0": "image"}, "duplus": {"targets": {"Liver": "liver"}}}
    (folder / "p" / "dataset.json").write_text(json.dumps(content))
    save(folder / "images" / "patient" / "1_0000.nii.gz", make_image())
    _, rows, found = measure(folder)
    case = found["cases"]["patient/1"]
    assert case["context_prompt"] == "A computed tomography of abdomen"
    assert list(case["targets"]) == ["Liver"]
    assert [flag["text"] for flag in case["flags"]] == ["odd"]
    assert rows["patient/1"]["left kidney.present"] == ""
    assert found["notes"] == ["1 case(s) of the manifest have no label map: broken (failed)."]


def test_annotations_count_where_they_were_made(folder: Path) -> None:
    home = folder / "Dataset007_Test"
    for name in "ab":
        save(home / "labelsTr" / f"{name}.nii.gz", make_labels())
    (home / "dataset.json").write_text(json.dumps(DATASET_JSON))
    source = Source("Dataset007_Test", "abdomen_ct", ("liver", "left_kidney"), ("CT",))
    cases = {
        "a": Case("ct", "P1", ("liver",), ("liver",)),
        "b": Case("ct", "P2", ("liver", "left_kidney"), ("liver",)),
    }
    write_case_table(CaseTable({"ct": source}, cases), home)
    output = folder / "new" / "table.csv"
    assert cli.main(["cohort", str(home / "labelsTr"), "-o", str(output)]) == 0
    rows = read_csv(output)
    assert [rows["a"][key] for key in ("patient", "source", "context")] == ["P1", "ct", "abdomen_ct"]
    assert rows["a"]["left kidney.present"] == ""
    assert rows["b"]["left kidney.present"] == "true"
    assert (folder / "new" / "table.json").is_file()


def test_label_maps_of_another_program_need_their_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p" / "dataset.json").unlink()
    assert cli.main(["cohort", str(folder / "p")]) == 1
    assert "--labels" in capsys.readouterr().err
    (folder / "classes.json").write_text(json.dumps({"1": "liver", "2": "kidney_left", "3": "kidney_right"}))
    code, rows, content = measure(folder, "--labels", str(folder / "classes.json"))
    assert code == 0
    assert rows["a"]["kidney_left.present"] == "true"
    assert list(content["targets"]) == ["liver", "kidney_left", "kidney_right"]


@pytest.mark.parametrize(("images", "word"), [("nowhere", "does not exist"), ("p", "a_0000.nii.gz")])
def test_folders_without_images_are_refused(
    images: str, word: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (folder / "p" / f"{name}.nii.gz").rename(folder / "p" / f"{name}{name}.nii.gz")
    place = folder / ("images" if images == "p" else images)
    assert cli.main(["cohort", str(folder / "p"), "--images", str(place)]) == 1
    assert word.replace("a_", "aa_") in capsys.readouterr().err


def test_case_without_an_image_is_measured_and_noted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "images" / "a_0000.nii.gz").unlink()
    code, rows, content = measure(folder, "--images", str(folder / "images"))
    assert (code, rows["a"]["liver.present"], rows["a"]["liver.intensity_mean"]) == (0, "true", "")
    assert content["notes"] == ["1 case(s) have no image: a."]
    assert "no image: a" in capsys.readouterr().err


def test_pet_that_is_not_in_suv_is_flagged(folder: Path) -> None:
    content = DATASET_JSON | {"channel_names": {"0": "PET"}}
    (folder / "p" / "dataset.json").write_text(json.dumps(content))
    save(folder / "images" / "a_0000.nii.gz", np.abs(make_image()) * 100)
    _, _, found = measure(folder, "--images", str(folder / "images"))
    assert [flag["kind"] for flag in found["cases"]["a"]["flags"]] == ["intensities"]


def test_json_is_all_that_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cohort", str(folder / "p"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "p" / "cohort.json").read_text())
